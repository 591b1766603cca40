"""
Queue and batching around any exporter, with the OpenTelemetry Collector's keys.

    memory     pipeline -> MemoryQueue -> Batcher -> RetrySender -> exporter
    durable    log, at the exporter's own cursor -> LogQueue -> Batcher -> RetrySender -> exporter
    neither    pipeline -> RetrySender -> exporter, while the client waits

Attempts, retries and what is rejected are in sending_queue/retry.py. The cursor moves when a
request is settled, which means delivered or kept as dead letters; what is not settled at the end
stays in the log.

Each exporter has a `QueueSender` of its own. They share the log and nothing else, so the slowest of
them delays no other. When the configuration is read again, one `QueueSender` takes over what another
leaves: from the log by its cursor, from memory by `give_back` and `take_over`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Self

from collector.errors import CollectorError, Retryable
from collector.model import Batch, Consume, Host
from collector.otlp import NOUNS, count
from collector.sending_queue.batcher import Batcher
from collector.sending_queue.config import Batching as Batching
from collector.sending_queue.config import ExporterSettings as ExporterSettings
from collector.sending_queue.config import RetryOnFailure as RetryOnFailure
from collector.sending_queue.config import SendingQueue as SendingQueue
from collector.sending_queue.config import Sizer
from collector.sending_queue.dead_letters import DeadLetter as DeadLetter
from collector.sending_queue.dead_letters import DeadLetters as DeadLetters
from collector.sending_queue.dead_letters import dead_letters_path as dead_letters_path
from collector.sending_queue.dead_letters import read_dead_letters as read_dead_letters
from collector.sending_queue.queue import Entry as Entry
from collector.sending_queue.queue import LogQueue, MemoryQueue, weigh
from collector.sending_queue.retry import RetrySender, Stopped
from collector.sending_queue.split import joined, parts
from collector.wal.storage import FileStorage, Reader

MAX_WINDOW: Final = 10_000
PATIENCE_S: Final = 1.0
"""How long attempts may go on at the stop when the disk has what they carry."""


class QueueSender:
    """
    Delivers to one exporter.

    Args:
        host: of the exporter.
        consume: the exporter.
        sending: its queue, retry and timeout.
        wal: the durable log, when the queue is durable.
        reader: its place there.
        dead_letters: where what it rejects is kept; without it that is dropped, and counted.
        merge: whether requests may be joined into one. Not for stores: see `SendingQueue.batch`.
        sleep: waits some seconds.
        clock: seconds.
        chance: a random number from 0 to 1.
    """

    def __init__(
        self,
        host: Host,
        consume: Consume,
        sending: ExporterSettings,
        *,
        wal: FileStorage | None = None,
        reader: Reader | None = None,
        dead_letters: DeadLetters | None = None,
        merge: bool = True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        queue = sending.queue or SendingQueue()
        self.exporter = host.id
        self.wal = wal
        self.waits = queue.wait_for_result
        self._host = host
        self._merge = merge
        self._sleep = sleep
        self._clock = clock
        self._sizer: Sizer = queue.sizer
        self._batcher = Batcher(queue.batch, queue.sizer, merge=merge)
        self._memory: MemoryQueue | None = None
        if reader is None and sending.queue is not None:
            self._memory = MemoryQueue(queue.queue_size, block=queue.block_on_overflow)
        self._slots = asyncio.Semaphore(queue.num_consumers)
        self._retry_sender = RetrySender(
            host,
            consume,
            sending,
            dead_letters,
            durable=reader is not None,
            sleep=sleep,
            clock=clock,
            chance=chance,
        )
        self._durable: LogQueue | None = None
        if reader is not None:
            window = min(queue.queue_size, MAX_WINDOW)
            self._durable = LogQueue(
                reader, window, self._batcher.weight, self._retry_sender, sleep
            )
        self._left: list[Entry] | None = None  # not None: given back, instead of lost
        self._dispatching: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._in_flight = 0

    # --- life cycle ---

    async def __aenter__(self) -> Self:
        """Start to deliver."""
        self._host.stats.watch(self._publish)
        if self._durable is not None or self._memory is not None:
            self._dispatching = asyncio.create_task(self._dispatch_always())
        self._publish()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """
        Stop: waits between attempts end at once, attempts that run may end.

        A durable queue keeps the rest on disk, also what an attempt carries that does not end within
        a second: nothing is gained by waiting for another side that hangs. A queue in memory makes one attempt for each of its
        entries; what then fails, or is cut off by the deadline of the stop, is lost and counted.
        """
        self._retry_sender.stopping.set()
        try:
            if self._memory is not None:
                self._memory.close()
            if self._dispatching is not None and (self._memory is None or self._left is not None):
                self._dispatching.cancel()
            if self._dispatching is not None:
                await asyncio.wait({self._dispatching})
            if self._working:
                patience_s = PATIENCE_S if self._durable is not None else None
                await asyncio.wait(set(self._working), timeout=patience_s)
        finally:
            tasks = [task for task in (self._dispatching, *self._working) if task is not None]
            for task in tasks:
                task.cancel()
            if self._durable is not None:
                await asyncio.gather(*tasks, return_exceptions=True)
            if self._memory is not None:
                self._batcher.flush()
                while self._batcher.ready:
                    self._lost(self._batcher.next(), "shutdown")
                self._lost(self._memory.rest(), "shutdown")
            if self._durable is not None:
                self._durable.stop()
            self._publish()
            self._host.stats.unwatch(self._publish)

    def give_back(self) -> list[Entry]:
        """
        Lose nothing at the stop: what a queue in memory holds is then for another to `take_over`.

        Returns:
            Where it will be found when this has stopped.
        """
        self._left = []
        self._retry_sender.kept = True
        return self._left

    async def take_over(self, entries: Sequence[Entry]) -> None:
        """
        Deliver what another `QueueSender` to this exporter gave back, whatever the queue's size is.

        Raises:
            Retryable: the durable log does not take it.
        """
        for entry in entries:
            batch, items = entry.batch, entry.items
            if self._memory is not None:
                entry.size = weigh(batch, items, self._sizer)
                entry.weight = self._batcher.weight(batch, items)
                self._memory.add(entry)
            elif self.wal is not None:
                await self.wal.append(batch, f"@{self.exporter}", items, again=True)

    # --- taking ---

    async def __call__(self, batch: Batch) -> None:
        """
        Take a batch from a pipeline; not used when the queue is durable (see `DurableFanOut`).

        Raises:
            Retryable: the queue is full or closed, or the exporter did not take it.
            Permanent: it can never be taken.
        """
        items = count(batch.signal, batch.message)
        if self._memory is None:
            await self._retry_sender.directly(batch, items)
            return
        entry = Entry(
            batch, items, weigh(batch, items, self._sizer), self._batcher.weight(batch, items)
        )
        if self.waits:
            entry.result = asyncio.get_running_loop().create_future()
        try:
            await self._memory.put(entry)
        except CollectorError:
            self._retry_sender.count(
                f"otelcol_exporter_enqueue_failed_{NOUNS[batch.signal]}", items
            )
            raise
        finally:
            self._publish()
        if entry.result is not None:
            await asyncio.shield(entry.result)

    async def settled(self, number: int) -> None:
        """
        Wait until a record of the log is delivered, or kept as dead letters.

        Raises:
            Retryable: the collector stops before that.
        """
        if self._durable is not None:
            await self._durable.wait(number, stopping=self._retry_sender.stopping.is_set())

    # --- dispatching ---

    async def _dispatch_always(self) -> None:
        """Dispatch, also after a failure that should not be."""
        while True:
            try:
                await self._dispatch()
                return
            except Stopped:
                return
            except Exception:
                self._host.log.exception("the queue failed in a way that it should not")
                await self._sleep(1.0)

    async def _dispatch(self) -> None:
        """Fetch, bundle, and hand out to at most `num_consumers` tasks."""
        fetching: asyncio.Task[list[Entry]] | None = None
        try:
            while True:
                fetching = fetching or asyncio.create_task(self._fetch())
                wait_s = self._batcher.wait_s(self._clock())
                done, _ = await asyncio.wait({fetching}, timeout=wait_s)
                if done:
                    entries, fetching = fetching.result(), None
                    if not entries:
                        break
                    for entry in entries:
                        self._batcher.add(entry, self._clock())
                self._batcher.due(self._clock())
                await self._hand_out()
            if self._durable is None:
                self._batcher.flush()
                await self._hand_out()
        finally:
            if fetching is not None and not fetching.cancel() and not fetching.exception():
                for entry in fetching.result():
                    self._batcher.add(entry, self._clock())

    async def _fetch(self) -> list[Entry]:
        """The next entries; empty when there are no more."""
        if self._durable is not None:
            return await self._durable.get()
        return await self._memory.get() if self._memory is not None else []

    async def _hand_out(self) -> None:
        """Start to deliver what is ready, as soon as there is a slot for it."""
        while self._batcher.ready:
            await self._slots.acquire()
            task = asyncio.create_task(self._work(self._batcher.next()))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def _work(self, bundle: list[Entry]) -> None:
        self._in_flight += 1
        try:
            self._publish()
            if self._merge:
                await self._work_on(bundle)
            else:
                await asyncio.gather(*(self._work_on([entry]) for entry in bundle))
        finally:
            self._in_flight -= 1
            self._slots.release()
            self._publish()

    async def _work_on(self, entries: Sequence[Entry]) -> None:
        """Deliver entries as one request, or in parts; they are settled together."""
        try:
            batch = joined([entry.batch for entry in entries])
            limit, sizer = self._batcher.max_size, self._batcher.sizer
            error = await self._retry_sender.each(
                list(parts(batch, limit, sizer)) if limit else [batch]
            )
        except Stopped:
            if self._durable is not None:
                return  # it stays in the log
            if self._left is not None:
                self._left += entries
                return
            error = Retryable("the collector stopped")
        except asyncio.CancelledError:
            self._lost(entries, "shutdown")
            raise
        except Exception:
            self._host.log.exception("the delivery failed in a way that it should not")
            self._lost(entries, "failed")
            return  # in the log, it is delivered after a restart
        for entry in entries:
            self._settle(entry, error)

    def _lost(self, entries: Sequence[Entry], reason: str) -> None:
        """Entries of a queue in memory that this `QueueSender` does not deliver any more."""
        if self._left is not None:
            self._left += entries
            return
        if self._durable is None:
            for entry in entries:
                self._retry_sender.drop(entry.batch, entry.items, reason)
                self._settle(entry, Retryable("the collector stopped"))

    def _settle(self, entry: Entry, error: Exception | None) -> None:
        """An entry is delivered, kept as dead letters, or (in memory) lost."""
        if entry.number is not None and self._durable is not None:
            self._durable.settled(entry.number)
        if self._memory is not None:
            self._memory.settled(entry)
        if entry.result is not None and not entry.result.done():
            if error is None:
                entry.result.set_result(None)
            else:
                entry.result.set_exception(error)
                entry.result.exception()  # the sender may have stopped waiting

    # --- numbers ---

    def _publish(self) -> None:
        gauge = self._host.stats.set
        gauge("otelcol_exporter_in_flight_requests", self._in_flight, exporter=self.exporter)
        if self._memory is not None:
            self._memory.publish(partial(gauge, exporter=self.exporter))


class DurableFanOut:
    """
    The branch of a pipeline that stands for all its exporters with a durable queue.

    Args:
        wal: the log.
        route: the id of the pipeline.
        senders: of these exporters; the answer waits for those with `wait_for_result`.
    """

    def __init__(self, wal: FileStorage, route: str, senders: Sequence[QueueSender] = ()) -> None:
        self.wal = wal
        self.senders = tuple(senders)
        self._route = route

    async def __call__(self, batch: Batch) -> None:
        """
        Append a batch to the log; it is on disk when this returns.

        Raises:
            Retryable: it is not.
        """
        items = count(batch.signal, batch.message)
        number = await self.wal.append(batch, self._route, items)
        if number is not None:
            for sender in self.senders:
                if sender.waits:
                    await sender.settled(number)


async def durable(
    host: Host,
    consume: Consume,
    sending: ExporterSettings,
    wal: FileStorage,
    routes: Sequence[str],
    *,
    merge: bool = True,
) -> QueueSender:
    """
    A `QueueSender` from a durable log, not started yet.

    Args:
        host: of the exporter.
        consume: the exporter.
        sending: with a queue that has `storage`.
        wal: that storage, open.
        routes: the pipelines that have the exporter.
        merge: see `QueueSender`.
    """
    start = sending.queue.start if sending.queue is not None else "now"
    reader = await wal.reader(host.id, routes, start)
    dead_letters = DeadLetters(wal.folder, host.id, wal.config.dead_letter_bytes, wal.files)
    return QueueSender(
        host, consume, sending, wal=wal, reader=reader, dead_letters=dead_letters, merge=merge
    )
