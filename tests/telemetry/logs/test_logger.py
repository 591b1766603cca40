"""get_logger and the stdlib handler: each record once, with everything, and never an exception."""

import inspect
import logging
import logging.config

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry._logs import get_logger_provider

import telemetry
import telemetry.testing
from telemetry import _otel_context

logger = telemetry.get_logger(__name__)


def attributes_of(captured):
    return [record["attributes"] for record in captured.logs]


def test_fields_are_attributes(captured):
    """Keyword arguments, bound fields and stdlib's extra all become attributes; numbers stay."""
    bound = logger.bind(component="risk", gone=1).unbind("gone")
    bound.info("scored %s of %d", "one", 3, score=np.float32(0.5), extra={"items": [1, 2]})
    assert captured.logs == [
        {
            "time": 1,
            "level": "INFO",
            "logger": __name__,
            "message": "scored one of 3",
            "trace_id": 0,
            "span_id": 0,
            "attributes": {"component": "risk", "score": 0.5, "items": [1, 2]},
        }
    ]


def test_levels(captured):
    """Each method logs at its level, with OpenTelemetry's words for it."""
    for method in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, method)(method)
    logger.log(25, "between")
    assert [(record["level"], record["message"]) for record in captured.logs] == [
        ("DEBUG", "debug"),
        ("INFO", "info"),
        ("WARN", "warning"),
        ("ERROR", "error"),
        ("FATAL", "critical"),
        ("Level 25", "between"),
    ]


def test_a_disabled_level_costs_no_record(captured):
    """Below the level of the stdlib logger nothing is made, not even the message."""
    logging.getLogger("quiet").setLevel(logging.ERROR)

    class Loud:
        def __str__(self):
            raise AssertionError("formatted")

    telemetry.get_logger("quiet").warning(Loud(), Loud())
    assert captured.logs == []
    assert not telemetry.get_logger("quiet").isEnabledFor(logging.WARNING)
    logging.getLogger("quiet").setLevel(logging.NOTSET)


def test_names_that_a_log_record_uses_itself_are_fine(captured):
    """`name=`, `args=` or `message=` would raise in stdlib; here they are fields like others."""
    fields = {"name": "bob", "args": 1, "message": "m", "module": "x", "levelname": "y", "self": 2}
    logger.info("hello", extra=fields)
    assert attributes_of(captured) == [fields | {"self": 2}]
    assert captured.logs[0]["message"] == "hello"


def test_application_spellings_become_attributes(captured):
    """`user_id=` is user.id, whether by keyword or by extra, and it wins over the scope's (C2)."""
    with telemetry.log_context(user_id="scope", tenant_id="t-1"):
        logger.info("a", user_id=7, task_id="task-1")
        logging.getLogger("std").info("b", extra={"request_id": "r-1", "user_id": None})
    assert attributes_of(captured) == [
        {"user.id": "7", "celery.task.id": "task-1", "tenant.id": "t-1"},
        {"request.id": "r-1", "user.id": "scope", "tenant.id": "t-1"},
    ]


@pytest.mark.parametrize("log", [logger, logging.getLogger(__name__)], ids=["ours", "stdlib"])
def test_the_code_position_is_the_callers(log):
    """File, line and function are those of the call, not ours."""
    with telemetry.testing.capture(varying=True) as captured:
        line = inspect.currentframe().f_lineno + 1
        log.info("here")
    assert attributes_of(captured) == [
        {
            "code.file.path": __file__,
            "code.function.name": "test_the_code_position_is_the_callers",
            "code.line.number": line,
        }
    ]


def test_exceptions(captured):
    """exception(), exc_info=True and exc_info=error record type and message, once."""
    error = ValueError("bad value")
    try:
        raise error
    except ValueError:
        logger.exception("one")
        logger.error("two", exc_info=True)  # noqa: G201 - both ways are the test
    logger.warning("three", exc_info=error)
    logger.exception("none to tell")  # noqa: LOG004 - what happens then is the test
    told = {"exception.type": "ValueError", "exception.message": "bad value"}
    assert attributes_of(captured) == [told, told, told, {}]


def test_an_event_has_its_name(captured):
    """extra={"otel.event.name": ...} makes the record an event."""
    logging.getLogger("app").info("shown", extra={"otel.event.name": "order.opened", "n": 1})
    logger.info("shown", extra={"otel.event.name": "order.closed"})
    assert [(record["event"], record["attributes"]) for record in captured.logs] == [
        ("order.opened", {"n": 1}),
        ("order.closed", {}),
    ]


class Raising:
    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__


class Recursive:
    def __str__(self):
        logging.getLogger("recursive").info("again %s", self)
        return "recursive"


HOSTILE = [
    Raising(),
    Recursive(),
    {"a": Raising()},
    "x" * 1_000_000,
    "\ud800",
    "line\nbreak\x1b[31m",
    float("nan"),
    (value for value in ()),
    BaseException("b"),
    np.zeros((3, 3)),
    None,
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_no_value_makes_a_call_raise(captured, value):
    """Whatever is logged, in whatever place, the call returns and a record arrives (G01)."""
    log = telemetry.get_logger("hostile")
    logging.getLogger("hostile").propagate = True
    calls = [
        lambda: log.info(value),
        lambda: log.info("arg %s", value),
        lambda: log.info("field", field=value),
        lambda: log.info("extra", extra=value),
        lambda: log.info("bound", extra={"key": value}),
        lambda: log.error("exc", exc_info=value),
        lambda: log.bind(field=value).info("bind"),
        lambda: log.info("bad format %d", value),
        lambda: log.info("too many", 1, 2, value),  # noqa: PLE1205 - the test
        lambda: log.info("%s %s"),
    ]
    root = logging.getLogger()
    kept = root.handlers[:]
    root.handlers = [handler for handler in kept if getattr(handler, "otelier", False)]
    try:
        for call in calls:
            call()
    finally:
        root.handlers = kept
    arrived = [record for record in captured.logs if record["logger"] == "hostile"]
    assert len(arrived) == len(calls)
    assert all(len(record["message"]) <= 64 * 1024 for record in arrived)


def test_stdlib_calls_with_bad_formats_do_not_raise(captured):
    """A format that does not fit its arguments still arrives, with both."""
    log = logging.getLogger("std.bad")
    log.propagate = False
    log.addHandler(next(h for h in logging.getLogger().handlers if getattr(h, "otelier", False)))
    try:
        log.error("bad format %d", "x")
    finally:
        log.handlers.clear()
        log.propagate = True
    assert [record["message"] for record in captured.logs] == ["bad format %d ['x']"]


def test_our_own_and_opentelemetrys_messages_are_not_sent(captured):
    """What is said about delivery is not delivered: it would never end (G15)."""
    for name in ("opentelemetry.sdk.trace", "opentelemetry", "otelier.delivery"):
        logging.getLogger(name).error("about us")
    logging.getLogger("opentelemetry_like").error("about the application")
    assert [record["logger"] for record in captured.logs] == ["opentelemetry_like"]


def test_the_clients_messages_are_dropped_only_while_exporting(captured):
    """urllib3 speaks for the application, except in the thread that delivers."""
    logging.getLogger("urllib3.connectionpool").debug("the application's request")
    token = _otel_context.attach(_otel_context.set_value(_otel_context.SUPPRESS_KEY, True))
    try:
        logging.getLogger("urllib3.connectionpool").debug("our request")
        logging.getLogger("urllib3x").debug("somebody else")
    finally:
        telemetry._context.scope.detach(token)  # the same function: opentelemetry.context.detach
    assert [record["logger"] for record in captured.logs] == ["urllib3.connectionpool", "urllib3x"]


def test_records_of_the_otel_api_have_ids_too(captured):
    """A record that a framework emits by OpenTelemetry's API carries the ids of the scope."""
    with telemetry.log_context(tenant_id="t-1"):
        get_logger_provider().get_logger("framework").emit(body="direct", event_name="x.y")
    assert captured.logs == [
        {
            "time": 1,
            "level": None,
            "logger": "framework",
            "message": "direct",
            "trace_id": 0,
            "span_id": 0,
            "attributes": {"tenant.id": "t-1"},
            "event": "x.y",
        }
    ]


def test_caplog_and_other_handlers_still_see_the_record(captured, caplog):
    """The stdlib logger of that name makes the record: its handlers and caplog work (G13)."""
    logger.warning("hello %s", "you", order_id="o-1")
    (record,) = caplog.records
    assert (record.getMessage(), record.name, record.order_id) == ("hello you", __name__, "o-1")
    assert record.funcName == "test_caplog_and_other_handlers_still_see_the_record"
    assert len(captured.logs) == 1


def test_a_handler_that_raises_does_not_reach_the_application(captured):
    """Another handler's failure is not the caller's."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("broken")

    broken = Broken()
    logging.getLogger(__name__).addHandler(broken)
    try:
        logger.info("hello")
    finally:
        logging.getLogger(__name__).removeHandler(broken)


def test_logging_configuration_keeps_our_handler(captured):
    """DictConfig and basicConfig(force=True) do what they should, and records still arrive once."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    try:
        root.handlers = [handler for handler in kept if getattr(handler, "otelier", False)]
        logging.basicConfig(level="INFO")
        own = [handler for handler in root.handlers if not getattr(handler, "otelier", False)]
        assert [type(handler) for handler in own] == [logging.StreamHandler]
        logging.getLogger("app").info("after basicConfig")
        logging.basicConfig(force=True, level="INFO", handlers=[logging.NullHandler()])
        logging.getLogger("app").info("after force")
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "root": {"level": "INFO", "handlers": []},
        }
        logging.config.dictConfig(config)
        logging.getLogger("app").info("after dictConfig")
        root.handlers = []
        logger.info("after handlers = []")
        root.handlers = []
        with trace.get_tracer("t").start_as_current_span("x"):
            logging.getLogger("app").info("after a span began")
        assert [record["message"] for record in captured.logs] == [
            "after basicConfig",
            "after force",
            "after dictConfig",
            "after handlers = []",
            "after a span began",
        ]
    finally:
        root.handlers = kept
        root.setLevel(level)


def test_the_name_defaults_to_the_module():
    """get_logger() without a name is the calling module's logger."""
    assert telemetry.get_logger().name == __name__
    assert telemetry.get_logger("a.b", shelf=1).name == "a.b"


@pytest.mark.parametrize("handler", ["of the pipeline", "of Celery's tasks"])
def test_a_handler_without_a_lock_can_be_entered_as_any_python_does(handler, captured):
    """Python 3.13 enters `Handler.lock` without asking whether it is None; 3.12 acquires it (P1)."""
    from telemetry._logs import root as attach
    from telemetry.instrumentation._celery.logs import Bridge

    ours = Bridge() if handler == "of Celery's tasks" else attach.handlers()[0]
    with ours.lock:
        ours.acquire()
        ours.release()
    record = logging.LogRecord("shop", logging.WARNING, __file__, 1, "hi", (), None)
    assert ours.handle(record)
    assert [line["message"] for line in captured.logs] == ["hi"][: handler == "of the pipeline"]
