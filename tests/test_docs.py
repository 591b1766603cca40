"""The documentation is complete and runs: components, keys, commands, attributes, code blocks."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collector import cli, components
from telemetry import attributes

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ACROSS_LINES = re.MULTILINE | re.DOTALL
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
COMPONENTS = [(kind, name) for kind, types in components.KINDS.items() for name in types]


def generator():
    """The program that makes the generated parts, which is no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_of(kind, name):
    """The page of a component: that of the type, or of the other name of the same class."""
    target = components.KINDS[kind][name]
    names = [each for each, cls in components.KINDS[kind].items() if cls == target]
    (page,) = [
        page for each in names if (page := DOCS / f"reference/collector/{kind}/{each}.md").exists()
    ]
    return page


def test_the_generated_parts_are_up_to_date():
    """Keys, settings, attributes and commands in the pages are what the code says (`make docs`)."""
    assert [str(page.relative_to(DOCS)) for page in generator().stale()] == []


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_each_component_has_a_page_with_its_keys(kind, name):
    """Each YAML type has one page, which is called by its names and holds the table of its keys."""
    page = page_of(kind, name)
    text = page.read_text()
    assert name in text.partition("\n")[0], f"the heading of {page.name} does not name {name}"
    assert f"<!-- generated: keys {kind}/{page.stem} -->" in text
    assert [key for key, *_ in rows_without_help(text)] == []


def rows_without_help(text):
    """The rows of key tables whose last cell is empty."""
    return re.findall(r"^\| (`[^|]+`) \|[^\n]*\|  \|$", text, re.MULTILINE)


def test_each_command_and_option_has_help():
    """Every verb is in the reference, and every option says what it does."""
    text = (DOCS / "reference" / "cli.md").read_text()
    assert [verb for verb in cli.VERBS if f"## `collector {verb}`" not in text] == []
    assert rows_without_help(text) == []


def test_each_attribute_is_documented():
    """The reference lists each name of telemetry.attributes with a text of its own."""
    text = (DOCS / "reference" / "attributes.md").read_text()
    names = {
        value for key, value in vars(attributes).items() if key.isupper() and isinstance(value, str)
    }
    assert sorted(name for name in names if f"| `{name}` |" not in text) == []
    assert set(attributes.CONTEXT) <= names


def test_the_site_has_every_page():
    """mkdocs.yml names each page of docs/ once: `mkdocs build --strict` in `make lint` checks links."""
    named = re.findall(
        r"[\w./-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    )
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def blocks(language):
    """(page, line, text) of each fenced code block of a language."""
    return list(_blocks(language))


def _blocks(language):
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, ACROSS_LINES):
            yield str(page.relative_to(ROOT)), text.count("\n", 0, found.start()) + 1, found[1]


@pytest.mark.parametrize(
    ("page", "line", "code"),
    blocks("python"),
    ids=[f"{page}:{n}" for page, n, _ in blocks("python")],
)
def test_each_python_block_runs(page, line, code, tmp_path):
    """Each python block of README and docs runs by itself, with no collector listening."""
    script = tmp_path / "block.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        cwd=tmp_path,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{page}:{line}\n{done.stderr}"


YAML = [block for block in blocks("yaml") if "receivers:" in block[2] and "service:" in block[2]]


@pytest.mark.parametrize(
    ("page", "line", "text"), YAML, ids=[f"{page}:{line}" for page, line, _ in YAML]
)
def test_each_whole_configuration_in_the_docs_is_valid(page, line, text, tmp_path):
    """Each yaml block that is a whole configuration passes `collector validate`."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert cli.main(["validate", "--config", str(file)]) == 0, f"{page}:{line}"


def test_the_shipped_configuration_is_valid():
    """otel-collector.yaml passes `collector validate`, with each store."""
    config = str(ROOT / "otel-collector.yaml")
    assert cli.main(["validate", "--config", config]) == 0


def test_each_link_between_pages_leads_somewhere():
    """Relative links of README and docs point at files that exist."""
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)[^)]*\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
