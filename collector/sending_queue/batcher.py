"""
The batcher: entries of one signal and tenant are collected until there are enough, or long enough.

It decides on entries and gives lists of them; joining requests into one is split.py.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from collector.model import Batch
from collector.sending_queue.config import Batching, Sizer
from collector.sending_queue.queue import Entry, weigh

TOGETHER: Final = 500
"""Items that a store is given at once, of requests that wait anyway: it shares its writes."""


@dataclass(slots=True)
class _Waiting:
    deadline: float
    entries: list[Entry] = field(default_factory=list)
    weight: int = 0


class Batcher:
    """
    Collects entries until there are enough, and gives them out as bundles: one request each.

    Args:
        config: None makes each entry a bundle of its own.
        sizer: of the queue; `batch` may have one of its own.
        merge: whether requests may be joined. Stores get what waits anyway, up to `TOGETHER` items.
    """

    def __init__(self, config: Batching | None, sizer: Sizer, *, merge: bool = True) -> None:
        self.max_size = config.max_size if config is not None else 0
        """The largest request that an exporter is given; 0 = no limit."""
        own = config.sizer if config is not None else ""
        self.sizer: Sizer = own or ("items" if sizer == "requests" else sizer)
        """The unit of `max_size`."""
        self._config = config
        self._together = TOGETHER if config is None and not merge else 0
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._ready: deque[list[Entry]] = deque()

    def weight(self, batch: Batch, items: int) -> int:
        """How much an entry counts."""
        return weigh(batch, items, self.sizer) if self._config is not None else 1

    def add(self, entry: Entry, now: float) -> None:
        """Take an entry; bundles that it completes are ready."""
        config = self._config
        if config is None:
            self._ready.append([entry])
            return
        key = (entry.batch.signal.value, entry.batch.request.tenant)
        waiting = self._waiting.get(key)
        if waiting and config.max_size and waiting.weight + entry.weight > config.max_size:
            self._ready.append(self._waiting.pop(key).entries)
            waiting = None
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now + config.flush_timeout)
        waiting.entries.append(entry)
        waiting.weight += entry.weight
        if waiting.weight >= config.min_size:
            self._ready.append(self._waiting.pop(key).entries)

    def due(self, now: float) -> None:
        """Bundles that have waited long enough are ready."""
        for key in [key for key, each in self._waiting.items() if each.deadline <= now]:
            self._ready.append(self._waiting.pop(key).entries)

    def flush(self) -> None:
        """All that wait are ready."""
        self.due(float("inf"))

    def wait_s(self, now: float) -> float | None:
        """How long until one is due; None when none waits."""
        deadlines = [each.deadline for each in self._waiting.values()]
        return max(0.0, min(deadlines) - now) if deadlines else None

    @property
    def ready(self) -> bool:
        """Whether there is a bundle to deliver."""
        return bool(self._ready)

    def next(self) -> list[Entry]:
        """The next bundle that is ready; for a store with small ones that wait behind it."""
        bundle = self._ready.popleft()
        items = sum(entry.items for entry in bundle)
        while self._together and self._ready and items + self._ready[0][0].items <= self._together:
            following = self._ready.popleft()
            items += following[0].items
            bundle += following
        return bundle
