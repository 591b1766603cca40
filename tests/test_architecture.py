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
_GROUND = r"telemetry\.(attributes|errors|_version|_values|_diagnostics|_native|_attribute_loops|_otel_context)"
_STATE = r"telemetry\._config\.(state|configure)"
"""What runs: `configure.pipeline()` gives it."""
_BELOW = r"telemetry\._(context|export|fast|logs|redaction|sdk|spool)\..*"
_HIGH = rf"{_GROUND}|{_STATE}|telemetry\._events|telemetry\._(context|logs|traces)\..*"
TABLE = [
    (r"telemetry\.(attributes|_attributes\..*)", r"telemetry\._attributes\..*"),
    (r"telemetry\.(errors|_version|_native)", r"$^"),
    (r"telemetry\.(_otel_context|_attribute_loops)", r"telemetry\._native"),
    (
        r"telemetry\.(_values|_diagnostics)",
        r"telemetry\.(_native|_attribute_loops|_values|_diagnostics)",
    ),
    (r"telemetry\._redaction\..*", _GROUND),
    (r"telemetry\._context\..*", rf"{_GROUND}|telemetry\._redaction\..*"),
    (r"telemetry\._export\.health", rf"{_GROUND}|{_STATE}|telemetry\._export\..*"),
    (r"telemetry\._export\..*", rf"{_GROUND}|telemetry\._redaction\..*"),
    (r"telemetry\._spool\..*", rf"{_GROUND}|telemetry\._export\..*"),
    (
        r"telemetry\._logs\.structlog",
        rf"{_GROUND}|{_STATE}|telemetry\.(_context|_redaction|_logs)\..*",
    ),
    (r"telemetry\._logs\..*", rf"{_GROUND}|telemetry\.(_context|_redaction)\..*"),
    (r"telemetry\._traces\..*", rf"{_GROUND}|telemetry\.(_context|_redaction|_logs)\..*"),
    (
        r"telemetry\._events",
        rf"{_GROUND}|{_STATE}|telemetry\.(_context|_logs|_traces)\..*|telemetry\._export\.(drop_reasons|health)",
    ),
    (
        r"telemetry\._sdk\..*",
        rf"{_GROUND}|telemetry\.(_context|_export|_redaction|_traces)\..*",
    ),
    (
        r"telemetry\._fast\..*",
        rf"{_GROUND}|telemetry\.(_sdk|_context|_export|_logs|_traces)\..*",
    ),
    (
        r"telemetry\._config\.(configure|distro)",
        rf"{_GROUND}|{_BELOW}|telemetry\._cli\.snapshot|telemetry\.instrumentation(\.\w+)*",
    ),
    (r"telemetry\._config\..*", rf"{_GROUND}|{_BELOW}"),
    (r"telemetry\._(batch|llm)\..*", rf"{_GROUND}|telemetry\.(_context|_logs|_traces)\..*"),
    (
        r"telemetry\._ml\..*",
        rf"{_GROUND}|telemetry\._events|telemetry\.(_context|_traces)\..*|telemetry\._redaction\.pseudonyms",
    ),
    (
        r"telemetry\._workers\..*",
        rf"{_GROUND}|{_STATE}|telemetry\._events|telemetry\.(_context|_logs|_traces)\..*",
    ),
    (
        r"telemetry\.instrumentation\._asgi\..*",
        rf"{_HIGH}|telemetry\._config\.(settings|kinds)|telemetry\.instrumentation\._asgi\..*",
    ),
    (
        r"telemetry\.instrumentation\._wsgi\..*",
        rf"{_HIGH}|telemetry\._config\.(settings|kinds)|telemetry\.instrumentation\._(asgi|wsgi)\..*",
    ),
    (
        r"telemetry\.instrumentation\._celery\..*",
        rf"{_HIGH}|telemetry\._config\.(settings|kinds)|telemetry\.instrumentation\._celery\..*",
    ),
    (
        r"telemetry\.instrumentation\.\w+",
        rf"{_HIGH}|telemetry\._config\.(settings|kinds)|telemetry\.instrumentation\.(asgi|_\w+\..*)",
    ),
    (r"telemetry\._cli\..*|telemetry(\.([a-z]\w*|__main__))?", r"telemetry(\..*)?"),
    (r"telemetry\._\w+", r"$^"),
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
        rf"{_NOUNS}|{_OTLP}|collector\.http\..*",
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


CIRCLES: list[set[str]] = []
"""Circles that are still there; the list only becomes shorter."""


def circles(edges):
    """The groups of modules that import each other, over any number of steps."""
    reached = {}
    for start in edges:
        found, waiting = set(), [start]
        while waiting:
            for name in edges[waiting.pop()] - found:
                found.add(name)
                waiting.append(name)
        reached[start] = found
    groups = []
    for name, found in reached.items():
        group = {other for other in found if name in reached[other]}
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return groups


def test_no_modules_import_each_other():
    """No circles but those that are listed; imports inside functions and for types count."""
    names = {name for name, _ in MODULES}
    edges = {name: (set(imports(path)) & names) - {name} for name, path in MODULES}
    assert [group for group in circles(edges) if group not in CIRCLES] == []
    assert [group for group in CIRCLES if group not in circles(edges)] == []


def test_a_circle_is_found_over_any_number_of_steps():
    """The search finds two groups that only touch, and nothing in a chain."""
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles(edges) == [{"a", "b", "c"}, {"d", "e"}]


SDK = re.compile(r"opentelemetry\.sdk(\.|$)")
WITH_SDK = (
    r"telemetry\.(_sdk|_fast)\..*|telemetry\._config\.(pipeline|providers)|telemetry\.testing"
)
STILL_WITH_SDK = {
    "telemetry._context.request",  # for types only
    "telemetry._export.merged_points",
    "telemetry._export.otlp_encoder",
    "telemetry._export.record_redactor",
}
"""Modules that name the SDK and should not; the list only becomes shorter."""


def test_the_sdk_is_known_in_few_places():
    """`opentelemetry.sdk` is imported by `_sdk`, `_fast`, the pipeline and the test kit only."""
    named = {
        module
        for module, path in MODULES
        if module.startswith("telemetry")
        and not re.fullmatch(WITH_SDK, module)
        and any(SDK.match(name) for name in imports(path))
    }
    assert named == STILL_WITH_SDK


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
    """300 lines are normal and 500 the end; a class has at most 300."""
    text = path.read_text()
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    longest = max((each.end_lineno - each.lineno + 1 for each in classes), default=0)
    assert len(text.splitlines()) <= (80 if module == "telemetry" else 500)
    assert longest <= 300


def test_package_roots_hold_no_logic():
    """`telemetry/__init__.py` is imports, __all__ and a version; nothing runs in it."""
    tree = ast.parse((ROOT / "telemetry" / "__init__.py").read_text())
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    assert [type(node).__name__ for node in tree.body if not isinstance(node, allowed)] == []
