"""
loguru -> OpenTelemetry: one sink, added when the application imports loguru.

Each message arrives once, with its level, place, exception and `extra` as fields, and with the ids of
the scope. The sink survives `logger.remove()`, with which most applications begin, and `configure`.
Where loguru and stdlib are connected, one of the two copies is left out: an `InterceptHandler`
(stdlib -> loguru) hands over a record that has arrived already; a sink that is a stdlib handler or
passes records on to loggers (loguru -> stdlib) repeats what the sink has had.

The level is LOG_LEVEL, INFO by default; loguru's own sinks keep theirs. loguru is not imported here.
"""

import functools
import logging
import threading
from typing import Any, Final

from telemetry import _diagnostics, _values
from telemetry._logs import as_logged, logger, root

__all__ = ["install"]

EXTRA: Final = "extra"
_WRAPPED: Final = "_otelier_wrapped"


class _Last(threading.local):
    """The `extra` of the message that loguru gives to its sinks in this thread."""

    extra: object = None


_last = _Last()


def install(handler: logging.Handler, level: str) -> None:
    """
    Add the sink now, if loguru is there, or when it has been imported.

    Args:
        handler: for OpenTelemetry.
        level: from which on messages are sent.
    """
    import wrapt  # noqa: PLC0415 - a dependency of opentelemetry-instrumentation, needed here only

    wrapt.register_post_import_hook(
        functools.partial(_guarded_add, handler=handler, level=level), "loguru"
    )


def _guarded_add(module: Any, handler: logging.Handler, level: str) -> None:
    try:
        _add(module, functools.partial(_write, handler), level)
    except Exception as error:
        text = f"loguru is not observed: {_values.text(error)}"
        _diagnostics.say("loguru", text, level="error")


def _add(module: Any, write: Any, level: str) -> None:
    kind = type(module.logger)
    if hasattr(kind.remove, _WRAPPED):
        return
    remove = kind.remove
    number = [_sink(module.logger, write, level)]
    root.leave_out(_is_repeated)

    @functools.wraps(remove)
    def removing(self: Any, handler_id: Any = None) -> None:
        remove(self, handler_id)
        if handler_id is None or handler_id == number[0]:
            number[0] = _sink(self, write, level)

    setattr(removing, _WRAPPED, remove)
    kind.remove = removing


def _sink(log: Any, write: Any, level: str) -> int:
    added: int = log.add(
        write, level=level, format=_nothing, catch=True, backtrace=False, diagnose=False
    )
    return added


def _nothing(_: Any) -> str:
    """The sink reads the record: nothing has to be formatted."""
    return ""


def _write(handler: logging.Handler, message: Any) -> None:
    """Send one message."""
    record = message.record
    _last.extra = record[EXTRA]
    text = record["message"]
    if root.is_handling(text):
        return  # an InterceptHandler passes on what has arrived
    level, caught = record["level"], record["exception"]
    error = None if caught is None else caught.value
    made = logging.LogRecord(
        record["name"] or "loguru",
        level.no,
        record["file"].path,
        record["line"],
        text,
        (),
        None if error is None else (type(error), error, error.__traceback__),
        record["function"],
    )
    made.created = record["time"].timestamp()
    made.levelname = level.name
    logger.add(made, record[EXTRA])
    handler.handle(as_logged.read(made))


def _is_repeated(record: logging.LogRecord) -> bool:
    """Whether a stdlib record was made by loguru, of a message that the sink has had."""
    extra = record.__dict__.get(EXTRA)
    return extra is not None and extra is _last.extra
