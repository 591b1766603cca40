"""Lines for consoles and files: whole lines, and never a second one from data."""

import io
import json
import logging
import time

import pytest

import telemetry
from telemetry._logs import format as formats
from telemetry.testing import capture

CREATED = 1759487415.469652  # 2025-10-03T10:30:15.469652 UTC


@pytest.fixture
def lines(monkeypatch):
    """Log with a formatter and get the lines, at a fixed time in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: setattr(record, "created", CREATED) or True)
    log = logging.getLogger("app.services")
    log.addHandler(handler)
    log.propagate = False
    log.setLevel("DEBUG")

    def emit(style, call):
        handler.setFormatter(formats.FORMATS[style]())
        stream.seek(0)
        stream.truncate()
        with capture():
            call(telemetry.get_logger("app.services"))
        return stream.getvalue()

    yield emit
    log.removeHandler(handler)
    log.propagate = True
    log.setLevel("NOTSET")
    monkeypatch.undo()
    time.tzset()


def failing(log):
    try:
        raise ValueError("no\nsuch \x1b[31mnode")
    except ValueError:
        log.exception("flow failed", node_id="n-1")


def flow(log):
    with (
        telemetry.log_context(
            request_id="req_1", correlation_id="corr_1", organization_id="org_1", shelf="a"
        ),
        telemetry.span("flow"),
    ):
        extra = {"operation.execution_time_ms": 45.23, "operation.status": "success"}
        log.info("Flow triggered for conversation", user_id="user_1", nodes=[1, 2], extra=extra)


def test_json_is_the_record_of_the_requirement(lines):
    """The JSON record has the keys of the chat API's, in its order (A1)."""
    line = lines("json", flow)
    record = json.loads(line)
    assert line.count("\n") == 1
    assert list(record) == [
        *("timestamp", "level", "logger_name", "function_name", "line_number", "message"),
        *("context", "trace", "attributes"),
    ]
    assert record == {
        "timestamp": "2025-10-03T10:30:15.469652+00:00",
        "level": "INFO",
        "logger_name": "app.services",
        "function_name": "flow",
        "line_number": flow.__code__.co_firstlineno + 8,
        "message": "Flow triggered for conversation",
        "context": {
            "request_id": "req_1",
            "correlation_id": "corr_1",
            "organization_id": "org_1",
            "user_id": "user_1",
        },
        "trace": {
            "trace_id": f"{1:032x}",
            "span_id": f"{1:016x}",
            "execution_time_ms": 45.23,
            "status": "success",
        },
        "attributes": {"shelf": "a", "nodes": [1, 2]},
    }


def test_json_tells_an_exception_with_its_stack(lines):
    """`exception` has type, message and stack; absent things are absent (A1)."""
    line = lines("json", failing)
    record = json.loads(line)
    stack = record["exception"].pop("stacktrace")
    assert line.count("\n") == 1
    assert stack.startswith("Traceback (most recent call last):\n")
    assert record == {
        "timestamp": "2025-10-03T10:30:15.469652+00:00",
        "level": "ERROR",
        "logger_name": "app.services",
        "function_name": "failing",
        "line_number": failing.__code__.co_firstlineno + 4,
        "message": "flow failed",
        "exception": {"type": "ValueError", "message": "no\nsuch \x1b[31mnode"},
        "attributes": {"node_id": "n-1"},
    }


def test_text_is_the_line_of_the_risk_worker(lines):
    """`time - LEVEL - message [key=value, ...]`, and no brackets without fields (R6)."""
    assert (
        lines("text", lambda log: log.info("Risk score ensemble", rule_based=4200, ml=4800.5))
        == "2025-10-03 10:30:15 - INFO - Risk score ensemble [rule_based=4200, ml=4800.5]\n"
    )
    assert lines("text", lambda log: log.info("plain")) == "2025-10-03 10:30:15 - INFO - plain\n"
    assert lines("text", flow) == (
        "2025-10-03 10:30:15 - INFO - Flow triggered for conversation [user_id=user_1,"
        " nodes=[1, 2], operation.execution_time_ms=45.23, operation.status=success,"
        " request_id=req_1, correlation_id=corr_1, organization_id=org_1, shelf=a]\n"
    )


def test_text_puts_the_traceback_below(lines):
    """The traceback is readable, and escape codes inside it are not executed."""
    first, head, *_, last = lines("text", failing).splitlines()
    assert first == "2025-10-03 10:30:15 - ERROR - flow failed [node_id=n-1]"
    assert head == "Traceback (most recent call last):"
    assert last == "such \\x1b[31mnode"


def test_logfmt(lines):
    """One line of key=value, quoted where it must be."""
    assert lines("logfmt", flow) == (
        "ts=2025-10-03T10:30:15.469+00:00 level=info logger=app.services"
        ' msg="Flow triggered for conversation"'
        f" trace_id={1:032x} span_id={1:016x} user_id=user_1"
        ' nodes="[1, 2]" request_id=req_1 correlation_id=corr_1 organization_id=org_1 shelf=a\n'
    )
    assert lines("logfmt", lambda log: log.info("", a='say "hi"', b="a\\b", c=True, d="x=y")) == (
        'ts=2025-10-03T10:30:15.469+00:00 level=info logger=app.services msg=""'
        ' a="say \\"hi\\"" b="a\\\\b" c=true d="x=y"\n'
    )


@pytest.mark.parametrize("style", ["text", "json", "logfmt"])
def test_data_cannot_make_a_second_line(lines, style):
    """Line breaks, escape codes and direction marks in any place are escaped."""
    evil = "a\nb\rc\x1b[2Jd\x00e\u2028f\x85g\u202eh"

    def log_evil(log):
        with telemetry.log_context(user_id=evil, **{evil: evil}):
            log.info(evil, **{evil: evil, "list": [evil]}, extra={"k": {evil: evil}})

    line = lines(style, log_evil)
    assert line.endswith("\n")
    assert [character for character in line[:-1] if not character.isprintable()] == []


def test_json_carries_what_json_cannot_say(lines):
    """Bytes become base64; nothing makes the line invalid."""
    record = json.loads(lines("json", lambda log: log.info("x", raw=b"\x00\x01", big=2**70)))
    assert record["attributes"] == {"raw": "AAE=", "big": "1180591620717411303424"}
