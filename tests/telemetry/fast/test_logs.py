"""The short way of a log record: what arrives is the same as on the SDK's way."""

import contextvars

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.context import attach
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

import telemetry
from telemetry import _native
from telemetry._context import request as requests
from telemetry._context import scope as _context
from telemetry._fast import logs

needs_core = pytest.mark.skipif(
    _native.core is None, reason="no C compiler when this was installed"
)

CALLS = """
    import logging, sys
    import telemetry
    from opentelemetry._logs import get_logger_provider
    from opentelemetry.sdk._logs import LogRecordProcessor
    telemetry.configure(log_level="INFO", log_format="none")
    root, ours, std = logging.getLogger(), telemetry.get_logger("shop"), logging.getLogger("shop")

    {before}

    def story():
        ours.info("plain")
        ours.debug("below the level")
        bound = ours.bind(component="risk", user_id="u-1")
        bound.warning("fields", a=1, b="x", c=2.5, d=True, e=None, long="y" * 20000)
        bound.info("ümläut \\ud800", text="ß \\udfff")
        ours.info("a long name", **{{"n" * 300: 1, "m" * 70: 2}})
        ours.info("odd", items=[1, {{"k": b"v"}}], big=2**70, obj=object, exc_info=False)
        ours.info("named like the record's own", name="n", args="a", msg="m", level=3)
        ours.error("with extra", extra={{"x": 1}}, stacklevel=1)
        ours.critical("an event", extra={{"otel.event.name": "order.lost"}})
        ours.log(25, "between")
        std.info("std %s", 1, extra={{"order": "o-1", "user_id": 7}})
        logging.getLogger("urllib3").warning("the application's own")
        try:
            raise ValueError("no such order")
        except ValueError:
            ours.exception("failed")
            std.exception("failed too")

    with telemetry.log_context(correlation_id="c-1", tenant_id="t-1"):
        with telemetry.span("work"):
            story()
    ours.info("outside of everything")
    telemetry.flush()
    ledger = telemetry.report()["logs"]
    assert ledger["produced"] == ledger["exported"], ledger
"""
MESSAGES = [
    "a long name",
    "an event",
    "between",
    "failed",
    "failed too",
    "fields",
    "named like the record's own",
    "odd",
    "outside of everything",
    "plain",
    "std 1",
    "the application's own",
    "with extra",
    "ümläut \ufffd",
]
NOBODY_ELSE = "pass"
SOMEBODY_ELSE = {
    "a processor": """
    class Other(LogRecordProcessor):
        def on_emit(self, log_record): pass
        def shutdown(self): pass
        def force_flush(self, timeout_millis=0): return True
    get_logger_provider().add_log_record_processor(Other())
    """,
    "a handler": "root.addHandler(logging.NullHandler())",
    "a handler of the logger": "std.addHandler(logging.NullHandler())",
    "a filter": "std.addFilter(lambda record: True)",
    "a record factory": """
    class Record(logging.LogRecord): pass
    logging.setLogRecordFactory(Record)
    """,
    "a patched method": """
    original = logging.Logger.callHandlers
    logging.Logger.callHandlers = lambda self, record: original(self, record)
    """,
}


def told(receiver):
    """What arrived, without what differs from run to run."""
    records = [dict(record) for record in receiver.logs]
    for record in records:
        record["trace_id"], record["span_id"] = bool(record["trace_id"]), bool(record["span_id"])
        stack = record["attributes"].get("exception.stacktrace")
        record["attributes"] = {
            name: value
            for name, value in record["attributes"].items()
            if name not in ("code.line.number", "exception.stacktrace")
        }
        record["stack"] = stack is not None
    return sorted(records, key=lambda record: record["message"])  # requests group them by logger


@pytest.mark.parametrize("somebody", SOMEBODY_ELSE, ids=str)
def test_both_ways_tell_the_same(run, receiver, somebody):
    """Who else looks at records, and how, changes nothing in what is sent (D1)."""
    run(CALLS.format(before=NOBODY_ELSE), endpoint=receiver.url)
    short, receiver.requests = told(receiver), []
    run(CALLS.format(before=SOMEBODY_ELSE[somebody]), endpoint=receiver.url)
    assert told(receiver) == short
    assert [record["message"] for record in short] == MESSAGES


def test_the_others_see_each_record(run, receiver):
    """A handler that is added later sees what follows; a processor too, redacted."""
    code = """
    import logging
    import telemetry
    from opentelemetry._logs import get_logger_provider
    from opentelemetry.sdk._logs import LogRecordProcessor
    telemetry.configure(log_level="INFO", log_format="none")
    ours, seen = telemetry.get_logger("shop"), []

    class Handler(logging.Handler):
        def emit(self, record): seen.append(("handler", record.getMessage()))

    class Other(LogRecordProcessor):
        def on_emit(self, log_record):
            record = log_record.log_record
            seen.append(("processor", record.body, record.attributes.get("password")))
        def shutdown(self): pass
        def force_flush(self, timeout_millis=0): return True

    ours.info("first")
    handler = Handler()
    logging.getLogger().addHandler(handler)
    ours.info("second")
    logging.getLogger().removeHandler(handler)
    get_logger_provider().add_log_record_processor(Other())
    ours.info("third", password="hunter2")
    print(seen)
    """
    done = run(code, endpoint=receiver.url)
    expected = [("handler", "second"), ("processor", "third", "[REDACTED]")]
    assert done.stdout.strip() == repr(expected)
    assert receiver.messages == ["first", "second", "third"]


def test_secrets_do_not_leave_on_the_short_way(run, receiver):
    """Fields, messages and names are redacted as on the other way (R7)."""
    code = """
    import telemetry
    telemetry.configure(log_level="INFO", log_format="none")
    telemetry.get_logger("shop").info(
        "sent to anna@example.org with Bearer abcdef0123456789", password="hunter2", order="o-1")
    """
    run(code, endpoint=receiver.url)
    (record,) = receiver.logs
    assert "hunter2" not in str(record)
    assert record["message"] == "sent to a...@example.org with Bearer [REDACTED]"
    assert record["attributes"]["password"] == "[REDACTED]"
    assert record["attributes"]["order"] == "o-1"


def test_the_line_of_the_call(run, receiver):
    """File, function and line are those of the call, from any of the methods."""
    code = """
    import telemetry
    telemetry.configure(log_level="DEBUG", log_format="none")
    log = telemetry.get_logger("shop")
    def work():
        log.debug("1"); log.info("2"); log.warning("3"); log.error("4"); log.critical("5"); log.log(20, "6")
    work()
    """
    run(code, endpoint=receiver.url)
    places = {
        (
            record["attributes"]["code.function.name"],
            record["attributes"]["code.line.number"],
            record["attributes"]["code.file.path"].rpartition("/")[2],
        )
        for record in receiver.logs
    }
    assert receiver.messages == ["1", "2", "3", "4", "5", "6"]
    assert places == {("work", 6, "script.py")}


class Bin:
    """A courier that keeps what it gets."""

    def __init__(self):
        self.got = []

    def put(self, item, size, *, important=False):
        self.got.append((item, size, important))


LEVELS = st.integers(-5, 70)
TEXTS = st.sampled_from(["INFO", "WARNING", "CRITICAL", "Level 25", "ERROR"])
FIELDS = st.dictionaries(
    st.sampled_from(["a", "user.id", "größe", "audit.stream", "correlation.id"]),
    st.sampled_from([1, "x", 2.5, None, [1, 2], {"k": "v"}, b"z"]),
)
SPANS = {
    "none": None,
    "remote": NonRecordingSpan(SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))),
    "invalid": INVALID_SPAN,
    "odd": type("Odd", (NonRecordingSpan,), {})(SpanContext(9, 10, is_remote=False)),
}


SCOPES = st.tuples(
    st.none() | st.dictionaries(st.sampled_from(["user.id", "b"]), st.just("bound")),
    st.none() | st.just({"shop.id": "shared", "user.id": "shared"}),
    st.none() | st.sampled_from(["c-9", "not an id"]),
    st.none() | st.sampled_from([requests.PASS, requests.HELD, requests.QUIET, requests.SILENT]),
    st.sampled_from(list(SPANS)),
)


@needs_core
@settings(deadline=None)
@given(LEVELS, TEXTS, FIELDS, SCOPES, st.tuples(st.booleans(), st.booleans()))
def test_the_native_way_is_the_same(level, text, fields, scope, switches):
    """Whatever is said in whatever scope: the same line with the same weight, or the same silence (O7)."""
    (bound, shared, arrived, gate, span), (event, enabled) = scope, switches
    told = []
    for native in (True, False):
        courier, request = Bin(), None if gate is None else requests.Request(gate)
        lines = object.__new__(logs.Lines)
        lines._courier = courier
        send = _native.core.Send(lines.send, courier).send if native else lines.send
        logger = LoggerProvider(shutdown_on_exit=False).get_logger("shop")
        logger._logger_config = type(logger._logger_config)(is_enabled=enabled)

        def say(send=send, logger=logger, request=request):
            requests.current.set(request)
            if shared is not None:
                _context.begin_request(_context.Shared(shared))
            if bound:
                _context.bind_context(**bound)
            if arrived:
                attach(baggage.set_baggage("correlation.id", arrived))
            if SPANS[span] is not None:
                attach(set_span_in_context(SPANS[span]))
            send(
                logger,
                5,
                level,
                text,
                "it happened",
                dict(fields),
                *(["order.opened"] if event else []),
            )

        contextvars.Context().run(say)
        held = [] if request is None else [record for _, record in request._held]
        told.append(
            [(*line[:10], line[11].name, size, *more) for line, size, *more in courier.got + held]
        )
    assert told[0] == told[1]


@needs_core
def test_usual_records_are_not_left_to_python(captured):
    """What nearly every record is, the native core sends by itself (O7)."""

    def never(*_):
        raise AssertionError("this was left to Python")

    courier = Bin()
    logger = LoggerProvider(shutdown_on_exit=False).get_logger("shop")
    with telemetry.log_context(user_id="u-1", correlation_id="c-1"), telemetry.span("work"):
        _native.core.Send(never, courier).send(logger, 5, 30, "WARNING", "low", {"n": 1})
        context = telemetry.current_context()
    ((line, size, important),) = courier.got
    assert (line[:6], size, important) == (
        (5, 5, 13, "WARN", "low", {"user.id": "u-1", "correlation.id": "c-1", "n": 1}),
        200 + 3 + 8 + 21 + 26 + 33,
        False,
    )
    assert context == {"user_id": "u-1", "correlation_id": "c-1"}


@needs_core
def test_what_the_courier_raises_comes_out():
    """The caller counts the record as lost; it is not sent twice."""

    class Broken(Bin):
        def put(self, item, size, *, important=False):
            super().put(item, size)
            raise LookupError("no room")

    courier = Broken()
    logger = LoggerProvider(shutdown_on_exit=False).get_logger("shop")
    with pytest.raises(LookupError):
        _native.core.Send(print, courier).send(logger, 5, 20, "INFO", "it", {})
    assert len(courier.got) == 1
