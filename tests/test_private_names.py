"""Where private names of OpenTelemetry may stand, read from the source itself (P1)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAST = ROOT / "telemetry" / "_fast"
SIGNAL = {"opentelemetry._logs", "opentelemetry.sdk._logs", "opentelemetry.sdk._logs.export"}
"""Modules with an underscore that are public: the log signal is not declared stable."""
MODULES = [
    path for path in sorted((ROOT / "telemetry").rglob("*.py")) if not path.is_relative_to(FAST)
]


def private_imports(path):
    """Names of OpenTelemetry with an underscore that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opentelemetry"):
            hidden = any(part.startswith("_") for part in node.module.split("."))
            if hidden and node.module not in SIGNAL:
                yield node.module
            yield from (
                f"{node.module}.{name.name}"
                for name in node.names
                if name.name.startswith("_") and f"{node.module}.{name.name}" not in SIGNAL
            )
        elif isinstance(node, ast.Import):
            for name in node.names:
                parts = name.name.split(".")
                if parts[0] == "opentelemetry" and any(part.startswith("_") for part in parts):
                    yield name.name


def class_swaps(path):
    """Lines of a file that give an object another class."""
    for node in ast.walk(ast.parse(path.read_text())):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        for target in targets if isinstance(node, (ast.Assign, ast.AugAssign)) else ():
            if isinstance(target, ast.Attribute) and target.attr == "__class__":
                yield node.lineno


def made_without_constructor(path):
    """Lines of a file that make an object by `object.__new__`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Attribute)
            and node.attr == "__new__"
            and isinstance(node.value, ast.Name)
            and node.value.id == "object"
        ):
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_stand_in_the_fast_path_only(path):
    """No private import, no swapped class and no object without its constructor outside of `_fast`."""
    assert list(private_imports(path)) == []
    assert list(class_swaps(path)) == []
    assert list(made_without_constructor(path)) == []


def test_the_fast_path_is_imported_by_the_pipeline_alone():
    """It is a guest: nothing else knows that it is there."""
    importers = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if "telemetry._fast" in path.read_text().replace("`telemetry._fast", "")
    }
    asking = {name for name in importers if name.startswith("telemetry/_cli/")}  # for its status
    assert importers - asking == {"telemetry/_config/pipeline.py"}
