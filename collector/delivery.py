"""
Queue, batching, retry and timeout around any exporter, with the OpenTelemetry Collector's keys.

    memory     sender -> bounded queue -> bundles -> attempts -> exporter
    durable    log, at the exporter's own cursor -> bundles -> attempts -> exporter
    neither    sender -> attempts -> exporter, while the sender waits

An attempt that fails for now is repeated with growing, random waits, never sooner than the other
side asks for; a durable queue never gives up unless told to. A request that is refused for good is
halved until the item that nobody takes stands alone: it becomes a dead letter, and its neighbours
are delivered. The cursor moves when a request is settled, which means delivered or kept as dead
letters; what is not settled at the end stays in the log.

Each exporter has a `Delivery` of its own. They share the log and nothing else, so the slowest of
them delays nobody.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

from collector._delivery_bundles import Bundler, Entry, Memory, weigh
from collector._delivery_letters import DeadLetters as DeadLetters
from collector._delivery_letters import Letter as Letter
from collector._delivery_letters import letters_path as letters_path
from collector._delivery_letters import read_letters as read_letters
from collector._delivery_parts import joined, part, parts, units
from collector.errors import CollectorError, Permanent, Retryable
from collector.model import Batch, Consume, Host
from collector.otlp import NOUNS, count, new_message
from collector.sending import Batching as Batching
from collector.sending import RetryOnFailure as RetryOnFailure
from collector.sending import Sending as Sending
from collector.sending import SendingQueue as SendingQueue
from collector.sending import Sizer
from collector.wal import Reader, Record, Wal

MEMORY_GIVES_UP_S: Final = 300.0
"""`max_elapsed_time` of queues in memory, as in the OpenTelemetry Collector."""
MAX_WINDOW: Final = 10_000
QUIET_S: Final = 60.0


class _Stopped(Exception):
    """The collector stops, and this request is not settled."""


class _GivenUp(Permanent):
    """It could have been taken later, but the configuration says not to try longer."""


class Delivery:
    """
    Delivers to one exporter.

    Args:
        host: of the exporter.
        consume: the exporter.
        sending: its queue, retry and timeout.
        wal: the durable log, when the queue is durable.
        reader: its place there.
        letters: where what it refuses for good is kept; without it that is dropped, and counted.
        merge: whether requests may be joined into one. Not for stores: see `SendingQueue.batch`.
        sleep: waits some seconds.
        clock: seconds.
        chance: a random number from 0 to 1.
    """

    def __init__(
        self,
        host: Host,
        consume: Consume,
        sending: Sending,
        *,
        wal: Wal | None = None,
        reader: Reader | None = None,
        letters: DeadLetters | None = None,
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
        self._consume = consume
        self._timeout_s = sending.timeout_s or None
        self._retry = sending.retry
        self._reader = reader
        self._letters = letters
        self._merge = merge
        self._sleep = sleep
        self._clock = clock
        self._chance = chance
        self._batching = queue.batch
        self._sizer: Sizer = queue.sizer
        self._window = min(queue.queue_size, MAX_WINDOW)
        self._memory: Memory | None = None
        if reader is None and sending.queue is not None:
            self._memory = Memory(queue.queue_size, block=queue.block_on_overflow)
        self._bundler = Bundler(queue.batch)
        self._slots = asyncio.Semaphore(queue.num_consumers)
        self._stopping = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._watched: dict[int, asyncio.Future[None]] = {}
        self._in_flight = 0
        self._quiet_until = 0.0

    # --- life cycle ---

    async def __aenter__(self) -> Self:
        """Start to deliver."""
        if self._reader is not None or self._memory is not None:
            self._dispatching = asyncio.create_task(self._dispatch_always())
        self._publish()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """
        Stop: waits between attempts end at once, attempts that run may end.

        A durable queue keeps the rest on disk. A queue in memory makes one attempt for each of its
        entries; what then fails, or is cut off by the deadline of the stop, is lost and counted.
        """
        self._stopping.set()
        try:
            if self._memory is not None:
                self._memory.close()
            elif self._dispatching is not None:
                self._dispatching.cancel()
            if self._dispatching is not None:
                await asyncio.wait({self._dispatching})
            if self._working:
                await asyncio.wait(set(self._working))
        finally:
            tasks = [task for task in (self._dispatching, *self._working) if task is not None]
            for task in tasks:
                task.cancel()
            if self._memory is not None:
                for bundle in (self._memory.rest(), *self._bundler.rest()):
                    self._lost(bundle, "shutdown")
            for watcher in self._watched.values():
                if not watcher.done():
                    watcher.set_exception(Retryable("the collector stops; send it again"))
                    watcher.exception()
            self._publish()

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
            await self._directly(batch, items)
            return
        entry = Entry(batch, items, weigh(batch, items, self._sizer), self._weight(batch, items))
        if self.waits:
            entry.result = asyncio.get_running_loop().create_future()
        try:
            await self._memory.put(entry)
        except CollectorError:
            self._count(f"otelcol_exporter_enqueue_failed_{NOUNS[batch.signal]}", items)
            raise
        finally:
            self._publish()
        if entry.result is not None:
            await asyncio.shield(entry.result)

    async def _directly(self, batch: Batch, items: int) -> None:
        noun = NOUNS[batch.signal]
        try:
            await self._attempt_until_known(batch)
        except _Stopped:
            self._count(f"otelcol_exporter_send_failed_{noun}", items)
            raise Retryable(f'exporter "{self.exporter}": the collector stops') from None
        except _GivenUp as error:
            self._count(f"otelcol_exporter_send_failed_{noun}", items)
            raise Retryable(f'exporter "{self.exporter}": {error}') from error
        except Permanent as error:
            self._count(f"otelcol_exporter_send_failed_{noun}", items)
            raise Permanent(f'exporter "{self.exporter}": {error}') from error
        self._count(f"otelcol_exporter_sent_{noun}", items)

    async def settled(self, number: int) -> None:
        """
        Wait until a record of the log is delivered, or kept as dead letters.

        Raises:
            Retryable: the collector stops before that.
        """
        if self._reader is None or self._reader.is_done(number):
            return
        if self._stopping.is_set():
            raise Retryable("the collector stops; send it again")
        watcher = self._watched.get(number)
        if watcher is None:
            watcher = asyncio.get_running_loop().create_future()
            self._watched[number] = watcher
        await asyncio.shield(watcher)

    # --- dispatching ---

    async def _dispatch_always(self) -> None:
        """Dispatch, also after a failure that should not be."""
        while True:
            try:
                await self._dispatch()
                return
            except _Stopped:
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
                wait_s = self._bundler.wait_s(self._clock())
                done, _ = await asyncio.wait({fetching}, timeout=wait_s)
                if done:
                    entries, fetching = fetching.result(), None
                    if not entries:
                        break
                    for entry in entries:
                        for bundle in self._bundler.add(entry, self._clock()):
                            await self._hand_out(bundle)
                for bundle in self._bundler.due(self._clock()):
                    await self._hand_out(bundle)
            if self._reader is None:
                for bundle in self._bundler.rest():
                    await self._hand_out(bundle)
        finally:
            if fetching is not None:
                fetching.cancel()

    async def _fetch(self) -> list[Entry]:
        """The next entries; empty when there are no more."""
        if self._reader is None:
            return await self._memory.get() if self._memory is not None else []
        entries: list[Entry] = []
        while not entries:
            try:
                records = await self._reader.read(self._window)
            except OSError as error:
                self._report("cannot read the queue: %s", error)
                await self._sleep(5.0)
                continue
            if not records:
                return []
            entries, broken = await asyncio.to_thread(self._entries, records)
            for record in broken:
                batch = Batch(
                    record.signal, new_message(record.signal), record.request, record.payload
                )
                await self._bury(batch, record.items, Permanent("it cannot be decoded any more"))
                self._reader.done([record.number])
        return entries

    def _entries(self, records: Sequence[Record]) -> tuple[list[Entry], list[Record]]:
        """Records as entries, and those that cannot be decoded; runs in a thread."""
        entries, broken = [], []
        for record in records:
            message = new_message(record.signal)
            try:
                message.ParseFromString(record.payload)
            except Exception:
                broken.append(record)
                continue
            batch = Batch(record.signal, message, record.request, record.payload)
            weight = self._weight(batch, record.items)
            entries.append(Entry(batch, record.items, weight=weight, number=record.number))
        return entries, broken

    def _weight(self, batch: Batch, items: int) -> int:
        return weigh(batch, items, self._batch_sizer) if self._batching is not None else 1

    @property
    def _batch_sizer(self) -> Sizer:
        own = self._batching.sizer if self._batching is not None else ""
        return own or ("items" if self._sizer == "requests" else self._sizer)

    async def _hand_out(self, bundle: list[Entry]) -> None:
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            self._lost(bundle, "shutdown")
            raise
        task = asyncio.create_task(self._work(bundle))
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
            limit = self._batching.max_size if self._batching is not None else 0
            sizer = self._batch_sizer
            error = await self._each(list(parts(batch, limit, sizer)) if limit else [batch])
        except _Stopped:
            if self._reader is not None:
                return  # it stays in the log
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
        """Entries of a queue in memory that nobody delivers any more."""
        if self._reader is None:
            for entry in entries:
                self._drop(entry.batch, entry.items, reason)
                self._settle(entry, Retryable("the collector stopped"))

    async def _each(self, batches: Sequence[Batch]) -> Exception | None:
        """Deliver several batches; one that is stopped does not take the others with it."""
        error: Exception | None = None
        stopped: _Stopped | None = None
        for batch in batches:
            try:
                error = await self._deliver(batch) or error
            except _Stopped as stop:
                if self._reader is not None:
                    raise
                stopped = stop
        if stopped is not None:
            raise stopped
        return error

    def _settle(self, entry: Entry, error: Exception | None) -> None:
        """An entry is delivered, kept as dead letters, or (in memory) lost."""
        if entry.number is not None and self._reader is not None:
            self._reader.done([entry.number])
            watcher = self._watched.pop(entry.number, None)
            if watcher is not None and not watcher.done():
                watcher.set_result(None)
        if self._memory is not None:
            self._memory.settled(entry)
        if entry.result is not None and not entry.result.done():
            if error is None:
                entry.result.set_result(None)
            else:
                entry.result.set_exception(error)
                entry.result.exception()  # the sender may have stopped waiting

    # --- delivering ---

    async def _deliver(self, batch: Batch) -> Exception | None:
        """
        Deliver a batch, or find what of it cannot be delivered.

        Returns:
            Why a part of it was not delivered, None when all of it was.

        Raises:
            _Stopped: the collector stops, and it is not settled.
        """
        noun = NOUNS[batch.signal]
        items = count(batch.signal, batch.message)
        try:
            await self._attempt_until_known(batch)
        except _Stopped:
            if self._memory is not None:
                self._drop(batch, items, "shutdown")
            raise
        except Permanent as error:
            size = units(batch)
            if size > 1 and not isinstance(error, _GivenUp):
                middle = size // 2
                return await self._each([part(batch, 0, middle), part(batch, middle, size)])
            await self._bury(batch, items, error)
            return error
        self._count(f"otelcol_exporter_sent_{noun}", items)
        return None

    async def _bury(self, batch: Batch, items: int, error: Permanent) -> None:
        """Keep a batch that is refused for good; without a place for it, it is dropped."""
        reason = "expired" if isinstance(error, _GivenUp) else "refused"
        if self._letters is None:
            self._drop(batch, items, reason)
            self._report("Exporting failed. Dropping data: %s", error)
            return
        while True:
            try:
                await self._letters.add(batch, str(error) or type(error).__name__)
                break
            except Retryable as full:
                self._count("otelier_dead_letters_blocked")
                self._report("the queue stands still: %s", full)
                await self._pause(full.delay_s)
        self._count(f"otelcol_exporter_send_failed_{NOUNS[batch.signal]}", items)
        self._count("otelier_exporter_dead_letters", items, reason=reason)
        self._report("Exporting failed; the data is kept in the dead letters: %s", error)

    def _drop(self, batch: Batch, items: int, reason: str) -> None:
        self._count(f"otelcol_exporter_send_failed_{NOUNS[batch.signal]}", items)
        self._count("otelier_exporter_dropped_items", items, reason=reason)

    async def _attempt_until_known(self, batch: Batch) -> None:
        """
        Call the exporter until it takes the batch or refuses it for good.

        Raises:
            Permanent: refused for good; `_GivenUp` when the configuration ends the attempts.
            _Stopped: the collector stops.
        """
        retry = self._retry
        began = self._clock()
        interval = float(retry.initial_interval) if retry is not None else 0.0
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._consume(batch)
                return
            except Permanent:
                self._count("otelier_exporter_failed_attempts", kind="permanent")
                raise
            except Exception as error:
                self._count("otelier_exporter_failed_attempts", kind="retryable")
                reason = self._words(error)
                asked_s = error.delay_s if isinstance(error, Retryable) else 0.0
            if self._stopping.is_set():
                raise _Stopped
            if retry is None or not retry.enabled:
                raise _GivenUp(f"{reason} (retry_on_failure is off)")
            spread = retry.randomization_factor
            delay_s = interval * (1 - spread + 2 * spread * self._chance())
            delay_s = max(delay_s, asked_s)
            interval = min(interval * retry.multiplier, float(retry.max_interval))
            patience_s = self._patience_s(retry)
            if patience_s and self._clock() - began + delay_s > patience_s:
                raise _GivenUp(f"{reason} (max_elapsed_time of {patience_s:g}s is over)")
            self._report("Exporting failed. Will retry the request after interval: %s", reason)
            await self._pause(delay_s)

    def _patience_s(self, retry: RetryOnFailure) -> float:
        if retry.max_elapsed_time is not None:
            return float(retry.max_elapsed_time)
        return 0.0 if self._reader is not None else MEMORY_GIVES_UP_S

    def _words(self, error: Exception) -> str:
        if isinstance(error, CollectorError):
            return str(error)
        if isinstance(error, TimeoutError) and self._timeout_s:
            return f"no answer within {self._timeout_s:g}s"
        return f"{type(error).__name__}: {error}"

    async def _pause(self, delay_s: float) -> None:
        """
        Wait, unless the collector stops.

        Raises:
            _Stopped: it does.
        """
        sleeping = asyncio.ensure_future(self._sleep(delay_s))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({sleeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopping.cancel()
        if self._stopping.is_set():
            raise _Stopped

    # --- numbers ---

    def _count(self, name: str, amount: int = 1, **attributes: str) -> None:
        self._host.stats.add(name, amount, exporter=self.exporter, **attributes)

    def _publish(self) -> None:
        gauge = self._host.stats.set
        gauge("otelcol_exporter_in_flight_requests", self._in_flight, exporter=self.exporter)
        if self._memory is not None:
            gauge("otelcol_exporter_queue_size", self._memory.used, exporter=self.exporter)
            gauge("otelcol_exporter_queue_capacity", self._memory.capacity, exporter=self.exporter)

    def _report(self, text: str, *values: object) -> None:
        """One log line a minute at most."""
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_S
            self._host.log.warning(text, *values)


class DurableFanOut:
    """
    The branch of a pipeline that stands for all its exporters with a durable queue.

    Args:
        wal: the log.
        route: the id of the pipeline.
        deliveries: of these exporters; the answer waits for those with `wait_for_result`.
    """

    def __init__(self, wal: Wal, route: str, deliveries: Sequence[Delivery] = ()) -> None:
        self._wal = wal
        self._route = route
        self._waits = tuple(each for each in deliveries if each.waits)

    async def __call__(self, batch: Batch) -> None:
        """
        Append a batch to the log; it is on disk when this returns.

        Raises:
            Retryable: it is not.
        """
        items = count(batch.signal, batch.message)
        number = await self._wal.append(batch, self._route, items)
        if number is not None:
            for delivery in self._waits:
                await delivery.settled(number)


async def durable(
    host: Host,
    consume: Consume,
    sending: Sending,
    wal: Wal,
    routes: Sequence[str],
    *,
    merge: bool = True,
) -> Delivery:
    """
    A `Delivery` from a durable log, not started yet.

    Args:
        host: of the exporter.
        consume: the exporter.
        sending: with a queue that has `storage`.
        wal: that storage, open.
        routes: the pipelines that have the exporter.
        merge: see `Delivery`.
    """
    start = sending.queue.start if sending.queue is not None else "now"
    reader = await wal.reader(host.id, routes, start)
    letters = DeadLetters(wal.folder, host.id, wal.config.dead_letter_bytes, wal.files)
    return Delivery(host, consume, sending, wal=wal, reader=reader, letters=letters, merge=merge)
