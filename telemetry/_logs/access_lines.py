"""
Access lines of HTTP servers beside our access records: one of the two is stored.

uvicorn, gunicorn, hypercorn, granian and the development servers write a line per request through a logger of their own, with
the facts that our middleware's record has too, and without ids. From the first request on that our
middleware serves in this process, the server's lines are its application's business only: they go
to the console and to files as before, and not to OpenTelemetry. Where a server logs an exception that has
been recorded in full, its line is stored without it.
"""

import logging
from typing import Final

from telemetry._context import recorded

ACCESS: Final = frozenset(
    ("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access", "django.server")
)
WERKZEUG: Final = ("werkzeug", '"%s" %s %s')
"""The logger of Flask's development server, and how its access lines end."""
ERRORS: Final = frozenset(("uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian"))


class _Served:
    """Whether our middleware writes access records in this process."""

    access = False


def served(*, access: bool) -> None:
    """Say that our middleware serves a request, and whether it writes access records."""
    if access:
        _Served.access = True


def forget() -> None:
    """As before the first request: for tests."""
    _Served.access = False


def is_duplicate(record: logging.LogRecord) -> bool:
    """Whether a server's line says again what a record of ours says."""
    name = record.name
    if name in ACCESS:
        return _Served.access
    if name == WERKZEUG[0]:
        return _Served.access and str(record.msg).rstrip().endswith(WERKZEUG[1])
    return False


def repeats_exception(record: logging.LogRecord) -> bool:
    """Whether a server logs an exception that a record of ours has in full."""
    if record.name not in ERRORS:
        return False
    info = record.exc_info
    error = info[1] if isinstance(info, tuple) and len(info) > 1 else None
    return error is not None and recorded.is_recorded(error)
