"""
What reports to a request: its server span, and the exceptions that FastAPI records itself.

The request is a thing of `_context`, which does not know the SDK; these two processors stand
between them. They see records as they are: nothing leaves the process here.
"""

from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import Span, SpanProcessor

from telemetry._context import request
from telemetry._context.recorded import already_recorded
from telemetry.attributes import EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE

_EXCEPTIONS: Final = ("http.server.request.exception", "fastapi.websocket.exception")


class Ours:
    """A processor of ours: it sees records as they are; what leaves is redacted later."""


class EntrySpans(SpanProcessor, Ours):
    """Reports spans to the request that they belong to."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Report it to the request that runs."""
        running = request.current.get()
        if running is not None:
            running.started(span)

    def _on_ending(self, span: Span) -> None:
        request.ending(span)


class EntryLogs(LogRecordProcessor, Ours):
    """
    Takes the exception records of FastAPI's own telemetry into account.

    Each exception is recorded in full once: by FastAPI, unless a block further in has recorded it,
    and then not again by our middleware.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Notice the exception, or leave its text out."""
        record: Any = log_record.log_record
        if record.event_name not in _EXCEPTIONS:
            return
        error = getattr(record, "exception", None)
        running = request.current.get()
        if running is not None:
            running.recorded = True
            running.error_type = record.attributes.get(EXCEPTION_TYPE)
        if error is not None and already_recorded(error):
            record.exception = None
            for name in (EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE):
                record.attributes.pop(name, None)

    def shutdown(self) -> None:
        """Nothing to end."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing waits here."""
        return True
