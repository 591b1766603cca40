"""
Our own voice: one line on stderr, at most one per minute and site, never through logging.

Logging would feed us what we say about ourselves, and a line per failed batch would bury the
application's own lines. `OTEL_LOG_LEVEL` sets what is said: none, error, warn, info or debug.
"""

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from telemetry import _values

LEVELS: Final = ("none", "error", "warn", "info", "debug")
INTERVAL_S: Final = 60.0

_threshold = LEVELS.index("warn")
_said: dict[str, float] = {}
redact: Callable[[str], str] = str
"""Done to what is said: messages of others (an exporter's, a driver's) may quote a secret."""


def listen(level: str) -> None:
    """Say what is as important as `level`, and more important things."""
    global _threshold  # noqa: PLW0603 - one process has one stderr and one threshold
    _threshold = LEVELS.index(level)


def stderr() -> TextIO:
    """
    Where lines for people go now.

    A Celery worker puts an object in the place of `sys.stderr` that turns what is written into log
    records: a line about a record would become the next record.
    """
    stream = sys.stderr
    if type(stream).__module__ == "celery.utils.log" and sys.__stderr__ is not None:
        return sys.__stderr__
    return stream


def say(site: str, text: str, *, level: str = "warn", always: bool = False) -> None:
    """
    Print one line, unless this site spoke within the last minute.

    Args:
        site: names the place that speaks; places are few, so the table stays small.
        text: what happened, and what to do about it.
        level: error, warn, info or debug.
        always: skip the rate limit, for what is said once per process.
    """
    if LEVELS.index(level) > _threshold:
        return
    now = time.monotonic()
    if not always and now - _said.get(site, -INTERVAL_S) < INTERVAL_S:
        return
    _said[site] = now
    try:
        line = redact(text).replace("\n", " ")
        stream = stderr()
        stream.write(f"otelier: {line}\n")
        stream.flush()
    except Exception:  # noqa: S110 - stderr is closed or full: there is nowhere left to say it
        pass


def fault(site: str, error: Exception) -> None:
    """Say that something of ours failed, and go on."""
    say(site, f"{site} failed and was skipped: {_values.text(error)}", level="error")
