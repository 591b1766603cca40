"""
The exception records that FastAPI's own telemetry makes, and what the running request knows of them.

Each exception is recorded in full once: by FastAPI, unless a block further in has recorded it, and
then not again by our middleware. The request is a thing of `_context`, which does not know the SDK.
"""

from typing import Any, Final

from telemetry._context import request
from telemetry._context.recorded import already_recorded
from telemetry.attributes import EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE

_EXCEPTIONS: Final = ("http.server.request.exception", "fastapi.websocket.exception")


def notice(record: Any) -> None:
    """
    Notice the exception of a log record, or leave its text out.

    Args:
        record: of the SDK, as it is emitted.
    """
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
