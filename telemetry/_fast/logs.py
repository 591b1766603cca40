"""
The fast path of a log record: from a log call to the queue without the SDK's objects.

The SDK makes an API record, a writable record around a copy of the attributes that is cleaned once
more, and calls each processor. As long as only our processor is there (and no test captures),
everything that it would add can be added at once, to a plain tuple (`otlp_encoder.LogFacts`): the same
attributes, ids and trace, in a fraction of the time.

Our own loggers can also do without stdlib's LogRecord, if our handler is the only one that would
see it: no other handler on the way to root, no filter, no record factory and no patched method of
`logging` (Sentry and others patch it). Every doubt means the SDK path, whose result is the same.
"""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits

from telemetry import _otel_context, _values
from telemetry._attribute_loops import estimated_bytes
from telemetry._context import request as requests
from telemetry._context import scope
from telemetry._export.queue import ExportQueue
from telemetry._logs import as_logged, record, root
from telemetry._logs import logger as loggers
from telemetry._sdk.log_processor import LogPipeline, is_important
from telemetry.attributes import AUDIT_STREAM, CODE_FILE, CODE_FUNCTION, CODE_LINE

SCOPES: Final = 2000
FIELDS: Final = 90
"""A call with more fields goes the SDK path, which knows what to leave out."""
KEY: Final = 64
"""A longer name goes the SDK path too, which cuts it."""

_SPECIAL: Final = frozenset(("exc_info", "stack_info", "stacklevel", "extra", record.EVENT_NAME))
_PLAIN: Final = frozenset((float, bool, type(None)))
_INT64: Final = 1 << 63
_KINDS: Final = (logging.Logger, logging.RootLogger)


def _original(name: str) -> object:
    """A method of logging.Logger, if it is logging's own: what is patched is never equal to it."""
    method = getattr(logging.Logger, name)
    code = getattr(method, "__code__", None)
    return method if code is not None and code.co_filename == logging.__file__ else object()


_HANDLE: Final = _original("handle")
_CALL_HANDLERS: Final = _original("callHandlers")
_MAKE_RECORD: Final = _original("makeRecord")
_FILTER: Final = _original("filter")


class FastLogs:
    """
    The fast path of log records, for one pipeline.

    Args:
        provider: our LoggerProvider; its loggers say what is switched on.
        pipeline: our log record processor.
        queue: takes the records.
        handler: ours, on the root logger.
    """

    def __init__(
        self,
        provider: LoggerProvider,
        pipeline: LogPipeline,
        queue: ExportQueue,
        handler: logging.Handler,
    ) -> None:
        self._provider = provider
        self._pipeline = pipeline
        self._queue = queue
        self._handler = handler
        self._known: dict[str, Any] = {}

    def open(self) -> bool:
        """Whether nothing else wants to see the SDK's records."""
        pipeline = self._pipeline
        return not pipeline.others and pipeline.redirect is None

    def logger(self, name: str) -> Any:
        """The SDK's logger of a name."""
        found = self._known.get(name)
        if found is None:
            found = self._provider.get_logger(name)
            if len(self._known) >= SCOPES:
                self._known.clear()
            self._known[name] = found
        return found

    def take(
        self,
        logger: logging.Logger,
        level: int,
        event: object,
        bound: Mapping[str, object],
        fields: Mapping[str, object],
    ) -> bool:
        """
        Send what one of our loggers was called with, if it can go this way.

        Called by a method of our logger that was called by the application: its line is the third
        frame up from here.
        """
        if (
            type(event) is not str
            or len(event) > _values.BODY_TEXT
            or len(bound) + len(fields) > FIELDS
            or not self._sole_reader(logger)
            or not self.open()
        ):
            return False
        name = logger.name
        if name.partition(".")[0] in record.WATCHED:
            return False
        attributes: dict[str, Any] = {}
        named = scope.ATTRIBUTE
        for source in (bound, fields) if bound else (fields,):
            for key, value in source.items():
                kind = type(value)
                if key in _SPECIAL or len(key) > KEY:
                    return False
                if key in named:
                    if value is None:
                        continue
                    if kind is not str or len(value) > _values.ID_TEXT:  # type: ignore[arg-type]
                        return False
                    if as_logged.is_placeholder(value):
                        continue
                    key = named[key]  # noqa: PLW2901 - the attribute, from here on
                if kind is str:
                    if len(value) > 64 or not value.isascii():  # type: ignore[arg-type, attr-defined]  # `kind` says that it is a str
                        value = _values.bounded(value)  # type: ignore[arg-type]  # noqa: PLW2901
                elif kind is int:
                    if not -_INT64 <= value < _INT64:  # type: ignore[operator]
                        return False
                elif kind not in _PLAIN:
                    return False
                attributes[key] = value
        frame = sys._getframe(3)  # noqa: SLF001 - as logging does
        code = frame.f_code
        attributes[CODE_FILE] = code.co_filename
        attributes[CODE_FUNCTION] = code.co_name
        attributes[CODE_LINE] = frame.f_lineno
        if not event.isascii():
            event = _values.bounded(event, _values.BODY_TEXT)
        self.send(
            self.logger(name),
            time.time_ns(),
            level,
            logging.getLevelName(level),
            event,
            attributes,
        )
        return True

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
        """
        Send a record of our own, if it can go this way.

        Args:
            logger: that it would come from.
            level: stdlib's number.
            body: the message.
            fields: by attribute name, clean.
            place: file, function and line that it is about.
            event: the name of the event, for a record that is one.
        """
        if not self._sole_reader(logger) or not self.open():
            return False
        attributes = {
            **fields,
            CODE_FILE: place[0],
            CODE_FUNCTION: place[1],
            CODE_LINE: place[2],
        }
        body = _values.bounded(body, _values.BODY_TEXT)
        out, text = self.logger(logger.name), logging.getLevelName(level)
        self.send(out, time.time_ns(), level, text, body, attributes, event)
        return True

    def _sole_reader(self, logger: logging.Logger) -> bool:
        """Whether a record of this logger would be seen by our handler and by nothing else."""
        kind = logging.Logger
        if (
            type(logger) not in _KINDS
            or logger.filters
            or not (kind.callHandlers is _CALL_HANDLERS or root.is_ours(kind.callHandlers))
            or kind.handle is not _HANDLE
            or not (kind.makeRecord is _MAKE_RECORD or root.is_ours(kind.makeRecord))
            or kind.filter is not _FILTER
            or logging.getLogRecordFactory() is not logging.LogRecord
        ):
            return False
        ours = self._handler
        reached = False
        current: logging.Logger | None = logger
        while current is not None:
            handlers = current.handlers
            if handlers:
                if len(handlers) != 1 or handlers[0] is not ours:
                    return False
                reached = True
            if not current.propagate:
                break
            current = current.parent
        return reached and not ours.filters and ours.level == 0

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
        """
        Add what our processors add, and queue.

        Args:
            out: the SDK's logger.
            time_ns: when it was logged, in nanoseconds since 1970.
            level: stdlib's number.
            text: stdlib's name of the level.
            body: the message.
            attributes: cleaned; becomes the record's.
            event: the name of the event, for a record that is one.
        """
        if not out._logger_config.is_enabled:  # noqa: SLF001 - what `emit` asks first
            return
        context = _otel_context.current_context()
        ids = scope.effective(context)
        if ids:
            attributes = {**ids, **attributes}
        span: Any = context.get(_otel_context.SPAN_KEY)
        if span is None:
            trace_id = span_id = flags = 0
        else:
            here = span.get_span_context()
            trace_id, span_id, flags = here.trace_id, here.span_id, here.trace_flags
        number = record.SEVERITY[min(max(level, 0), 53)]
        facts = (
            time_ns,
            time_ns,
            number,
            record.SEVERITY_TEXT.get(text, text),
            body,
            attributes,
            trace_id,
            span_id,
            flags,
            event,
            out._resource,  # noqa: SLF001
            out._instrumentation_scope,  # noqa: SLF001
        )
        out._logger_metrics.emit_log()  # noqa: SLF001
        size = record.OVERHEAD + len(body) + estimated_bytes(attributes, _values.weigh)
        important = number >= 17 or AUDIT_STREAM in attributes
        request = requests.current.get()
        if (
            request is not None
            and request.gate != requests.PASS
            and request.takes(self._put, (facts, size), important=important)
        ):
            return
        self._queue.put(facts, size, important=important)

    def _put(self, sized: Any) -> None:
        """Queue a record that a request has held back."""
        facts, size = sized
        self._queue.put(facts, size, important=is_important(facts[2], facts[5]))


def install(providers: Any, handler: loggers.OtelHandler) -> bool:
    """
    Open the fast path of log records, where all that becomes of them is an OTLP request.

    Args:
        providers: of the process.
        handler: ours, on the root logger.

    Returns:
        Whether it is open.
    """
    limits = LogRecordLimits()
    unlimited = (
        limits.max_log_record_attribute_length is None
        and (limits.max_log_record_attributes or 0) >= _values.ITEMS
    )
    pipeline: LogPipeline = providers.logs
    if not unlimited or pipeline.queue is None or not pipeline.as_facts:
        return False
    _remember_loggers(providers.loggers)
    fast = FastLogs(providers.loggers, pipeline, pipeline.queue, handler)
    handler.fast = loggers.fast_path = fast
    return True


def _remember_loggers(provider: Any) -> None:
    """Find a logger by its name alone: FastAPI asks for one in each request."""
    slow = provider.get_logger
    known: dict[Any, Any] = {}

    def get_logger(
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> Any:
        if attributes is not None:
            return slow(name, version, schema_url, attributes)
        found = known.get((name, version, schema_url))
        if found is None:
            found = slow(name, version, schema_url)
            if len(known) >= SCOPES:
                known.clear()
            known[name, version, schema_url] = found
        return found

    provider.get_logger = get_logger
