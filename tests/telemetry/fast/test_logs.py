"""The fast path of a log record: what arrives is the same as on the SDK path."""

import pytest

both_paths = pytest.mark.parametrize("path", ["auto", "off"])
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
OTHERS = {
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
    "nothing, but the fast path is off": "pass",
    "a patched method": """
    original = logging.Logger.callHandlers
    logging.Logger.callHandlers = lambda self, record: original(self, record)
    """,
}


def arrived(receiver):
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


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_both_paths_send_the_same(run, receiver, other):
    """Who else looks at records, and how, changes nothing in what is sent (D1)."""
    run(CALLS.format(before=NOBODY_ELSE), endpoint=receiver.url)
    short, receiver.requests = arrived(receiver), []
    path = "off" if "off" in other else "auto"
    run(CALLS.format(before=OTHERS[other]), endpoint=receiver.url, TELEMETRY_FAST_PATH=path)
    assert arrived(receiver) == short
    assert [record["message"] for record in short] == MESSAGES


@both_paths
def test_the_others_see_each_record(run, receiver, path):
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
    done = run(code, endpoint=receiver.url, TELEMETRY_FAST_PATH=path)
    expected = [("handler", "second"), ("processor", "third", "[REDACTED]")]
    assert done.stdout.strip() == repr(expected)
    assert receiver.messages == ["first", "second", "third"]


@both_paths
def test_secrets_do_not_leave(run, receiver, path):
    """Fields, messages and names are redacted on both paths (R7)."""
    code = """
    import telemetry
    telemetry.configure(log_level="INFO", log_format="none")
    telemetry.get_logger("shop").info(
        "sent to anna@example.org with Bearer abcdef0123456789", password="hunter2", order="o-1")
    """
    run(code, endpoint=receiver.url, TELEMETRY_FAST_PATH=path)
    (record,) = receiver.logs
    assert "hunter2" not in str(record)
    assert record["message"] == "sent to a...@example.org with Bearer [REDACTED]"
    assert record["attributes"]["password"] == "[REDACTED]"
    assert record["attributes"]["order"] == "o-1"


@both_paths
def test_the_line_of_the_call(run, receiver, path):
    """File, function and line are those of the call, from any of the methods."""
    code = """
    import telemetry
    telemetry.configure(log_level="DEBUG", log_format="none")
    log = telemetry.get_logger("shop")
    def work():
        log.debug("1"); log.info("2"); log.warning("3"); log.error("4"); log.critical("5"); log.log(20, "6")
    work()
    """
    run(code, endpoint=receiver.url, TELEMETRY_FAST_PATH=path)
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
