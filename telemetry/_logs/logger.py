"""
Log records on their way to OpenTelemetry: a handler for stdlib logging, and `get_logger`.

`OtelHandler` turns each stdlib record into an OTel log record. Upstream's handler is not used: it
raises out of `logger.info()` when a value or a format is bad, turns numpy scores into text, starts
a thread in `flush()`, and feeds the exporter's own messages back into the exporter.

`get_logger` gives a structlog-style logger *on top of* the stdlib logger of that name, so that the
application's levels, handlers and caplog go on working and a record arrives once. Fields become
attributes of the LogRecord as with `extra=`; those that a LogRecord uses itself (`name`, `args`)
travel beside it, because stdlib would raise.
"""

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, Self

from opentelemetry._logs import Logger as OtelLogger
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber

from telemetry import _diagnostics, _otel_context, _values
from telemetry._logs import record as records
from telemetry._logs import root as attach
from telemetry._logs import severity
from telemetry.attributes import (
    CODE_FILE,
    CODE_FUNCTION,
    CODE_LINE,
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)

SCOPES: Final = 2000

_SEVERITY: Final = tuple(map(SeverityNumber, records.SEVERITY))


class FastLogs(Protocol):
    """From a log call to the queue without the SDK's objects: see `telemetry._fast.logs`."""

    def open(self) -> bool:
        """Whether records may go this way now: only ours are interested in them."""

    def logger(self, name: str) -> Any:
        """The SDK's logger of a name, for `send`."""

    def take(
        self,
        logger: logging.Logger,
        level: int,
        event: object,
        bound: Mapping[str, object],
        fields: Mapping[str, object],
    ) -> bool:
        """Send what one of our loggers was called with; False if the call has to go on."""

    def say(
        self,
        logger: logging.Logger,
        level: int,
        body: str,
        fields: Mapping[str, Any],
        place: tuple[str, str, int],
        *,
        event: str | None = None,
    ) -> bool:
        """Send a record of our own; False if the call has to go on."""

    def send(  # noqa: PLR0917 - keywords would cost time in each call
        self,
        out: Any,
        time_ns: int,
        level: int,
        text: str,
        body: str,
        attributes: dict[str, Any],
        event: str | None = None,
    ) -> None:
        """Queue a record."""


class OtelHandler(logging.Handler):
    """
    Sends stdlib records to an OTel LoggerProvider; never raises, never blocks, works after close().

    Args:
        provider: whose loggers the records are emitted on.
        lost: called for a record that could not be converted.
    """

    otelier = True

    def __init__(self, provider: LoggerProvider, lost: Callable[[], None]) -> None:
        super().__init__()
        self._provider = provider
        self._lost = lost
        self._loggers: dict[str, OtelLogger] = {}
        self.fast: FastLogs | None = None
        """The fast path, where the pipeline has one."""

    def createLock(self) -> None:  # noqa: N802 - the name in logging.Handler
        """No lock: emit() shares nothing, and a lock would be held while values are converted."""
        self.lock = records.NO_LOCK

    def flush(self) -> None:
        """Do nothing: dictConfig() calls this under the logging lock; `telemetry.flush` sends."""

    def emit(self, record: logging.LogRecord) -> None:
        """Emit the record as an OTel log record of the logger's name."""
        nesting = records.nesting
        nesting.depth += 1
        try:
            root = record.name.partition(".")[0]
            if root in records.WATCHED and (root in records.NEVER or _otel_context.suppressed()):
                return
            if attach.was_first(record) or _was_expected():
                return
            if nesting.depth > records.NESTED:  # a value's own __str__ logs the value
                self._lost()
                return
            fast = self.fast
            if fast is not None and fast.open():
                attributes, event = _facts(record)
                fast.send(
                    fast.logger(record.name),
                    int(record.created * 1e9),
                    record.levelno,
                    record.levelname,
                    records.message(record),
                    attributes,
                    event,
                )
            else:
                self._logger(record.name).emit(translate(record))
        except Exception as error:
            self._lost()
            _diagnostics.say(
                "handler", f"a log record was lost: {_values.text(error)}", level="error"
            )
        finally:
            nesting.depth -= 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as in logging.Handler
        """Nothing is printed: emit() has counted it."""

    def _logger(self, name: str) -> OtelLogger:
        logger = self._loggers.get(name)
        if logger is None:
            if len(self._loggers) >= SCOPES:
                self._loggers.clear()
            logger = self._loggers[name] = self._provider.get_logger(name)
        return logger


def translate(record: logging.LogRecord) -> LogRecord:
    """A stdlib record as an OTel log record; ids of the scope are added by the processors."""
    attributes, event = _facts(record)
    return LogRecord(
        timestamp=int(record.created * 1e9),
        severity_text=records.SEVERITY_TEXT.get(record.levelname, record.levelname),
        severity_number=severity_number(record.levelno),
        body=records.message(record),
        attributes=attributes,
        event_name=event,
    )


def _facts(record: logging.LogRecord) -> tuple[dict[str, Any], str | None]:
    """The attributes of a stdlib record, and the name of the event that it is."""
    attributes: dict[str, Any] = records.fields(record)
    attributes[CODE_FILE] = record.pathname
    attributes[CODE_FUNCTION] = record.funcName
    attributes[CODE_LINE] = record.lineno
    error = records.error(record)
    if error is not None:
        kind, message, stack = _values.exception(error)
        attributes[EXCEPTION_TYPE] = kind
        attributes[EXCEPTION_MESSAGE] = message
        attributes[EXCEPTION_STACKTRACE] = stack
    event = record.__dict__.get(records.EVENT_NAME)
    return attributes, None if event is None else _values.text(event, _values.ID_TEXT)


def severity_number(level: int) -> SeverityNumber:
    """A stdlib level as an OTel severity number, as OpenTelemetry maps it."""
    return _SEVERITY[min(max(level, 0), 53)]


_expected = threading.local()


def expect(file: str) -> None:
    """The next stdlib record that this file's code makes in this thread was sent already."""
    _expected.file = file


def _was_expected() -> bool:
    """Whether the record being handled is the one that was announced."""
    file = getattr(_expected, "file", None)
    if file is None:
        return False
    _expected.file = None
    frame = sys._getframe(2)  # noqa: SLF001 - as logging does
    while frame.f_back is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return bool(frame.f_code.co_filename == file)


fast_path: FastLogs | None = None
"""Of the pipeline of this process, where there is one (`telemetry._fast.logs`)."""


class BoundLogger:
    """
    A logger with keyword arguments, on top of the stdlib logger of the same name.

    Args:
        logger: the stdlib logger.
        fields: what every record of this logger carries.
    """

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: Mapping[str, object] | None = None) -> None:
        self._logger = logger
        self._fields: Mapping[str, object] = fields or {}

    def __repr__(self) -> str:
        return f"<BoundLogger {self._logger.name}>"

    @property
    def name(self) -> str:
        """The name of the stdlib logger."""
        return self._logger.name

    def bind(self, **fields: object) -> Self:
        """A logger that adds `fields` to every record."""
        return type(self)(self._logger, {**self._fields, **fields})

    def unbind(self, *names: str) -> Self:
        """A logger without the fields `names`."""
        kept = dict(self._fields)
        for name in names:
            if _values.is_a(name, str):
                kept.pop(str.__str__(name), None)
        return type(self)(self._logger, kept)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name in logging.Logger
        """Whether a record of this level would be emitted."""
        return _values.is_a(level, int) and self._logger.isEnabledFor(int.__int__(level))

    def debug(self, event: object, *args: object, **fields: Any) -> None:
        """Log details for developers."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._emit(logging.DEBUG, event, args, fields)

    def info(self, event: object, *args: object, **fields: Any) -> None:
        """Log a step or a business event."""
        if self._logger.isEnabledFor(logging.INFO):
            self._emit(logging.INFO, event, args, fields)

    def warning(self, event: object, *args: object, **fields: Any) -> None:
        """Log something unexpected that the program can live with."""
        if self._logger.isEnabledFor(logging.WARNING):
            self._emit(logging.WARNING, event, args, fields)

    def error(self, event: object, *args: object, **fields: Any) -> None:
        """Log a failure."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._emit(logging.ERROR, event, args, fields)

    def exception(self, event: object, *args: object, **fields: Any) -> None:
        """Log a failure with the exception that is being handled."""
        if self._logger.isEnabledFor(logging.ERROR):
            fields.setdefault("exc_info", True)
            self._emit(logging.ERROR, event, args, fields)

    def critical(self, event: object, *args: object, **fields: Any) -> None:
        """Log a failure of the whole program."""
        if self._logger.isEnabledFor(logging.CRITICAL):
            self._emit(logging.CRITICAL, event, args, fields)

    def log(self, level: int | str, event: object, *args: object, **fields: Any) -> None:
        """Log at any level: a number, or a word such as `notice`; what is neither is INFO."""
        plain = _values.is_a(level, int)
        number = int.__int__(level) if plain else severity.registered(level)  # type: ignore[arg-type]  # `plain`
        if self._logger.isEnabledFor(number):
            self._emit(number, event, args, fields)

    def _emit(
        self, level: int, event: object, args: tuple[object, ...], fields: dict[str, Any]
    ) -> None:
        """
        Make the record and hand it to the stdlib logger.

        Of `fields`, exc_info, stack_info, stacklevel and extra mean what they mean in logging.
        """
        fast = fast_path
        if fast is not None and not args:
            try:
                if fast.take(self._logger, level, event, self._fields, fields):
                    return
            except Exception as failure:
                text = f"a log call left the fast path: {_values.text(failure)}"
                _diagnostics.say("fast path", text)
        nesting = records.nesting
        nesting.depth += 1
        try:
            if nesting.depth > records.NESTED:
                return
            attach.ensure()
            error = exc_info(fields.pop("exc_info", None))
            stack_info = bool(fields.pop("stack_info", False))
            stacklevel = fields.pop("stacklevel", 1)
            extra = fields.pop("extra", None)
            logger = self._logger
            path, line, function, stack = logger.findCaller(stack_info, stacklevel + 2)
            message = event if isinstance(event, str) else _values.text(event)
            record = logger.makeRecord(
                logger.name,
                level,
                path,
                line,
                message,
                args,
                error,
                function,
                None,
                stack,
            )
            add(record, self._fields, fields, extra)
            attach.note_call(logger, record, self._fields, fields, extra)
            try:
                logger.handle(record)
            except Exception as error:
                _diagnostics.say("handle", f"a logging handler raised: {_values.text(error)}")
        except Exception as error:
            _diagnostics.say("logger", f"a log call failed: {_values.text(error)}", level="error")
        finally:
            nesting.depth -= 1


def exc_info(given: Any) -> Any:
    """What logging's `exc_info` may be, as the triple that a LogRecord keeps, or None."""
    if isinstance(given, BaseException):
        return (type(given), given, given.__traceback__)
    if isinstance(given, tuple):
        return given if len(given) == 3 and isinstance(given[1], BaseException) else None
    if isinstance(given, int) and given:
        current = sys.exc_info()
        return None if current[1] is None else current
    return None


def add(record: logging.LogRecord, *sources: Any) -> None:
    """Put fields on the record as `extra=` does, and beside it those whose names it uses."""
    own = record.__dict__
    beside: dict[str, object] = {}
    for source in sources:
        if not isinstance(source, Mapping):
            continue
        for key, value in itertools.islice(source.items(), _values.NODES):
            if key in records.STANDARD and key != records.EVENT_NAME:
                beside[key] = value
            else:
                own[key] = value
    if beside:
        own[records.FIELDS] = beside


def get_logger(name: str | None = None, **fields: object) -> BoundLogger:
    """
    A logger for this module.

    Example:
        logger = get_logger(__name__)
        logger.info("order loaded", order_id="o-1", items=3)

    Args:
        name: the stdlib logger's name; the calling module's by default.
        fields: what every record of this logger carries.
    """
    if name is None:
        name = sys._getframe(1).f_globals.get("__name__", "root")  # noqa: SLF001 - as in logging itself
    if not _values.is_a(name, str):
        name = _values.text(name, _values.ID_TEXT)
    return BoundLogger(logging.getLogger(str.__str__(name)), fields)
