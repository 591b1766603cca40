"""
From an emitted record to the collector: one `ExportQueue` for each signal.

`put` is what the application pays for: an append and a few counts, under a lock that nothing holds
while it encodes, sends or writes. A daemon thread, started by the first record in each process
(`worker`), takes batches and hands them to an `Export`. Nothing is thrown away while there is room.
When the queue is full, by items or by bytes, the newest record is dropped, because the beginning of a
story explains more than its end; the last eighth of the room is kept for errors. What becomes of
every record is in the `ledger`.

With a spool (`SpoolProtocol`), what would be lost goes to disk instead: the oldest records of a queue
that is three quarters full, and what is here when the time at exit is up. In write-through mode each
record is on disk before `put` returns, for processes that are killed without a word.

Forks: a child starts empty, with a new lock, thread and connection, noticed by a fork hook and by
pid (uWSGI runs no fork hooks). What was queued belongs to the parent; the child's copy is counted
as `fork_discard`. The lock is re-entrant, as a signal handler may log while its thread holds it.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from telemetry._export.buffer import Buffer
from telemetry._export.drop_reasons import QUEUE_FULL, SHUTDOWN, TOO_LARGE
from telemetry._export.ledger import Ledger
from telemetry._export.result import Batch, Export, Outcome, Result, Spooled, SpoolProtocol
from telemetry._export.worker import Worker
from telemetry._native import process_id

__all__ = [
    "Export",
    "ExportQueue",
    "Outcome",
    "Result",
]

FIRST_DELAY_S: Final = 0.1
ITEM_BYTES: Final = 1024 * 1024


class ExportQueue(Worker):
    """
    The queue of one signal: takes records, and gives them to its thread.

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
        self._calm = (queue_size - queue_size // 8, queue_bytes - queue_bytes // 8)
        """Up to so many items and bytes, no record is refused for want of room."""
        self._delay_s = delay_s
        self._timeout_s = timeout_s
        self._started = started
        self._spool = spool
        self.prepare: Callable[[list[Any]], list[Any]] | None = None
        """Done to records, in whichever thread, before anything encodes or exports them."""
        self.troubled: Callable[[], None] | None = None
        """Called, in the thread, when this process has lost or spooled something; once."""
        self.delivered: Callable[[str, float], None] | None = None
        """Called after a delivery: the signal, and the seconds since its oldest record came."""
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
        self._reported = False
        self._close_deadline = 0.0
        self._final_deadline = 0.0
        self._buffer.produced = inherited
        self.ledger = Ledger(inherited)
        self._pid = process_id()

    def after_fork(self) -> None:
        """In the child: what is here belongs to the parent."""
        if self._pid != process_id():
            self._reset(self._buffer.items)

    def put(self, item: object, size: int, *, important: bool = False) -> None:
        """Take a record; never blocks, never raises, drops when there is no room."""
        if self._pid != process_id():
            self.after_fork()
        spool = self._spool
        if spool is not None and spool.through:
            item = self._note(spool, item, size, important=important)
        pressed = False
        buffer = self._buffer
        with self._lock:
            calm_items, calm_bytes = self._calm
            reason = (
                None
                if buffer.items < calm_items
                and buffer.bytes + size <= calm_bytes
                and size <= ITEM_BYTES
                and not self._closing
                else self._refusal(size, important=important)
            )
            if reason is not None:
                self._buffer.refuse()
                self.ledger.drop(reason)
                if isinstance(item, Spooled) and spool is not None:
                    spool.done([item.place])
                return
            waiting = buffer.add(item, size)
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
            self.ledger.drop(reason)

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
            misses = self.ledger.misses()
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
                return done and self.ledger.misses() == misses

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
            self.ledger.recover(exported, dropped, reason)

    def away(self) -> bool:
        """Whether the last try to send has failed: others need not try the same meanwhile."""
        return self._buffer.items > 0 and 0 < self._failed_try == self._tries

    def report(self) -> dict[str, Any]:
        """The ledger: produced, exported, pending, dropped by reason; spooled if there is a spool."""
        with self._lock:
            return self.ledger.report(*self._buffer.counts(), with_spool=self._spool is not None)


_queues: "weakref.WeakSet[ExportQueue]" = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
