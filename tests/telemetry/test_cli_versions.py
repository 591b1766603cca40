"""What `telemetry doctor` says about releases, the native core, the fast path and lost handlers."""

import json
import sys
from importlib.metadata import version

import pytest

from telemetry._cli import versions
from tests.telemetry.conftest import receiver
from tests.telemetry.test_cli import program

__all__ = ["receiver"]


def distribution(folder, name, release, *requires):
    """An installed distribution, as pip leaves it in a folder of the path."""
    info = folder / f"{name.replace('-', '_')}-{release}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {release}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def doctor(receiver, *command, **env):
    """The exit code and the findings."""
    done = program("doctor", "--json", *command, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **env)
    return done.returncode, json.loads(done.stdout)


def test_releases_that_do_not_fit_together_are_a_problem(receiver, tmp_path):
    """A mixture is named with what needs what, and the pip command that lets pip choose again."""
    distribution(
        tmp_path,
        "opentelemetry-instrumentation-sample",
        "0.60b1",
        "opentelemetry-api>=1.12",
        "opentelemetry-instrumentation==0.60b1",
        "redis; extra == 'instruments'",
    )
    code, findings = doctor(receiver, PYTHONPATH=str(tmp_path))
    here = version("opentelemetry-instrumentation")
    assert code == 1
    assert findings["problems"] == [
        (
            "opentelemetry-instrumentation-sample 0.60b1 needs opentelemetry-instrumentation==0.60b1,"
            f" {here} is installed; pip install --upgrade opentelemetry-instrumentation"
            " opentelemetry-instrumentation-sample otelier"
        )
    ]
    assert findings["packages"]["opentelemetry-instrumentation-sample"] == "0.60b1"


def test_the_core_that_runs_is_named(receiver):
    """The native core by name; the Python one with the reason and the fix, as a note."""
    assert doctor(receiver)[1]["core"] == "native"
    code, findings = doctor(receiver, OTELIER_PURE_PYTHON="1")
    assert (code, findings["core"]) == (0, "Python")
    assert findings["notes"][-1] == (
        "the slower pure-Python core runs: OTELIER_PURE_PYTHON=1; unset it"
    )


def test_handlers_that_were_replaced_are_a_problem(receiver):
    """A program that clears the root logger's handlers after the start loses its records: said."""
    code, findings = doctor(
        receiver, "--", sys.executable, "-c", "import logging; logging.getLogger().handlers.clear()"
    )
    (problem,) = findings["problems"]
    assert code == 1
    assert "the root logger has no handler of otelier, so its records are not sent" in problem


@pytest.mark.parametrize(
    ("reason", "wanted", "expected"),
    [
        ("", "auto", []),
        (
            (
                "opentelemetry-sdk 1.39.1 with opentelemetry-api 1.39.1 is not among the releases that"
                " the fast path knows (1.45.2)"
            ),
            "auto",
            [
                (
                    "records take the SDK path, which works and costs more: opentelemetry-sdk 1.39.1"
                    " with opentelemetry-api 1.39.1 is not among the releases that the fast path knows"
                    ' (1.45.2); pip install "opentelemetry-sdk==1.45.2" for the fast path'
                )
            ],
        ),
        (
            "TELEMETRY_FAST_PATH=off",
            "off",
            ["all records take the SDK path (TELEMETRY_FAST_PATH=off); unset it for the fast path"],
        ),
    ],
)
def test_what_is_off_the_fast_path_is_said_once_with_the_fix(reason, wanted, expected):
    """Two processes with the same reason are one note."""
    process = {"fast_path": {"signals": [], "reason": reason}, "providers": {}}
    assert versions.notes([process, process], wanted) == expected


def test_a_provider_of_another_package_is_named():
    """Who has set a provider before us is said, for that signal alone."""
    process = {
        "providers": {
            "traces": "logfire._internal.tracer.ProxyTracerProvider",
            "logs": "opentelemetry.sdk._logs._internal.LoggerProvider",
        },
        "joined": ["traces"],
    }
    assert versions.notes([process], "auto") == [
        (
            "traces: logfire._internal.tracer.ProxyTracerProvider is the provider, set by another"
            " package before us; ours is joined to it; start telemetry first to be its owner"
        )
    ]
