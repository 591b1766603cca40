"""Every OTEL_* variable: a wrong value is one line with the fix, its default is used, nothing is lost."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry._config import settings, standard_variables
from telemetry.errors import ConfigError

PROGRAM = """
import logging
from opentelemetry import metrics, trace
with trace.get_tracer("t").start_as_current_span("a"):
    logging.getLogger("shop").warning("one")
metrics.get_meter("t").create_counter("c").add(1)
"""
WRONG = [
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc", "a whole number, 0 or more"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "a whole number, 0 or more"),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "1.5", "a whole number, 0 or more"),
    ("OTEL_TRACES_EXPORTER", "zipkin", "use otlp, console or none"),
    ("OTEL_METRICS_EXPORTER", "prom", "use otlp, console or none"),
    ("OTEL_LOGS_EXPORTER", "consol", "use otlp, console or none"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "one of http/protobuf, grpc"),
    ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "/nope.pem", "name a PEM file"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "a number of seconds"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=%E6%97%A5", "encode it, for example as base64"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x tenant=abc", "letters, digits and dashes"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "one of always_on"),
    ("OTEL_TRACES_SAMPLER_ARG", "2", "a number from 0 to 1"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "x", "one of always_on"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "x", "one of cumulative"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "x", "one of explicit"),
    ("OTEL_PYTHON_ID_GENERATOR", "x", "the name of an installed generator"),
    ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "x", "names of installed detectors"),
    ("OTEL_PROPAGATORS", "xray", "pip install opentelemetry-propagator-aws-xray"),
    ("OTEL_BSP_SCHEDULE_DELAY", "x", "a whole number"),
]


ALONE = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "OTEL_PROPAGATORS")


@pytest.mark.parametrize(("variable", "value", "fix"), [it for it in WRONG if it[0] in ALONE])
def test_a_wrong_value_is_one_line_and_all_signals_arrive(run, receiver, variable, value, fix):
    """The line names the variable and the fix; spans, records and metrics arrive as by default."""
    done = run(PROGRAM, wrapped=True, endpoint=receiver.url, **{variable: value})
    lines = [line for line in done.stderr.splitlines() if line.startswith("otelier:")]
    assert len(lines) == 1, done.stderr
    assert fix in lines[0]
    word = variable.removeprefix("OTEL_EXPORTER_OTLP_LOGS_").lower()
    assert variable in lines[0] or word in lines[0]
    assert [span["name"] for span in receiver.spans] == ["a"]
    assert receiver.messages == ["one"]
    assert [name for name, *_ in receiver.points] == ["c"]


def test_all_of_them_at_once(run, receiver):
    """Many wrong values cost as little as one."""
    wrong = {variable: value for variable, value, _ in WRONG if "CERTIFICATE" not in variable}
    done = run(PROGRAM, wrapped=True, endpoint=receiver.url, **wrong)
    lines = [line for line in done.stderr.splitlines() if line.startswith("otelier:")]
    assert len(lines) == len(wrong), done.stderr
    for variable, _, fix in WRONG:
        if variable in wrong:
            assert [fix in line for line in lines if re.search(rf"\b{variable}\b", line)] == [
                True
            ], variable
    assert (receiver.messages, len(receiver.spans), len(receiver.points)) == (["one"], 1, 1)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("authorization=Bearer%20tok%0A", "Bearer tok"),
        ("x bad=1,authorization=caf%C3%A9", "café"),
    ],
)
def test_headers_are_sent_as_http_can_carry_them(run, receiver, given, sent):
    """Line ends around a value go, a header that cannot be sent is left out, the others are sent."""
    run(PROGRAM, wrapped=True, endpoint=receiver.url, OTEL_EXPORTER_OTLP_HEADERS=given)
    assert {headers.get("authorization") for headers in receiver.headers} == {sent}
    assert receiver.messages == ["one"]


def test_values_of_headers_are_never_shown():
    """What is wrong about a header is said without its value, which may be a token."""
    _, problems = settings.read({}, {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=tok\x01en"})
    (problem,) = problems
    assert "authorization" in problem
    assert "tok" not in problem


def test_configure_raises_what_is_documented():
    """A propagator that is not installed is a ConfigError of configure(), and a problem of doctor."""
    environ = {"PATH": "", "OTEL_PROPAGATORS": "xray"}
    code = (
        "import telemetry\ntry:\n telemetry.configure()\nexcept telemetry.ConfigError as error:\n"
        " print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert "pip install opentelemetry-propagator-aws-xray" in done.stdout
    doctor = subprocess.run(
        [Path(sys.executable).parent / "telemetry", "doctor", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OTEL_PROPAGATORS='xray' cannot be used" in doctor.stdout, doctor.stderr


def test_wrong_values_leave_the_environment():
    """The SDK, and processes that inherit the environment, find the default; good values stay."""
    environ = {
        "OTEL_SPAN_LINK_COUNT_LIMIT": "x",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "5",
        "OTEL_PROPAGATORS": "xrya, baggage",
    }
    standard_variables.use_defaults(environ)
    assert environ == {"OTEL_SPAN_EVENT_COUNT_LIMIT": "5", "OTEL_PROPAGATORS": "baggage"}


def test_arguments_are_checked_as_variables_are():
    """configure(headers=...) with what HTTP cannot carry is an error that names the header."""
    with pytest.raises(ConfigError, match="x-tenant"):
        settings.load({"headers": {"x-tenant": "a\nb"}}, {})
