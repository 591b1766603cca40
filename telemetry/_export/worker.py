"""
The thread of a queue: takes batches that are due, sends, retries, halves what is too much at once.

An unreachable collector is tried again with growing pauses (the only retry layer) while the queue
absorbs the outage. With a spool a batch is encoded once, so that each resend has the same bytes.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from telemetry import _diagnostics, _otel_context, _values
from telemetry._export.drop_reasons import (
    CONVERSION_ERROR,
    EXPORT_FAILED,
    SHUTDOWN,
    TOO_LARGE,
)
from telemetry._export.in_flight import InFlight
from telemetry._export.result import (
    Batch,
    Export,
    Outcome,
    Resendable,
    Result,
    Spooled,
    SpoolProtocol,
)

BATCH_BYTES: Final = 1024 * 1024
PAUSE_S: Final = (0.5, 30.0)
RETRY_AFTER_S: Final = 60.0


class Worker(InFlight):
    """The thread's side of a queue."""

    batch_size: int
    prepare: Callable[[list[Any]], list[Any]] | None
    troubled: Callable[[], None] | None
    delivered: Callable[[str, float], None] | None
    _make_export: Callable[[], Export]
    _delay_s: float
    _timeout_s: float
    _thread: threading.Thread | None
    _pid: int
    _due: float
    """When the next batch is due, in monotonic time."""
    _ticket: int
    """Up to here a flush wants to have it sent."""
    _flushes: int
    _tries: int
    _failed_try: int
    _reported: bool

    def oldest_s(self) -> float:
        """How many seconds the oldest record that is here has waited; 0 when none is."""
        with self._lock:
            return time.monotonic() - self._buffer.arrivals[0][1] if self._buffer.arrivals else 0.0

    def _run(self) -> None:
        pid = self._pid
        _otel_context.suppress()
        export: Export | None = None
        try:
            while self._pid == pid and (batch := self._take()) is not None:
                if export is None:
                    export = self._make_export()
                self._deliver(export)
                self._say_trouble()
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

    def _say_trouble(self) -> None:
        """From the first loss on, what becomes of records is a metric."""
        if self._reported or self._closing or self.troubled is None:
            return
        if self.ledger.spooled or self.ledger.lost():
            self._reported = True
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


def _together(one: object, other: object) -> bool:
    """Whether two records can be one request: what is spooled is spooled in the same file."""
    if not isinstance(one, Spooled) or not isinstance(other, Spooled):
        return True
    return one.place[0] is other.place[0]
