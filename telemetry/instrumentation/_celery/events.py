"""
One record per change of state of a task, with the same keys for every kind of change.

Records go straight to OpenTelemetry (`_events.emit`), so no log level drops them. Celery's own
lines about the same changes stay on its console and are kept out of OpenTelemetry, where they would
repeat everything, with the task's arguments in them. Where LOG_FORMAT asks for lines of ours on
stderr, the records are written there too, and Celery's lines about them are not.
"""

import logging
import time
from typing import Any, Final

from opentelemetry._logs import SeverityNumber

from telemetry import _events, _values
from telemetry._config import configure
from telemetry._logs import root

SCOPE: Final = "telemetry.celery"
HURRY_S: Final = 0.1

INFO: Final = SeverityNumber.INFO
WARN: Final = SeverityNumber.WARN
ERROR: Final = SeverityNumber.ERROR

_LEVELS: Final = {INFO: logging.INFO, WARN: logging.WARNING, ERROR: logging.ERROR}
_hurried = 0.0


def record(
    event: str,
    body: str,
    found: dict[str, Any],
    *,
    severity: SeverityNumber = INFO,
    error: BaseException | None = None,
) -> None:
    """
    Record a change of state.

    Args:
        event: its name.
        body: the same for people.
        found: its attributes.
        severity: how bad it is.
        error: an exception to record in full; rendered here, as Celery clears its frames later.
    """
    level = _LEVELS[severity]
    consoles = [console for console in root.consoles() if console.asked]
    if consoles and logging.getLogger().isEnabledFor(level):
        info = None if error is None else (type(error), error, error.__traceback__)
        line = logging.LogRecord(SCOPE, level, "", 0, body, (), info)
        line.__dict__.update(found)
        for console in consoles:
            console.handle(line)
    _events.emit(event, found, scope=SCOPE, body=body, severity=severity, error=error)


def hurry() -> None:
    """
    Send what is here now instead of in a second: the process may be killed by what it begins.

    At most ten times a second, so that short tasks share their requests. What the task before has
    left goes as well, since it would die with this one.
    """
    global _hurried  # noqa: PLW0603 - one clock per process
    pipeline = configure.pipeline()
    if pipeline is None:
        return
    now = time.monotonic()
    within = max(_hurried + HURRY_S - now, 0.0)
    if within == 0.0:
        _hurried = now
    for signal in ("logs", "traces"):
        if signal in pipeline.queues:
            pipeline.queues[signal].nudge(within)


def inherit() -> None:
    """Deliver what a child that was killed has left in the spool, as soon as it can be had."""
    pipeline = configure.pipeline()
    if pipeline is not None and pipeline.replay is not None:
        pipeline.replay.watch()


def reason(value: object) -> str:
    """A short text for people: why something happened."""
    return _values.text(value, _values.ID_TEXT)
