"""The entry points: what the distro sets, leaves out and survives."""

import os
from importlib.metadata import entry_points, version

import pytest

from telemetry._config import distro
from telemetry.instrumentation import celery


class EntryPoint:
    """An instrumentation that remembers, or fails."""

    def __init__(self, name, error=None):
        self.name = name
        self.error = error
        self.calls = []

    def load(self):
        if self.error is not None:
            raise self.error
        entry_point = self

        class Instrumentor:
            def instrument(self, **kwargs):
                entry_point.calls.append(kwargs)

        return Instrumentor


@pytest.fixture
def environ():
    """The process's environment, put back after the test."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            del os.environ[name]
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


def test_both_entry_points_are_installed():
    """The wrapper finds distro and configurator under the name otelier."""
    for group, kind in (
        ("opentelemetry_distro", distro.Distro),
        ("opentelemetry_configurator", distro.Configurator),
    ):
        (found,) = entry_points(group=group, name="otelier")
        assert found.load() is kind


def test_defaults_are_set_and_choices_are_kept(environ):
    """Unset or empty variables get the distro's defaults, the operator's stay."""
    environ["OTEL_TRACES_EXPORTER"] = "console"
    environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = ""
    distro.Distro().configure()
    given = {name: value for name, value in environ.items() if name.startswith("OTEL_")}
    assert given == {**distro.DEFAULTS, "OTEL_TRACES_EXPORTER": "console"}


def test_instrumentations_are_loaded_and_three_are_left_out():
    """`logging` and `celery` are ours; FastAPI with its own tracing keeps its server span."""
    assert tuple(map(int, version("fastapi").split(".")[:2])) >= (0, 142)
    points = [EntryPoint(name) for name in ("celery", "logging", "fastapi", "redis")]
    for point in points:
        distro.Distro().load_instrumentor(point, skip_dep_check=True)
    celery.uninstrument()
    assert {point.name: len(point.calls) for point in points} == {
        "celery": 0,
        "logging": 0,
        "fastapi": 0,
        "redis": 1,
    }


def test_a_failing_instrumentation_is_survived(capsys):
    """One that cannot be imported is not installed; one that raises is said; the rest go on."""
    distro.Distro().load_instrumentor(EntryPoint("a", ModuleNotFoundError("no library")))
    assert capsys.readouterr().err == ""
    distro.Distro().load_instrumentor(EntryPoint("b", RuntimeError("broken")))
    assert capsys.readouterr().err == "otelier: instrumentation b is off: broken\n"
