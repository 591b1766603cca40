"""
What a courier has taken in and is not done with: the queue, and the numbers that go with it.

Threads of the application add, the courier's thread takes away, and the ledger reads; the numbers
must agree at each moment. Here that is a matter of the courier's lock. The native core
(`_core_intake.h`) has the same object with a `put` of its own: it appends and counts in one step
that no other thread can see half of, and takes no lock. It asks the courier about everything else:
a record that may have no room, a forked process, a spool, a thread that waits for a record.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from telemetry import _native

ARRIVALS_S: Final = 0.01
NATIVE: Final = getattr(_native.core, "Intake", None)


class Intake:
    """
    Records that wait, and counts; call its methods with the courier's lock held.

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


def made(
    courier: Any,
    put: Callable[..., None],
    notice: Callable[[int], None],
    room: tuple[int, int, int],
) -> Intake:
    """
    The intake of a courier in this process.

    Args:
        courier: gets the native `put` as its own, where there is one.
        put: the courier's own.
        notice: told how many records wait when the thread has to know.
        room: up to so many items and bytes, with so many bytes each, nothing is refused; no items
            when the courier wants to see every record.
    """
    if NATIVE is None:
        return Intake(courier.batch_size)
    native: Any = NATIVE(put, notice, courier.batch_size, *room)
    vars(courier)["put"] = native.put
    found: Intake = native  # what this class has, and `put`
    return found
