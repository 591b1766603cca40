"""
Batches that are being sent or written to the spool, and what becomes of each.

A batch is in one place: in flight (with the thread) or being spooled. The side that is done with it settles
it, once: the second one to try finds it gone. At the end everything is given up together.
"""

import threading
import time
from collections import deque
from typing import Any

from telemetry import _diagnostics
from telemetry._export.buffer import Buffer
from telemetry._export.drop_reasons import CONVERSION_ERROR
from telemetry._export.ledger import Ledger
from telemetry._export.result import Batch, Export, Outcome, SpoolProtocol


class InFlight:
    """What the sides of a queue share, and how a batch leaves it; `ExportQueue` sets the fields."""

    signal: str
    _lock: threading.RLock
    _changed: threading.Condition
    _buffer: Buffer
    _queue: deque[tuple[Any, int]]
    _spool: SpoolProtocol | None
    ledger: Ledger
    _flight: list[Batch]
    """With the thread; the last one is being sent."""
    _shedding: list[Batch]
    """With the spool's thread."""
    _settled: int
    """What of that which was taken in is done with."""
    _closing: bool
    _abandoned: bool
    _ended: bool
    _close_deadline: float
    _final_deadline: float

    def _pop(self) -> Batch:
        raise NotImplementedError

    def _encoded(self, spool: SpoolProtocol, batch: Batch) -> bytes:
        raise NotImplementedError

    def _settle(
        self, batch: Batch, reason: str, lost: int | None = None, *, spooled: bool = False
    ) -> None:
        """Be done with a batch of which `lost` records (all, if None) were dropped."""
        if not spooled and self._spool is not None and (places := batch.places):
            self._spool.done(places)  # before a waiting caller goes on, which might end the process
        with self._lock:
            if batch in self._flight:
                self._flight.remove(batch)
            elif batch in self._shedding:
                self._shedding.remove(batch)
            else:
                return  # the other side has settled it
            lost = batch.records if lost is None else min(lost, batch.records)
            if spooled:
                self.ledger.spool(batch.records)
            else:
                self.ledger.settle(batch.records, lost, reason)
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
        """Spool a batch that is of ours, else drop it."""
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
            for place in (self._flight, self._shedding):
                if batch in place:
                    place.remove(batch)
                    place.extend(halves)
        for half in halves:
            self._put_away(half, CONVERSION_ERROR)
        return True

    def _take_rest(self) -> list[Batch]:
        """Everything that waits or flies, as batches of ours; the thread's outcome is void."""
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
                self.ledger.drop(reason, self._buffer.items)
                for place in (self._queue, self._flight, self._shedding):
                    place.clear()
                self._buffer.items = self._buffer.bytes = 0
                self._buffer.arrivals.clear()
                self._ended = True
                self._changed.notify_all()

    def _complain(self, export: Export, outcome: Outcome, fate: str) -> None:
        _diagnostics.say(
            f"{self.signal} {outcome.result.name}",
            f"{self.signal} do not reach {export.target}: {outcome.reason}; they are {fate}"
            f" (waiting: {self._buffer.items}, lost so far: {self.ledger.lost()})",
        )
