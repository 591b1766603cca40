"""
Who begins next, when many items have ended in the same turn of the event loop.

Items that began together end together. If all workers then took their next items in one turn of the
loop, no item would begin before the last of them was prepared, and all would end together again. So
they go one after the other: the first item runs while the second is prepared, and soon they are
spread. A worker that comes alone goes on at once. A turn of the loop has its own price: this pays
where items have spans, which take time to start, and not without.
"""

import asyncio
from collections import deque


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
