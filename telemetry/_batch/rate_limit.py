"""
One pace for all items of a run, and one pause when the other side asks for it.

Starts are spaced evenly (the generic cell rate algorithm): `Rate(60, per=60)` is one per second,
never sixty at once and then a minute of refusals. A `Retry-After` that one item was given holds
back all of them, since it is the account that is over its limit and not the item. Waiting is in
order of arrival and ends at once when the run stops.
"""

import asyncio
import contextlib
import email.utils
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

LONGEST_PAUSE_S: Final = 3600.0


class Limiter:
    """
    Lets starts through.

    Args:
        interval_s: between two starts; 0 for no pace, only pauses.
        burst: how many may start at once after a quiet time.
        halt: set when the run stops.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        interval_s: float,
        burst: int,
        halt: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval_s
        self._slack = interval_s * (burst - 1)
        self._halt = halt
        self._clock = clock
        self._due = clock()
        self._not_before = 0.0
        self._turn = asyncio.Lock()

    def cool_down(self, seconds: float) -> None:
        """Start nothing for so long."""
        if math.isfinite(seconds):
            pause = min(max(seconds, 0.0), LONGEST_PAUSE_S)
            self._not_before = max(self._not_before, self._clock() + pause)

    @property
    def free(self) -> bool:
        """Whether items may start as they come: there is no pace, and no pause was asked for."""
        return not self._interval and not self._not_before and not self._halt.is_set()

    async def acquire(self) -> bool:
        """Wait for a start; False when the run stopped first."""
        if not self._turn.locked() and self._wait() <= 0:
            return self._take()
        async with self._turn:
            while (wait := self._wait()) > 0:
                if await paused(wait, self._halt):
                    return False
            return self._take()

    def _wait(self) -> float:
        now = self._clock()
        return max(self._due - self._slack - now, self._not_before - now)

    def _take(self) -> bool:
        self._due = max(self._due, self._clock()) + self._interval
        return not self._halt.is_set()


async def paused(seconds: float, halt: asyncio.Event) -> bool:
    """Sleep; True when the run stopped meanwhile."""
    if not halt.is_set() and seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(halt.wait(), seconds)
    return halt.is_set()


def retry_after(error: Any) -> float | None:
    """
    Seconds that the other side asked to wait for.

    Reads `error.retry_after`, else the headers retry-after-ms and Retry-After (seconds or an HTTP date)
    of `error.response` (httpx, requests, openai, anthropic, botocore) or of the error (aiohttp, urllib).
    """
    try:
        given: Any = getattr(error, "retry_after", None)
        if given is None:
            headers = _headers(error)
            milliseconds = headers.get("retry-after-ms")
            given = (
                headers.get("retry-after") if milliseconds is None else float(milliseconds) / 1000
            )
        if given is None or isinstance(given, bool):
            return None
        try:
            seconds = float(given)
        except ValueError:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
    except Exception:
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE_S) if math.isfinite(seconds) else None


def _headers(error: Any) -> dict[str, Any]:
    """The headers of the answer that an error is about, in lower case."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        found = response.get("ResponseMetadata", {}).get("HTTPHeaders")
    else:
        found = getattr(error if response is None else response, "headers", None)
    return {} if found is None else {str(name).lower(): found[name] for name in found}
