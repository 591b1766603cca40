"""
The queue of metrics: nothing queues, the state is collected at intervals and at each flush.

A collection that could not be sent is kept for one interval, since the next one says it better;
with a spool it is written there instead of being dropped, as its points may be deltas.
"""

import time
from collections.abc import Callable

from telemetry import _diagnostics, _values
from telemetry._export.queue import ExportQueue
from telemetry._export.result import Batch, Export, SpoolProtocol


class PeriodicMetrics(ExportQueue):
    """
    The queue of metrics.

    Args:
        collect: gives what to send and how many points that is, or None when there is nothing.
        interval_s: seconds between two collections.
        make_export, timeout_s, spool: as for `ExportQueue`.
    """

    def __init__(
        self,
        make_export: Callable[[], Export],
        *,
        collect: Callable[[], tuple[object, int] | None],
        interval_s: float,
        timeout_s: float,
        spool: SpoolProtocol | None = None,
    ) -> None:
        self._collect = collect
        self._interval_s = interval_s
        super().__init__(
            "metrics", make_export, delay_s=interval_s, timeout_s=timeout_s, spool=spool
        )

    def _reset(self, inherited: int) -> None:
        super()._reset(inherited)
        self._due = time.monotonic() + self._interval_s

    def _ask(self) -> bool:
        """Ask for one more collection: each flush and the exit send the latest state."""
        if self._thread is None or self._closing:
            return False
        self._buffer.asked += 1
        return True

    def _take(self) -> Batch | None:
        while True:
            with self._lock:
                while not self._abandoned and self._settled >= self._buffer.asked:
                    wait = self._due - time.monotonic()
                    if self._closing or wait <= 0:
                        break
                    self._changed.wait(wait)
                if self._abandoned or (self._closing and self._settled >= self._buffer.asked):
                    return None
                wanted = self._buffer.asked
                self._due = time.monotonic() + self._interval_s
            collected = self._guarded_collect()
            with self._lock:
                if self._over():
                    return None
                if collected is None:
                    self._settled = max(self._settled, wanted)
                    self._changed.notify_all()
                    continue
                data, points = collected
                self._buffer.produced += points
                self._buffer.items = points
                batch = Batch([(data, 0)], points, wanted)
                self._flight = [batch]
                return batch

    def _over(self) -> bool:
        """Whether everything here was given up, while the lock was free."""
        return self._abandoned

    def _guarded_collect(self) -> tuple[object, int] | None:
        """A callback of the application that raises costs this collection, not the thread."""
        try:
            return self._collect()
        except Exception as error:
            _diagnostics.say("collect", f"metrics could not be collected: {_values.text(error)}")
            return None

    def _stale(self, begun: float) -> bool:
        """The next collection says it better."""
        return time.monotonic() - begun > self._interval_s

    def _advance(self, batch: Batch) -> None:
        self._settled = max(self._settled, batch.upto)

    def shed(self) -> None:
        """Nothing waits here."""
