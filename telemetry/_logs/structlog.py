"""
structlog -> OpenTelemetry: a processor that sends each event on and leaves it as it is.

structlog is not imported: a processor is a function of three arguments. Put it before the renderer,
while the event is still a dict:

    structlog.configure(processors=[..., telemetry.structlog_processor, JSONRenderer()])

Where structlog's loggers end in stdlib loggers, the rendered line reaches our handler as well; the
handler is told to expect it, and leaves it out: the event has arrived with its fields already.
"""

import itertools
import logging
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, TypeVar

from telemetry import _diagnostics, _values
from telemetry._config import configure
from telemetry._logs import as_logged, severity, structlog_event
from telemetry._logs import logger as _logging

Event = TypeVar("Event")


def structlog_processor(logger: Any, method_name: str, event_dict: Event) -> Event:
    """
    A structlog processor that sends the event as an OpenTelemetry log record.

    Example:
        structlog.configure(processors=[structlog_processor, structlog.dev.ConsoleRenderer()])

    Args:
        logger: what structlog wraps; a stdlib logger's name and level are honoured.
        method_name: `info`, `error`, ...
        event_dict: the event; returned unchanged.
    """
    try:
        pipeline = configure.pipeline()
        if pipeline is not None and isinstance(event_dict, Mapping):
            _send(pipeline.otel_handler, logger, method_name, event_dict)
    except Exception as error:
        _diagnostics.say("structlog", f"an event was lost: {_values.text(error)}", level="error")
    return event_dict


def _send(
    handler: _logging.OtelHandler, logger: Any, method_name: str, event: Mapping[str, Any]
) -> None:
    runner = sys._getframe(2)  # noqa: SLF001 - as logging does; the frame that runs processors
    caller = _outside(runner)
    name = event.get("logger") or getattr(logger, "name", None)
    if not isinstance(name, str):
        name = caller.f_globals.get("__name__", "root")
    level = severity.level_of(event.get("level"), severity.level_of(method_name))
    if not logging.getLogger(name).isEnabledFor(level):
        return
    record = logging.LogRecord(
        name,
        level,
        caller.f_code.co_filename,
        caller.f_lineno,
        structlog_event.message(event),
        (),
        _logging.exc_info(event.get("exc_info")),
        caller.f_code.co_name,
    )
    fields = structlog_event.fields(dict(itertools.islice(event.items(), _values.NODES)))
    if record.exc_info is None:
        raised, known = structlog_event.exception(event)
        record.exc_info = _logging.exc_info(raised)
        fields.update(known)
    word = event.get("level", method_name)
    if isinstance(word, str) and level not in severity.STANDARD.values():
        record.levelname = word.strip().upper()[:32]
    _logging.add(record, fields)
    handler.emit(as_logged.read(record))
    if isinstance(logger, logging.Logger):
        _logging.expect(runner.f_code.co_filename)


def _outside(runner: FrameType) -> FrameType:
    """The frame of the application's call: the first one that is not in structlog's folder."""
    folder = runner.f_code.co_filename.rpartition("/")[0]
    if folder.rpartition("/")[2] != "structlog":
        folder = runner.f_code.co_filename
    frame = runner
    while frame.f_back is not None and frame.f_code.co_filename.startswith(folder):
        frame = frame.f_back
    return frame
