"""
Celery's own talk with its broker and result store leaves no spans of contrib's redis or pymongo.

A task that is sent costs about nine commands, and a worker polls for ever: as spans they are dozens of
traces of one span each, and siblings of `send` and `process` that say nothing. So OpenTelemetry's
suppression is on while Celery publishes, in a worker outside of tasks, and while a result is stored.
A task's own commands are traced as ever, since an attempt runs in the context of its message.

TELEMETRY_CELERY_BROKER_SPANS=true shows them all.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.context import attach, detach, set_value

from telemetry import _diagnostics, _otel_context
from telemetry._config import kinds
from telemetry.instrumentation._celery.options import guarded

VARIABLE: Final = "TELEMETRY_CELERY_BROKER_SPANS"
STORING: Final = ("mark_as_done", "mark_as_failure", "mark_as_retry", "store_result")
"""Methods of a result backend that Celery calls within an attempt."""


def shown() -> bool:
    """Whether somebody wants to see these spans."""
    given = os.environ.get(VARIABLE, "").strip()
    try:
        return bool(given) and kinds.FLAG.read(given) is True
    except (TypeError, ValueError):
        text = f"{VARIABLE}={given!r} cannot be used; give {kinds.FLAG.words}, or leave it out"
        _diagnostics.say(VARIABLE, text, level="error", always=True)
        return False


@guarded("chatter")
def worker_begins() -> None:
    """In the main thread of a worker or of beat: what it does from now on outside of tasks is Celery's."""
    if not shown():
        _otel_context.suppress()


def quiet(original: Callable[..., Any]) -> Callable[..., Any]:
    """The function, without spans of the drivers that it uses."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if shown():
            return original(*args, **kwargs)
        token = attach(set_value(_otel_context.SUPPRESS_KEY, True))
        try:
            return original(*args, **kwargs)
        finally:
            detach(token)

    return call
