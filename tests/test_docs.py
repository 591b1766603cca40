"""The documentation is complete and runs: components, keys, commands, attributes, code blocks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from collector import cli, components
from telemetry import attributes

ROOT = Path(__file__).parent.parent
EACH_LINE, ACROSS_LINES = re.MULTILINE, re.MULTILINE | re.DOTALL
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
COLLECTOR = (ROOT / "docs" / "collector.md").read_text()
EVERYTHING = "".join(page.read_text() for page in PAGES)


def config_keys(struct, path=""):
    """Every key of a component's configuration, dotted."""
    for field in msgspec.structs.fields(struct):
        yield path + field.name
        for inner in structs(field.type):
            yield from config_keys(inner, f"{path}{field.name}.")


def structs(annotation):
    """The msgspec structs inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [struct for inner in getattr(annotation, "__args__", ()) for struct in structs(inner)]


def sections_of(name):
    """The sections whose heading has this type: some types have two names, some names two kinds."""
    found = re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", COLLECTOR, ACROSS_LINES)
    return "".join(text for title, text in found if name in re.findall(r"\w+", title))


COMPONENTS = [(kind, name) for kind, types in components.KINDS.items() for name in types]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_each_component_and_key_is_documented(kind, name):
    """docs/collector.md has a section for each YAML type, and it names each of its keys."""
    section = sections_of(name)
    assert section, f"docs/collector.md has no section '### {name}'"
    keys = {key.rpartition(".")[2] for key in config_keys(components.resolve(kind, name).Config)}
    text = section
    if "sending_queue" in keys:  # the keys that all exporters share have a section of their own
        text += COLLECTOR.partition("\n## Delivery")[2]
    missing = [key for key in sorted(keys) if not re.search(rf"\b{key}\b", text)]
    assert missing == []


def test_each_command_and_option_is_documented():
    """docs/collector.md names each verb of the program and each of its options."""
    context = click.Context(cli.cli)
    missing = []
    for verb in cli.VERBS:
        command = cli.cli.get_command(context, verb)
        assert command is not None
        assert command.help or command.callback.__doc__, verb
        missing += [
            f"collector {verb} {option}"
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.hidden
            for option in parameter.opts[:1]
            if option not in COLLECTOR
        ]
        if f"collector {verb}" not in COLLECTOR:
            missing.append(f"collector {verb}")
    assert missing == []


def test_each_attribute_is_documented():
    """The pages list each name of telemetry.attributes, and each has its own text."""
    source = (ROOT / "telemetry" / "attributes.py").read_text()
    names = re.findall(r'^[A-Z_]+: Final = "([a-z._]+)"\n(""")?', source, EACH_LINE)
    assert [name for name, _ in names if f"`{name}`" not in EVERYTHING] == []
    assert [name for name, text in names if not text] == []
    assert set(attributes.CONTEXT) <= {name for name, _ in names}


def blocks(language):
    """(page, line, text) of each fenced code block of a language."""
    return list(_blocks(language))


def _blocks(language):
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, ACROSS_LINES):
            yield page.name, text.count("\n", 0, found.start()) + 1, found[1]


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
