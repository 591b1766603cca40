"""
What waits for delivery: in memory, or in the durable log at the exporter's own cursor.

Both give entries in the order in which they came, and keep an entry until it is settled: delivered,
kept as a dead letter, or lost. Everything here runs on one event loop and waits for its own events
only; what is read from the log is decoded in a thread.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from collector.errors import Permanent, Retryable
from collector.model import Batch
from collector.otlp import new_message
from collector.sending_queue.config import Sizer
from collector.sending_queue.retry import RetrySender
from collector.wal.storage import Reader, Record


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
        result: how it ended, when its client waits for that.
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

    def publish(self, gauge: Callable[[str, int], None]) -> None:
        """Show how full it is, and how old its oldest entry."""
        gauge("otelcol_exporter_queue_size", self.used)
        gauge("otelcol_exporter_queue_capacity", self.capacity)
        gauge("otelier_exporter_lag_items", self.items)
        oldest = self.oldest_unix_nano
        age = 0 if oldest is None else max(0, time.time_ns() - oldest) // 10**9
        gauge("otelier_exporter_oldest_unsent_seconds", age)

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


class LogQueue:
    """
    The records of the durable log that an exporter has to deliver.

    Args:
        reader: the exporter's place in the log.
        window: how far reading may be ahead of what is settled.
        weigh: the weight of a request for the batcher.
        retry_sender: keeps what cannot be decoded any more as dead letters.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        reader: Reader,
        window: int,
        weigh: Callable[[Batch, int], int],
        retry_sender: RetrySender,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._reader = reader
        self._window = window
        self._weigh = weigh
        self._retry_sender = retry_sender
        self._sleep = sleep
        self._watched: dict[int, asyncio.Future[None]] = {}

    async def get(self) -> list[Entry]:
        """The next entries; empty when the log is closed."""
        entries: list[Entry] = []
        while not entries:
            try:
                records = await self._reader.read(self._window)
            except OSError as error:
                self._retry_sender.report("cannot read the queue: %s", error)
                await self._sleep(5.0)
                continue
            if not records:
                return []
            entries, broken = await asyncio.to_thread(self._decode, records)
            for record in broken:
                message = new_message(record.signal)
                batch = Batch(record.signal, message, record.request, record.payload)
                reason = Permanent("it cannot be decoded any more")
                await self._retry_sender.bury(batch, record.items, reason)
                self.settled(record.number)
        return entries

    def _decode(self, records: Sequence[Record]) -> tuple[list[Entry], list[Record]]:
        entries, broken = [], []
        for record in records:
            message = new_message(record.signal)
            try:
                message.ParseFromString(record.payload)
            except Exception:
                broken.append(record)
                continue
            batch = Batch(record.signal, message, record.request, record.payload)
            weight = self._weigh(batch, record.items)
            entries.append(Entry(batch, record.items, weight=weight, number=record.number))
        return entries, broken

    def settled(self, number: int) -> None:
        """A record is delivered, or kept as dead letters."""
        self._reader.done([number])
        watcher = self._watched.pop(number, None)
        if watcher is not None and not watcher.done():
            watcher.set_result(None)

    async def wait(self, number: int, *, stopping: bool) -> None:
        """
        Wait until a record is settled.

        Raises:
            Retryable: the collector stops before that.
        """
        if self._reader.is_done(number):
            return
        if stopping:
            raise Retryable("the collector stops; send it again")
        watcher = self._watched.get(number)
        if watcher is None:
            watcher = asyncio.get_running_loop().create_future()
            self._watched[number] = watcher
        await asyncio.shield(watcher)

    def stop(self) -> None:
        """End all waits: what is not settled stays in the log."""
        for watcher in self._watched.values():
            if not watcher.done():
                watcher.set_exception(Retryable("the collector stops; send it again"))
                watcher.exception()


def weigh(batch: Batch, items: int, sizer: Sizer) -> int:
    """How large a batch is in the unit of a sizer."""
    if sizer == "items":
        return items
    if sizer == "bytes":
        return len(batch.wire) if batch.wire is not None else int(batch.message.ByteSize())
    return 1
