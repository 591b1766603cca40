"""
From an emitted record to the collector: one `ExportQueue` per signal, with its queue, thread and ledger.

`put` is what the application pays for: an append, and a few counts (`_buffer`). A daemon thread, started by the
first record in each process, takes batches and hands them to an `Export`. Nothing is thrown away
while there is room: an unreachable collector is tried again with growing pauses (the only retry
layer), and the queue absorbs the outage. When the queue is full, by items or by bytes, the newest
record is dropped, because the beginning of a story explains more than its end; the last eighth of
the room is kept for errors.

Every record is in exactly one column of the ledger:
produced = exported + spooled + dropped + pending.

With a spool (`SpoolProtocol`), what would be lost goes to disk instead: the oldest records of a queue that is
three quarters full, and what is here when the time at exit is up. A batch is then encoded once, so
that whoever sends it again sends the same bytes. In write-through mode each record is on disk before
`put` returns, for processes that are killed without a word.

Forks: a child starts empty, with a new lock, thread and connection, noticed by a fork hook and by
pid (uWSGI runs no fork hooks). What was queued belongs to the parent; the child's copy is counted
as `fork_discard`. The lock is re-entrant, as a signal handler may log while its thread holds it.
"""

import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from telemetry import _diagnostics, _otel_context, _values
from telemetry._export.buffer import Buffer
from telemetry._export.drop_reasons import (
    CONVERSION_ERROR,
    EXPORT_FAILED,
    FORK_DISCARD,
    QUEUE_FULL,
    SHUTDOWN,
    TOO_LARGE,
)
from telemetry._export.result import (
    Batch,
    Export,
    Outcome,
    Resendable,
    Result,
    Spooled,
    SpoolProtocol,
)
from telemetry._native import process_id

__all__ = [
    "Export",
    "ExportQueue",
    "Outcome",
    "Result",
]

FIRST_DELAY_S: Final = 0.1
ITEM_BYTES: Final = 1024 * 1024
BATCH_BYTES: Final = 1024 * 1024
PAUSE_S: Final = (0.5, 30.0)
RETRY_AFTER_S: Final = 60.0


class ExportQueue:
    """
    Queue, thread and ledger of one signal.

    Args:
        signal: traces, metrics or logs.
        make_export: makes the Export, in the thread, once per process.
        queue_size: how many records may wait.
        queue_bytes: how many bytes of records may wait.
        batch_size: how many records go in one request.
        delay_s: how long a record waits for company.
        timeout_s: how long one request may take.
        started: called after the thread of this process was started.
        spool: where records go that cannot be sent in time.
    """

    def __init__(
        self,
        signal: str,
        make_export: Callable[[], Export],
        *,
        queue_size: int = 2048,
        queue_bytes: int = 8 * 1024 * 1024,
        batch_size: int = 512,
        delay_s: float = 1.0,
        timeout_s: float = 10.0,
        started: Callable[[], None] | None = None,
        spool: SpoolProtocol | None = None,
    ) -> None:
        self.signal = signal
        self._make_export = make_export
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self.batch_size = min(batch_size, queue_size)
        self._delay_s = delay_s
        self._timeout_s = timeout_s
        self._started = started
        self._spool = spool
        self.prepare: Callable[[list[Any]], list[Any]] | None = None
        """Done to records, in whichever thread, before anything encodes or exports them."""
        self.troubled: Callable[[], None] | None = None
        """Told, in the thread, when this process has lost or spooled something; once."""
        self.delivered: Callable[[str, float], None] | None = None
        """Told after a delivery: the signal, and the seconds since its oldest record came."""
        self._reset(0)
        _queues.add(self)

    def _reset(self, inherited: int) -> None:
        """Begin with nothing, in a new process."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._buffer = Buffer(self.batch_size)
        self._queue: deque[tuple[Any, int]] = self._buffer.queue
        self._flight: list[Batch] = []  # with the thread; the last one is being sent
        self._shedding: list[Batch] = []  # with the spool's thread
        self._due = 0.0
        self._thread: threading.Thread | None = None
        self._settled = 0  # what of that which was taken in is done with
        self._ticket = 0
        self._flushes = 0
        self._tries = 0
        self._failed_try = 0
        self._closing = False
        self._abandoned = False
        self._ended = False
        self._told = False
        self._close_deadline = 0.0
        self._final_deadline = 0.0
        self._buffer.produced = inherited
        self.exported = 0
        self.spooled = 0  # and still is
        self._kept = 0  # ever spooled
        self.dropped: dict[str, int] = {FORK_DISCARD: inherited} if inherited else {}
        self._pid = process_id()

    def after_fork(self) -> None:
        """In the child: what is here belongs to the parent."""
        if self._pid != process_id():
            self._reset(self._buffer.items)

    # --- the application's side ---

    def put(self, item: object, size: int, *, important: bool = False) -> None:
        """Take a record; never blocks, never raises, drops when there is no room."""
        if self._pid != process_id():
            self.after_fork()
        spool = self._spool
        if spool is not None and spool.through:
            item = self._note(spool, item, size, important=important)
        pressed = False
        with self._lock:
            reason = self._refusal(size, important=important)
            if reason is not None:
                self._buffer.refuse()
                self.dropped[reason] = self.dropped.get(reason, 0) + 1
                if isinstance(item, Spooled) and spool is not None:
                    spool.done([item.place])
                return
            waiting = self._buffer.add(item, size)
            if spool is not None:
                pressed = self._filled(3)
        if waiting:
            self._notice(waiting)
        if pressed and spool is not None:
            spool.wake()

    def _notice(self, waiting: int) -> None:
        """So many records wait, and the thread does not know of it."""
        with self._lock:
            if waiting == 1:
                delay = self._delay_s if self._tries else min(FIRST_DELAY_S, self._delay_s)
                self._due = time.monotonic() + delay
            elif waiting == self.batch_size:
                self._due = 0.0
            self._changed.notify_all()
            begin = self._thread is None
        if begin:
            self.start()

    def _note(self, spool: SpoolProtocol, item: object, size: int, *, important: bool) -> object:
        """The record on disk, or as it is when that fails or it has no room here anyway."""
        if self._refusal(size, important=important) is None:
            try:
                body = spool.encode(self.signal, self._prepared([item]))
            except Exception:
                return item  # what cannot be encoded is found out, and counted, by the thread
            place = spool.note(self.signal, body)
            if place is not None:
                return Spooled(body, place)
        return item

    def _filled(self, quarters: int) -> bool:
        """Whether so many quarters of the room are taken."""
        return (
            self._buffer.items * 4 >= self._queue_size * quarters
            or self._buffer.bytes * 4 >= self._queue_bytes * quarters
        )

    def _refusal(self, size: int, *, important: bool) -> str | None:
        if self._closing:
            return SHUTDOWN
        if size > ITEM_BYTES:
            return TOO_LARGE
        items, room = self._queue_size, self._queue_bytes
        if not important:
            items, room = items - items // 8, room - room // 8
        if self._buffer.items >= items or self._buffer.bytes + size > room:
            return QUEUE_FULL
        return None

    def lose(self, reason: str) -> None:
        """Count a record that never got as far as the queue."""
        with self._lock:
            self._buffer.refuse()
            self._drop(reason, 1)

    def start(self) -> None:
        """Start this process's thread, once."""
        with self._lock:
            if self._thread is not None or self._abandoned:
                return
            thread = threading.Thread(target=self._run, name=f"otelier-{self.signal}", daemon=True)
            self._thread = thread
            self._buffer.running = True
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is going down and starts no threads: close() counts what is here.
            with self._lock:
                self._thread = None
                self._buffer.running = False
            return
        if self._started is not None:
            self._started()

    def flush(self, deadline: float) -> bool:
        """Wait until what is here now was sent, or cannot be, or the deadline has come."""
        return self.hurry()(deadline)

    def hurry(self) -> Callable[[float], bool]:
        """Send what is here now without delay; the result waits for it, as `flush` does."""
        with self._lock:
            lost, kept = sum(self.dropped.values()), self._kept
            if not self._ask():
                return lambda _: True
            ticket, tries = self._buffer.asked, self._tries
            self._ticket = ticket
            self._flushes += 1
            self._changed.notify_all()

        def wait(deadline: float) -> bool:
            with self._lock:
                self._changed.wait_for(
                    lambda: self._settled >= ticket or self._failed_try > tries or self._abandoned,
                    max(deadline - time.monotonic(), 0.0),
                )
                done = self._settled >= ticket
                return done and (sum(self.dropped.values()), self._kept) == (lost, kept)

        return wait

    def nudge(self, within_s: float) -> None:
        """Let what is here go within so many seconds; a pause after a failure stays."""
        if self._pid != process_id():
            self.after_fork()
        with self._lock:
            self._due = min(self._due, time.monotonic() + within_s)
            self._changed.notify_all()

    def _ask(self) -> bool:
        """Whether there is anything to wait for."""
        return self._settled < self._buffer.asked

    def close_soon(self, deadline: float, final: float = 0.0) -> None:
        """Take no more, send what is here until the deadline, and spool the rest until `final`."""
        with self._lock:
            if self._closing:
                return
            self._ask()
            self._closing = self._buffer.closing = True
            self._close_deadline = deadline
            self._final_deadline = max(deadline, final)
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for the end that `close_soon` asked for; spool, else count, what did not make it."""
        with self._lock:
            if self._thread is not None and self._thread is not threading.current_thread():
                self._changed.wait_for(
                    lambda: self._settled >= self._buffer.asked or self._abandoned,
                    max(self._close_deadline - time.monotonic(), 0.0),
                )
        self._abandon(SHUTDOWN)
        with self._lock:
            left = max(self._final_deadline - time.monotonic(), 0.0)
            self._changed.wait_for(lambda: self._ended, left)

    def set_aside(self) -> None:
        """Spool what is here and go on: for a process that will be killed without a word."""
        if self._pid != process_id():
            self.after_fork()
        with self._lock:
            batches = [] if self._spool is None else self._take_rest()
        for batch in batches:
            self._put_away(batch, SHUTDOWN)

    def shed(self) -> None:
        """Write the oldest records of a nearly full queue to the spool; in the spool's thread."""
        while True:
            with self._lock:
                if self._pid != process_id() or self._abandoned or not self._queue:
                    return
                if not self._filled(2):
                    return
                batch = self._pop()
                self._shedding.append(batch)
            kept = self._keep(batch)
            with self._lock:
                if batch in self._shedding:
                    self._shedding.remove(batch)
                    if not kept:
                        self._queue.extendleft(reversed(batch.items))
                    self._changed.notify_all()
            if not kept:
                return

    def recovered(self, exported: int, dropped: int = 0, reason: str = "") -> None:
        """Records of this process that were spooled have been delivered, or dropped, since."""
        with self._lock:
            self.spooled -= exported + dropped
            self.exported += exported
            self._drop(reason, dropped)

    def away(self) -> bool:
        """Whether the last try to send has failed: nobody needs to try the same meanwhile."""
        return self._buffer.items > 0 and 0 < self._failed_try == self._tries

    def report(self) -> dict[str, Any]:
        """The ledger: produced, exported, pending, dropped by reason; spooled if there is a spool."""
        with self._lock:
            produced, pending = self._buffer.counts()
            ledger: dict[str, Any] = {
                "produced": produced,
                "exported": self.exported,
                "pending": pending,
                "dropped": dict(sorted(self.dropped.items())),
            }
            if self._spool is not None:
                ledger["spooled"] = self.spooled
            return ledger

    def oldest_s(self) -> float:
        """How many seconds the oldest record that is here has waited; 0 when none is."""
        with self._lock:
            return time.monotonic() - self._buffer.arrivals[0][1] if self._buffer.arrivals else 0.0

    # --- the thread's side ---

    def _run(self) -> None:
        pid = self._pid
        _otel_context.suppress()
        export: Export | None = None
        try:
            while self._pid == pid and (batch := self._take()) is not None:
                if export is None:
                    export = self._make_export()
                self._deliver(export)
                self._tell()
                del batch
        except Exception as error:
            _diagnostics.say(
                f"{self.signal} thread",
                f"{self.signal} are no longer sent: {type(error).__name__}: {_values.text(error)}",
                level="error",
            )
            self._abandon(EXPORT_FAILED)
        finally:
            if export is not None:
                export.close()

    def _tell(self) -> None:
        """From the first loss on, what becomes of records is a metric."""
        if self._told or self._closing or self.troubled is None:
            return
        if self.spooled or any(reason != FORK_DISCARD for reason in self.dropped):
            self._told = True
            self.troubled()

    def _take(self) -> Batch | None:
        """The next batch, when it is due; None at the end."""
        with self._lock:
            while True:
                if self._abandoned:
                    return None
                wait: float | None = None
                if self._queue:
                    wait = self._due - time.monotonic()
                    if wait <= 0 or self._urgent():
                        batch = self._pop()
                        self._flight = [batch]
                        return batch
                elif self._closing:
                    return None
                self._changed.wait(wait)

    def _urgent(self) -> bool:
        return self._closing or self._settled < self._ticket

    def _pop(self) -> Batch:
        batch: list[tuple[Any, int]] = []
        size = 0
        queue, most = self._queue, self.batch_size
        noted = self._spool is not None  # only with a spool is there anything that is noted
        while queue and len(batch) < most:
            size += queue[0][1]
            if batch and (
                size > BATCH_BYTES or (noted and not _together(batch[-1][0], queue[0][0]))
            ):
                break
            batch.append(queue.popleft())
        full = len(self._queue) >= self.batch_size
        self._due = 0.0 if full else time.monotonic() + self._delay_s
        return Batch(batch, len(batch))

    def _deliver(self, export: Export) -> None:
        """Try until the batch is delivered or can never be; halve what is too much at once."""
        while True:
            with self._lock:
                if self._abandoned or not self._flight:
                    return
                batch = self._flight[-1]
            outcome = self._try(export, batch)
            if outcome.result is Result.DELIVERED:
                waited = self.oldest_s()
                self._settle(batch, EXPORT_FAILED, outcome.rejected)
                if self.delivered is not None and waited:
                    self.delivered(self.signal, waited)
            elif outcome.result in (Result.TOO_LARGE, Result.UNREADABLE) and len(batch.items) > 1:
                with self._lock:
                    if batch in self._flight:
                        self._flight[-1:] = batch.halves()
            elif outcome.result is Result.TOO_LARGE:
                self._settle(batch, TOO_LARGE)
            elif outcome.result is Result.UNREADABLE:
                self._settle(batch, CONVERSION_ERROR)
            elif outcome.result is Result.REFUSED:
                self._complain(export, outcome, "dropped")
                self._settle(batch, EXPORT_FAILED)
            elif self._stale(batch.begun):
                self._complain(export, outcome, "dropped" if self._spool is None else "spooled")
                self._put_away(batch, EXPORT_FAILED)
            elif self._closing and outcome.result is Result.UNREACHABLE:
                late = time.monotonic() >= self._close_deadline
                self._abandon(SHUTDOWN if late else EXPORT_FAILED)
            else:
                self._complain(export, outcome, "kept and tried again")
                self._pause(outcome, batch.pauses)
                batch.pauses += 1

    def _try(self, export: Export, batch: Batch) -> Outcome:
        with self._lock:
            self._tries += 1
            current = self._tries
            deadline = time.monotonic() + self._timeout_s
            if self._closing:
                deadline = min(deadline, self._close_deadline)
        outcome = self._send(export, batch, deadline)
        if outcome.result in (Result.RETRY, Result.UNREACHABLE):
            with self._lock:
                self._failed_try = current
                self._changed.notify_all()
        return outcome

    def _send(self, export: Any, batch: Batch, deadline: float) -> Outcome:
        if self._spool is None:
            try:
                items = self._prepared([item for item, _ in batch.items])
            except Exception as error:
                return Outcome(Result.UNREADABLE, f"cannot be prepared: {_values.text(error, 200)}")
            outcome: Outcome = export(items, deadline)
            return outcome
        if batch.body is None:
            try:
                batch.body = self._encoded(self._spool, batch)
            except Exception as error:
                return Outcome(Result.UNREADABLE, f"cannot be encoded: {_values.text(error, 200)}")
            if places := batch.places:
                self._spool.seal(places)
        sending: Resendable = export
        return sending.send(batch.body, deadline)

    def _encoded(self, spool: SpoolProtocol, batch: Batch) -> bytes:
        """The batch as one request, always the same bytes."""
        if not any(isinstance(item, Spooled) for item, _ in batch.items):
            return spool.encode(self.signal, self._prepared([item for item, _ in batch.items]))
        return b"".join(
            item.body
            if isinstance(item, Spooled)
            else spool.encode(self.signal, self._prepared([item]))
            for item, _ in batch.items
        )

    def _prepared(self, items: list[Any]) -> list[Any]:
        """Records as they may leave the process; the one way out, to the network and to disk."""
        return items if self.prepare is None else self.prepare(items)

    def _stale(self, begun: float) -> bool:  # noqa: ARG002 - metrics do use it
        """Whether waiting longer makes no sense: for records it always does."""
        return False

    def _pause(self, outcome: Outcome, pauses: int) -> None:
        """Wait before the next try; a flush or the exit ends the wait."""
        least, most = PAUSE_S
        delay = random.uniform(0.5, 1.0) * min(least * 2 ** min(pauses, 10), most)
        if outcome.delay_s is not None:
            delay = max(delay, min(outcome.delay_s, RETRY_AFTER_S))
        with self._lock:
            until = time.monotonic() + delay
            flushes, closing = self._flushes, self._closing
            while not self._abandoned and (left := until - time.monotonic()) > 0:
                if self._flushes != flushes or self._closing != closing:
                    break
                self._changed.wait(left)

    def _settle(
        self, batch: Batch, reason: str, lost: int | None = None, *, spooled: bool = False
    ) -> None:
        """Be done with a batch of which `lost` records (all, if None) were dropped."""
        if not spooled and self._spool is not None and (places := batch.places):
            self._spool.done(places)  # before anybody is told, who might end the process
        with self._lock:
            if batch in self._flight:
                self._flight.remove(batch)
            elif batch in self._shedding:
                self._shedding.remove(batch)
            else:
                return  # somebody else has taken care of it
            lost = batch.records if lost is None else min(lost, batch.records)
            if spooled:
                self.spooled += batch.records
                self._kept += batch.records
            else:
                self.exported += batch.records - lost
                self._drop(reason, lost)
            intake = self._buffer
            intake.settle(batch.records, sum(size for _, size in batch.items))
            self._advance(batch)
            arrivals = intake.arrivals
            while arrivals and (
                self._settled >= intake.asked
                or (len(arrivals) > 1 and arrivals[1][0] <= self._settled)
            ):
                arrivals.popleft()
            if not arrivals and self._queue:  # it came meanwhile
                arrivals.append((self._settled, time.monotonic()))
            self._changed.notify_all()

    def _advance(self, batch: Batch) -> None:
        self._settled += batch.records

    def _put_away(self, batch: Batch, reason: str) -> None:
        """Spool a batch that is in our hands, else drop it."""
        if not self._keep(batch):
            self._settle(batch, reason)

    def _keep(self, batch: Batch) -> bool:
        """Write a batch to the spool and be done with it; False if that cannot be."""
        spool = self._spool
        if spool is None:
            return False
        places = batch.places
        if len(places) == len(batch.items):
            self._settle(batch, "", 0, spooled=True)  # it is there already
            return True
        if batch.body is None:
            try:
                batch.body = self._encoded(spool, batch)
            except Exception:
                return self._keep_halves(batch)
        if not spool.keep(self.signal, batch.body, batch.records):
            return False
        self._settle(batch, "", 0, spooled=True)
        if places:
            spool.done(places)
        return True

    def _keep_halves(self, batch: Batch) -> bool:
        """One record that cannot be encoded does not take its neighbours along."""
        if len(batch.items) == 1:
            self._settle(batch, CONVERSION_ERROR)
            return True
        halves = batch.halves()
        with self._lock:
            for hands in (self._flight, self._shedding):
                if batch in hands:
                    hands.remove(batch)
                    hands.extend(halves)
        for half in halves:
            self._put_away(half, CONVERSION_ERROR)
        return True

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _take_rest(self) -> list[Batch]:
        """Everything that waits or flies, as batches in our hands; the thread's outcome is void."""
        flight, self._flight = self._flight, []
        while self._queue:
            flight.append(self._pop())
        self._shedding.extend(flight)
        return flight

    def _abandon(self, reason: str) -> None:
        """Give up sending, once: spool what is here, or count it as lost."""
        with self._lock:
            if self._abandoned:
                return
            self._closing = self._buffer.closing = self._abandoned = True
            rest = [] if self._spool is None else self._take_rest()
            self._changed.notify_all()
        try:
            for batch in rest:
                if self._final_deadline and time.monotonic() >= self._final_deadline:
                    break
                self._put_away(batch, reason)
        finally:
            with self._lock:
                left = max(self._final_deadline - time.monotonic(), 0.0)
                self._changed.wait_for(lambda: not self._shedding, left)
                self._drop(reason, self._buffer.items)
                for hands in (self._queue, self._flight, self._shedding):
                    hands.clear()
                self._buffer.items = self._buffer.bytes = 0
                self._buffer.arrivals.clear()
                self._ended = True
                self._changed.notify_all()

    def _complain(self, export: Export, outcome: Outcome, fate: str) -> None:
        lost = sum(count for reason, count in self.dropped.items() if reason != FORK_DISCARD)
        _diagnostics.say(
            f"{self.signal} {outcome.result.name}",
            f"{self.signal} do not reach {export.target}: {outcome.reason}; they are {fate}"
            f" (waiting: {self._buffer.items}, lost so far: {lost})",
        )


def _together(one: object, other: object) -> bool:
    """Whether two records can be one request: what is noted is noted in the same file."""
    if not isinstance(one, Spooled) or not isinstance(other, Spooled):
        return True
    return one.place[0] is other.place[0]


_queues: "weakref.WeakSet[ExportQueue]" = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
