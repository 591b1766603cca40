"""
What a queue has taken in and is not done with: the records, and the numbers that go with them.

Threads of the application add, the queue's thread takes away, and the report reads; the numbers must
agree at each moment, so every call is made with the queue's lock held.
"""

import time
from collections import deque
from typing import Any, Final

ARRIVALS_S: Final = 0.01


class Buffer:
    """
    Records that wait, and counts; call its methods with the queue's lock held.

    Args:
        batch_size: how many records go in one request.
    """

    __slots__ = (
        "_batch_size",
        "arrivals",
        "asked",
        "bytes",
        "closing",
        "items",
        "produced",
        "queue",
        "running",
    )

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.queue: deque[tuple[Any, int]] = deque()
        self.arrivals: deque[tuple[int, float]] = deque()
        """(asked before, when), at least 10 ms apart."""
        self.items = 0
        """Queued, in flight or being written to the spool."""
        self.bytes = 0
        self.produced = 0
        self.asked = 0
        """What was taken in; flush compares it with what of it is done with."""
        self.closing = False
        self.running = False
        """Whether there is a thread that takes records away."""

    def add(self, item: object, size: int) -> int:
        """Take a record; how many wait now, if the thread has to know it, else 0."""
        self.queue.append((item, size))
        now = time.monotonic()
        if not self.arrivals or now - self.arrivals[-1][1] >= ARRIVALS_S:
            self.arrivals.append((self.asked, now))
        self.produced += 1
        self.items += 1
        self.bytes += size
        self.asked += 1
        waiting = len(self.queue)
        return waiting if waiting in (1, self._batch_size) or not self.running else 0

    def refuse(self) -> None:
        """Count a record that is not taken."""
        self.produced += 1

    def settle(self, items: int, size: int) -> None:
        """Records are done with."""
        self.items -= items
        self.bytes -= size

    def counts(self) -> tuple[int, int]:
        """What was produced, and what of it is here."""
        return self.produced, self.items
