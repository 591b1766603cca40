"""Who may import whom: the table of ARCHITECTURE.md as a test, read from the source itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Package (a regular expression, the first match counts) -> what of ours it may import. A module may always
# import its own folder; every other arrow is written down here, private modules included.
_NOUNS = r"collector\.(model|errors|stats)"
_OTLP = r"collector\.otlp"
TABLE = [
    (r"telemetry\.attributes|telemetry\._attributes(\..*)?", r"telemetry\._attributes\..*"),
    (r"telemetry(\..*)?", r"telemetry(\..*)?"),
    (r"collector\.(model|errors|components|stats)", r"$^"),
    (r"collector\.otlp\..*|collector\.otlp", r"collector\.(model|errors)"),
    (r"collector\.http\..*", r"collector\.(model|errors)"),
    (r"collector\.documents\..*", rf"collector\.model|{_OTLP}|telemetry\.attributes"),
    (r"collector\.pipeline\..*", rf"{_NOUNS}|{_OTLP}"),
    (r"collector\.wal\..*", _NOUNS),
    (
        r"collector\.sending_queue\..*",
        rf"{_NOUNS}|{_OTLP}|collector\.(wal|pipeline)(\..*)?",
    ),
    (r"collector\.self_metrics\.exposition", r"$^"),
    (
        r"collector\.self_metrics\.own_metrics",
        rf"{_NOUNS}|collector\.(config|http)(\..*)?",
    ),
    (
        r"collector\.receivers\..*",
        rf"{_NOUNS}|{_OTLP}|collector\.http\..*|collector\.sending_queue\.config",
    ),
    (
        r"collector\.processors\..*",
        rf"{_NOUNS}|{_OTLP}|collector\.processors\.(shared|ottl)\..*",
    ),
    (
        r"collector\.exporters\..*",
        (
            rf"{_NOUNS}|{_OTLP}|collector\.(documents|http)\..*"
            r"|collector\.(sending_queue\.config|self_metrics\.exposition|pipeline\.deduplication)"
        ),
    ),
    (
        r"collector\.connectors\..*",
        rf"{_NOUNS}|{_OTLP}|collector\.(pipeline\.deduplication|connectors\.shared\..*|processors\.ottl\..*)",
    ),
    (r"collector\.extensions\..*", rf"{_NOUNS}|collector\.http\..*"),
    (
        r"collector\.stores\.(mongodb|sqlite)\..*",
        (
            rf"{_NOUNS}|collector\.stores\.\w+|collector\.documents\..*"
            r"|collector\.sending_queue\.config|telemetry\.attributes"
        ),
    ),
    (
        r"collector\.stores\.\w+",
        rf"{_NOUNS}|collector\.stores\.\w+|collector\.documents\..*|telemetry\.attributes",
    ),
    (
        r"collector\.query\..*",
        rf"{_NOUNS}|collector\.(query|http)\..*|collector\.stores\.base|telemetry\.attributes",
    ),
    (r"collector\.config(\..*)?", r"collector\.(components|errors|model)|collector\.config"),
    (
        r"collector\.service\..*",
        rf"{_NOUNS}|collector\.(config|components)|collector\.(pipeline|sending_queue|wal|self_metrics)\..*",
    ),
    (r"collector\.(cli(\..*)?|__main__)", r"collector(\..*)?|telemetry(\..*)?"),
    (r"collector(\.\w+)?", r"$^"),
]
KINDS = {"telemetry", "collector", "telemetry.instrumentation"} | {
    f"collector.{kind}"
    for kind in ("receivers", "processors", "exporters", "connectors", "extensions", "stores")
}
"""Folders whose members do not know each other, or have rows of their own."""
PB2 = re.compile(r"opentelemetry\.proto\.|google\.protobuf\.(?!message)")
LAZY = {"celery", "fastapi", "structlog", "rich", "grpc", "numpy", "psutil", "redis"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [
    (name_of(path), path)
    for package in ("telemetry", "collector")
    for path in sorted((ROOT / package).rglob("*.py"))
]
each_module = pytest.mark.parametrize(
    ("module", "path"), MODULES, ids=[name for name, _ in MODULES]
)


def imports(path, *, top_level_only=False):
    """Every module that a file imports, as `a.b`; names imported from a package count too."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{name.name}" for name in node.names]
            known = [
                name for name in submodules if (ROOT / (name.replace(".", "/") + ".py")).exists()
            ]
            yield from known
            if len(known) < len(submodules):
                yield node.module


@each_module
def test_a_module_imports_only_what_its_row_allows(module, path):
    """The import table holds for every module."""
    allowed = next(allowed for pattern, allowed in TABLE if re.fullmatch(pattern, module))
    folder = name_of(path.parent / "__init__.py")
    ours = [name for name in imports(path) if re.match(r"(telemetry|collector)(\.|$)", name)]
    strangers = [
        name
        for name in ours
        if not re.fullmatch(allowed, name)
        and not (folder not in KINDS and re.fullmatch(rf"{re.escape(folder)}(\.\w+)?", name))
    ]
    assert strangers == []


@each_module
def test_protobuf_is_known_in_one_place(module, path):
    """The *_pb2 modules are imported by collector.otlp only."""
    if re.fullmatch(r"collector\.otlp(\.\w+)?", module):
        return
    named = [name for name in imports(path) if PB2.match(name)]
    assert named == [] or module.startswith("telemetry")  # the apps encode with it


@each_module
def test_telemetry_imports_optional_packages_only_inside_functions(module, path):
    """`import telemetry` never pays for celery, fastapi, structlog, rich, grpc or numpy."""
    if not module.startswith("telemetry"):
        return
    at_import = {name.partition(".")[0] for name in imports(path, top_level_only=True)}
    assert at_import & LAZY == set()


@each_module
def test_no_module_outgrows_its_budget(module, path):
    """300 lines are normal, 500 want a reason, none reaches 1,000."""
    lines = len(path.read_text().splitlines())
    assert lines < (80 if module == "telemetry" else 1000)


def test_package_roots_hold_no_logic():
    """`telemetry/__init__.py` is imports, __all__ and a version; nothing runs in it."""
    tree = ast.parse((ROOT / "telemetry" / "__init__.py").read_text())
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    assert [type(node).__name__ for node in tree.body if not isinstance(node, allowed)] == []
