"""
Every public call of telemetry with every hostile value, in a process of its own.

Run as a program: prints one JSON object with what raised.
"""

import inspect
import io
import json
import logging
import sys

from hostile_objects import OBJECTS, STD

import telemetry

LOG = telemetry.get_logger("matrix")
FIELDS = ("k", "tenant_id", "name", "message", "exc_text", "msg", "args")


def entered(manager):
    with manager as inside:
        return inside


def decorated(decorator):
    return decorator(lambda: None)()


def logger_calls(logger):
    """Each way to make a log call."""
    for level in ("debug", "info", "warning", "error", "exception", "critical"):
        call = getattr(logger, level)
        yield f"{level}(x)", lambda x, call=call: call(x)
        yield f"{level}(k=x)", lambda x, call=call: call("event", k=x)
    call = logger.info
    yield "info(x, x)", lambda x: call(x, x)
    for text in ("%s", "%d", "%r %s", "%(a)s", "%", "%*d", "%.1000000000f", "{}"):
        yield f"info({text!r}, x)", lambda x, text=text: call(text, x)
    for name in FIELDS:
        yield f"info({name}=x)", lambda x, name=name: call("event", **{name: x})
    for name in ("exc_info", "stack_info", "stacklevel", "extra"):
        yield f"info({name}=x)", lambda x, name=name: call("event", **{name: x})
    yield "info(extra={k: x})", lambda x: call("event", extra={"k": x, 5: x})
    yield "log(x)", lambda x: logger.log(x, "event")
    yield "log(20, x)", lambda x: logger.log(20, x, k=x)
    yield "isEnabledFor(x)", logger.isEnabledFor
    yield "bind(k=x)", lambda x: logger.bind(k=x, tenant_id=x).info("event")
    yield "unbind(x)", lambda x: logger.bind(k=1).unbind(x).info("event")
    yield "repr", lambda x: repr(logger.bind(k=x))


def span_calls(x):
    """What a block does with its span."""
    with telemetry.span("attributes") as current:
        current.set_attribute("k", x)
        current.set_attribute(x, 1)
        current.set_attributes({"k": x, "n": 1})
        current.set_attributes(x)
        current.add_event("event", {"k": x})
        current.add_event(x, x)
        current.record_exception(x)
        current.set_status(x)
        current.update_name(x)
        current.add_link(x)


def log_context_metrics(x):
    with telemetry.LogContext("metrics", k=x) as flow:
        flow.add_metric("n", x)
        flow.add_metric(x, x)


def own_error(make):
    """The block's own exception comes out as it went in."""

    def call(x):
        mine = x if issubclass(type(x), Exception) else ZeroDivisionError(x)
        try:
            with make(x):
                raise mine
        except Exception as caught:
            if caught is not mine:
                raise AssertionError("another exception came out") from None
            if caught.__traceback__.tb_next is not None:
                raise AssertionError("the traceback has frames of ours") from None
        else:
            raise AssertionError("the exception was swallowed")

    return call


def stdlib(call):
    """A call of stdlib's own logger, for values that stdlib alone does not trip over."""

    def guarded(x):
        try:
            logging.LogRecord("", 20, "", 0, "%s", (x,), None)
        except Exception:
            return
        call(x)

    return guarded


def bad_timeout(x):
    """A number is a number: it waits for that long. Anything else is no reason to raise."""
    if not issubclass(type(x), (int, float)):
        telemetry.flush(x)


CALLS = {
    "BoundLogger": [
        *logger_calls(LOG),
        ("(fields)", lambda x: telemetry.BoundLogger(STD, {"k": x}).info("event")),
    ],
    "get_logger": [
        ("(x)", lambda x: telemetry.get_logger(x).info("event")),
        ("(k=x)", lambda x: telemetry.get_logger("own", k=x).info("event")),
        ("stdlib %s", stdlib(lambda x: STD.info("%s", x))),
        ("stdlib x", stdlib(STD.info)),
        ("stdlib bad format", stdlib(lambda x: STD.info("%d %d", x))),
        ("stdlib extra", lambda x: STD.info("event", extra={"k": x, "otel.event.name": x})),
    ],
    "span": [
        ("(x)", lambda x: entered(telemetry.span(x))),
        ("(k=x)", lambda x: entered(telemetry.span("s", k=x, tenant_id=x))),
        ("(kind=x)", lambda x: entered(telemetry.span("s", kind=x))),
        ("decorator", lambda x: decorated(telemetry.span("s", k=x))),
        ("own error", own_error(lambda x: telemetry.span("s", k=x))),
        ("span methods", span_calls),
    ],
    "LogContext": [
        ("(x)", lambda x: entered(telemetry.LogContext(x))),
        ("(k=x)", lambda x: entered(telemetry.LogContext("l", k=x, user_id=x))),
        ("(logger=x)", lambda x: entered(telemetry.LogContext("l", logger=x))),
        ("decorator", lambda x: decorated(telemetry.LogContext("l", k=x))),
        ("add_metric", log_context_metrics),
        ("own error", own_error(lambda x: telemetry.LogContext("l", k=x))),
    ],
    "log_context": [
        ("(k=x)", lambda x: entered(telemetry.log_context(k=x, tenant_id=x, correlation_id=x))),
        ("decorator", lambda x: decorated(telemetry.log_context(k=x))),
        ("own error", own_error(lambda x: telemetry.log_context(k=x))),
    ],
    "bind_context": [("(k=x)", lambda x: telemetry.bind_context(k=x, order_id=x))],
    "set_request_context": [
        (
            "(all)",
            lambda x: telemetry.set_request_context(
                **{
                    name: x
                    for name, parameter in inspect.signature(
                        telemetry.set_request_context
                    ).parameters.items()
                    if parameter.kind is parameter.KEYWORD_ONLY
                }
            ),
        )
    ],
    "clear_context": [("()", lambda _: telemetry.clear_context())],
    "current_context": [("()", lambda _: telemetry.current_context())],
    "new_correlation_id": [("()", lambda _: telemetry.new_correlation_id())],
    "track": [
        ("(x)", telemetry.track),
        ("(k=x)", lambda x: telemetry.track("order.opened", k=x, user_id=x)),
    ],
    "audit": [
        ("(x)", lambda x: telemetry.audit(x, actor=x)),
        ("(k=x)", lambda x: telemetry.audit("order.opened", actor=x, k=x)),
    ],
    "structlog_processor": [
        ("(x, x, x)", lambda x: telemetry.structlog_processor(x, x, x)),
        (
            "(event)",
            lambda x: telemetry.structlog_processor(
                x, "info", {"event": x, "k": x, "exc_info": x, "logger": x, "level": x}
            ),
        ),
    ],
    "flush": [("(0)", lambda _: telemetry.flush(0)), ("(x)", bad_timeout)],
    "report": [("()", lambda _: telemetry.report())],
    "configure": [("(again)", lambda _: telemetry.configure())],
    "shutdown": [],  # at the end, once
}
NEVER_CALLED = {"ConfigError", "MissingDependency", "TelemetryError", "Redaction"}
"""Errors that configure() raises, and what it takes: its arguments have a test of their own."""
NEVER_CALLED |= {"Call", "Drift", "Evaluation", "Inference", "Order"}
"""What blocks give: it is called inside of them."""


def main(calls, groups, *modules):
    """Make all calls of these groups, and say what raised, and what of the modules has no group."""
    telemetry.configure(log_format="json", log_level="DEBUG", diagnostics="none")
    sys.stderr = io.StringIO()  # lines for people go through the same values
    raised = []
    done = 0
    for group in groups or calls:
        for form, call in calls[group]:
            for name, make in OBJECTS.items():
                try:
                    call(make())
                except Exception as error:
                    raised.append(f"{group} {form} with {name}: {type(error).__name__}")
                done += 1
            sys.stderr.seek(0)
            sys.stderr.truncate()
            telemetry.clear_context()
    sys.stderr = sys.__stderr__
    telemetry.shutdown()
    public = {
        name for module in modules for name in module.__all__ if callable(getattr(module, name))
    }
    found = {
        "objects": len(OBJECTS),
        "calls": done,
        "raised": raised,
        "uncovered": sorted(public - NEVER_CALLED - set(calls)),
        "report": telemetry.report(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(CALLS, sys.argv[1:], telemetry)
