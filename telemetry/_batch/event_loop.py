"""
What a run does about the event loop that all its coroutines share.

`Stagger`: items that began together end together. If all workers then took their next items in one
turn of the loop, no item would begin before the last of them was prepared, and all would end together
again. So they go one after the other: the first item runs while the second is prepared, and soon
they are spread. A worker that comes alone goes on at once. A turn of the loop has its own price: this
pays where items have spans, which take time to start, and not without.

`LoopWatch`: a handler that blocks the loop stops every other item, and all their timers fire late.
Only another thread can see where it stands meanwhile, so one asks the loop for a sign of life a few
times a second, and looks at the loop's stack when there is none.
"""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Final

EVERY_S: Final = 0.2
LATE_S: Final = 0.2
"""A loop that gives no sign of life for so long is blocked."""


class Stagger:
    """Lets one worker through in each turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def wait(self) -> None:
        """Wait for a turn."""
        if self._taken:
            coming = self._loop.create_future()
            self._waiting.append(coming)
            await coming
        else:
            self._taken = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._taken = bool(self._waiting)
        if self._taken:
            coming = self._waiting.popleft()
            if not coming.done():
                coming.set_result(None)
            self._loop.call_soon(self._next)


class LoopWatch:
    """
    Notices when the running event loop is blocked.

    Args:
        blocked: called from the watching thread with the loop's innermost frame, once each time.
    """

    def __init__(self, blocked: Callable[[FrameType], None]) -> None:
        self._blocked = blocked
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._ended = threading.Event()
        self._alive = threading.Event()
        threading.Thread(target=self._watch, name="batch loop watch", daemon=True).start()

    def close(self) -> None:
        """Watch no longer."""
        self._ended.set()
        self._alive.set()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._alive.clear()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:
                return  # the loop is closed
            if self._alive.wait(LATE_S) or self._ended.is_set():
                continue
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the documented way
            if frame is not None:
                self._blocked(frame)
            del frame  # it would keep the handler's values
            self._alive.wait()
