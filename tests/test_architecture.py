"""Who may import whom: the table of ARCHITECTURE.md as a test, read from the source itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Module (a regular expression, first match counts) -> what of ours it may import. Private modules
# (collector/_x.py) belong to the public one that uses them and share its row.
TABLE = [
    (r"telemetry\.attributes", r"$^"),
    (r"telemetry(\..*)?", r"telemetry(\..*)?"),
    (r"collector\.(errors|stats|components)", r"$^"),
    (r"collector\.model", r"$^"),
    (r"collector\.(otlp|_otlp_\w+)", r"collector\.(model|errors|_otlp_\w+)"),
    (
        r"collector\.(documents|_json|_schema|_takes|_rebuild)",
        r"collector\.(model|otlp|_json|_schema|_takes|_rebuild)|telemetry\.attributes|telemetry",
    ),
    (r"collector\.(sending|repeats)", r"collector\.model"),
    (r"collector\.exposition", r"$^"),
    (r"collector\.own_metrics", r"collector\.(config|errors|exposition|serving|stats)"),
    (r"collector\.(serving|_serving_\w+)", r"collector\.(model|errors|_serving_\w+)"),
    (
        r"collector\.(receivers|processors|exporters|connectors|extensions)\.\w+",
        r"collector\.(model|otlp|documents|errors|stats|serving|sending|exposition|repeats|\w+\._\w+)",
    ),
    (
        r"collector\.stores\..*",
        r"collector\.(stores\..*|stores|model|documents|errors|stats|sending)|telemetry\.attributes|telemetry",
    ),
    (
        r"collector\.query\..*",
        r"(collector\.(query|stores\.base|model|errors|serving)|telemetry\.attributes)(\..*)?",
    ),
    (r"collector\.pipeline", r"collector\.(model|errors|stats|components|otlp)"),  # otlp: count
    (r"collector\.(wal|_wal_\w+)", r"collector\.(model|errors|_wal_\w+)"),
    (
        r"collector\.(delivery|_delivery_\w+)",  # otlp: count, cut and join requests
        r"collector\.(model|errors|stats|components|otlp|wal|sending|_wal_\w+|_delivery_\w+)",
    ),
    (r"collector\.config(\..*)?", r"collector\.(components|errors|model|config(\..*)?)"),
    (
        r"collector\.(service|_service_\w+)",
        r"collector\.(config|pipeline|delivery|wal|components|model|errors|stats|own_metrics|_service_\w+)(\..*)?",
    ),
    (r"collector\.(cli(\..*)?|__main__)", r"collector(\..*)?|telemetry(\..*)?"),
    (r"collector(\.\w+)?", r"$^"),
]
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
            yield from known or [node.module]


@each_module
def test_a_module_imports_only_what_its_row_allows(module, path):
    """The import table holds for every module."""
    allowed = next(allowed for pattern, allowed in TABLE if re.fullmatch(pattern, module))
    ours = [name for name in imports(path) if re.match(r"(telemetry|collector)(\.|$)", name)]
    strangers = [name for name in ours if not re.fullmatch(allowed, name)]
    assert strangers == []


@each_module
def test_protobuf_is_known_in_one_place(module, path):
    """The *_pb2 modules are imported by collector.otlp and its private parts only."""
    if re.fullmatch(r"collector\.(otlp|_otlp_\w+)", module):
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
