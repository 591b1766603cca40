"""
What waits for delivery: entries, the queue in memory, and joining entries into bundles.

Everything here runs on one event loop and waits for nobody but its own events.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from collector.errors import Permanent, Retryable
from collector.model import Batch
from collector.sending_queue.config import Batching, Sizer


@dataclass(slots=True)
class Entry:
    """
    One request that waits for delivery.

    Args:
        batch: the request.
        items: spans, points or records in it.
        size: what the queue's sizer says.
        weight: what the sizer of `batch` says.
        number: its place in the durable log, None in memory.
        result: told how it ended, when somebody waits for that.
    """

    batch: Batch
    items: int
    size: int = 1
    weight: int = 1
    number: int | None = None
    result: "asyncio.Future[None] | None" = None


class MemoryQueue:
    """
    The queue in memory, bounded by the sum of its entries' sizes, including those in delivery.

    Args:
        capacity: how much may be in it.
        block: whether `put` waits for room.
    """

    def __init__(self, capacity: int, *, block: bool) -> None:
        self.capacity = capacity
        self.used = 0
        self.items = 0
        """Items that are not delivered."""
        self._block = block
        self._entries: deque[Entry] = deque()
        self._unsettled: dict[int, Entry] = {}  # in the order in which they came
        self._senders: deque[tuple[Entry, asyncio.Future[None]]] = deque()
        self._news = asyncio.Event()
        self._closed = False

    async def put(self, entry: Entry) -> None:
        """
        Add an entry.

        Raises:
            Retryable: there is no room now.
            Permanent: there never is.
        """
        if self._closed:
            raise Retryable("the sending queue is closed")
        if entry.size > self.capacity:
            raise Permanent(f"the request is larger than the sending queue ({self.capacity})")
        if self._senders or self.used + entry.size > self.capacity:
            if not self._block:
                raise Retryable("sending queue is full")
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = (entry, turn)
            self._senders.append(waiting)
            try:
                await turn
            except asyncio.CancelledError:
                if waiting in self._senders:
                    self._senders.remove(waiting)
                raise
            return
        self.add(entry)

    def add(self, entry: Entry) -> None:
        """Add an entry, whether or not there is room."""
        self.used += entry.size
        self.items += entry.items
        self._unsettled[id(entry)] = entry
        self._entries.append(entry)
        self._news.set()

    async def get(self) -> list[Entry]:
        """The next entry; empty when the queue is closed and nothing is left."""
        while not self._entries:
            if self._closed:
                return []
            self._news.clear()
            await self._news.wait()
        return [self._entries.popleft()]

    def settled(self, entry: Entry) -> None:
        """An entry is delivered or lost: there is room again."""
        if self._unsettled.pop(id(entry), None) is None:
            return
        self.used -= entry.size
        self.items -= entry.items
        while self._senders and self.used + self._senders[0][0].size <= self.capacity:
            following, turn = self._senders.popleft()
            if not turn.done():
                self.add(following)
                turn.set_result(None)

    @property
    def oldest_unix_nano(self) -> int | None:
        """When the oldest entry that is not delivered was received."""
        entry = next(iter(self._unsettled.values()), None)
        return None if entry is None else entry.batch.request.received_at_unix_nano

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True
        self._news.set()
        while self._senders:
            _, turn = self._senders.popleft()
            if not turn.done():
                turn.set_exception(Retryable("the sending queue is closed"))

    def rest(self) -> list[Entry]:
        """Everything that was not fetched."""
        entries = list(self._entries)
        self._entries.clear()
        return entries


@dataclass(slots=True)
class _Waiting:
    deadline: float
    entries: list[Entry] = field(default_factory=list)
    weight: int = 0


class Batcher:
    """
    Collects entries of one signal and tenant until there are enough.

    Args:
        config: None makes each entry a bundle of its own.
    """

    def __init__(self, config: Batching | None) -> None:
        self._config = config
        self._waiting: dict[tuple[str, str], _Waiting] = {}

    def add(self, entry: Entry, now: float) -> Iterator[list[Entry]]:
        """The bundles that this entry completes."""
        config = self._config
        if config is None:
            yield [entry]
            return
        key = (entry.batch.signal.value, entry.batch.request.tenant)
        waiting = self._waiting.get(key)
        if waiting and config.max_size and waiting.weight + entry.weight > config.max_size:
            yield self._waiting.pop(key).entries
            waiting = None
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now + config.flush_timeout)
        waiting.entries.append(entry)
        waiting.weight += entry.weight
        if waiting.weight >= config.min_size:
            yield self._waiting.pop(key).entries

    def due(self, now: float) -> Iterator[list[Entry]]:
        """The bundles that have waited long enough."""
        for key in [key for key, each in self._waiting.items() if each.deadline <= now]:
            yield self._waiting.pop(key).entries

    def wait_s(self, now: float) -> float | None:
        """How long until one is due; None when none waits."""
        deadlines = [each.deadline for each in self._waiting.values()]
        return max(0.0, min(deadlines) - now) if deadlines else None

    def rest(self) -> Iterator[list[Entry]]:
        """All that wait."""
        while self._waiting:
            yield self._waiting.popitem()[1].entries


def weigh(batch: Batch, items: int, sizer: Sizer) -> int:
    """How large a batch is in the unit of a sizer."""
    if sizer == "items":
        return items
    if sizer == "bytes":
        return len(batch.wire) if batch.wire is not None else int(batch.message.ByteSize())
    return 1
