"""
A log line that may come up for every item, written once a minute at most.

The count of what happened is in the metrics; the line is there to say what it looks like.
"""

import logging
import time
from typing import Any, Final

QUIET_S: Final = 60.0


class Quiet:
    """
    Warns, but not all the time.

    Args:
        log: where the line goes.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._until = 0.0

    def warning(self, text: str, *arguments: Any, error: BaseException | None = None) -> None:
        """Log a warning, unless one was logged a moment ago."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + QUIET_S
            self._log.warning(text, *arguments, exc_info=error)
