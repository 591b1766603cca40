"""
When the durable log takes requests, and when it refuses them for now.

It refuses while there still is room for what was taken: nothing that was acknowledged is ever
dropped to make room. Once it refuses it goes on until there is clearly room again, so that clients
back off instead of trying each gap.
"""

from collections.abc import Callable, Mapping
from typing import Final

from collector.errors import Retryable
from collector.wal.config import WalConfig
from collector.wal.cursor import Reader
from collector.wal.segments import Log

WAITING_BYTES: Final = 128 << 20
"""Requests that may wait for the thread; more is refused for now."""
REFUSE_FROM: Final = 0.90
ACCEPT_BELOW: Final = 0.75
HOLD_S: Final = 2.0
"""Once it refuses, it refuses so long at least. It is short because it is also how long nothing is
taken when there is room again."""
MAX_FLOOR: Final = 1 << 30
"""A disk counts as full with a tenth of it free, or this much when a tenth is more."""


class Budget:
    """
    How much of a log is used.

    Args:
        config: with the limits.
        log: its size, and how much disk is free.
        readers: how old the oldest request is that an exporter has not delivered.
        clock: seconds, for waiting.
        now: nanoseconds since the epoch.
        refused: called with the limit when a request is refused for now.
    """

    def __init__(
        self,
        config: WalConfig,
        log: Log,
        readers: Mapping[str, Reader],
        *,
        clock: Callable[[], float],
        now: Callable[[], int],
        refused: Callable[[str], None],
    ) -> None:
        self.waiting_bytes = 0
        """Size of the requests that are not on disk yet."""
        self._config = config
        self._log = log
        self._readers = readers
        self._clock = clock
        self._now = now
        self._refused = refused
        self._refusing_since: float | None = None

    @property
    def refusing(self) -> bool:
        """Whether new requests are refused for now."""
        return self._refusing_since is not None

    def refuse(self) -> None:
        """Refuse from now on: the disk was full."""
        self._refusing_since = self._clock()

    def admit(self, size: int) -> None:
        """
        Let a request in.

        Raises:
            Retryable: not now; with what is full, and who is behind.
        """
        if self.waiting_bytes + size > WAITING_BYTES:
            self._refused("busy")
            raise Retryable("the disk does not keep up: too many requests wait for it", 1.0)
        fill, what = self.fill(size)
        now = self._clock()
        since = self._refusing_since
        if since is None and fill < REFUSE_FROM:
            return
        if since is None:
            since = self._refusing_since = now
        held = now - since
        if fill < ACCEPT_BELOW and held >= HOLD_S:
            self._refusing_since = None
            return
        self._refused(what)
        slow = max(self._readers.values(), key=lambda each: each.lag_items, default=None)
        behind = f'; exporter "{slow.exporter}" is {slow.lag_items} items behind' if slow else ""
        raise Retryable(
            f"the queue in {self._log.folder} is full ({what} at {min(fill, 1):.0%}){behind}",
            max(1.0, HOLD_S - held),
        )

    def fill(self, size: int = 0) -> tuple[float, str]:
        """How much of the budget is used, 1.0 being all of it, and which budget that is."""
        coming = self.waiting_bytes + size
        free, whole = self._log.space
        floor = min(whole // 10, MAX_FLOOR)
        # The disk counts as 90 % full when the floor is reached, as 75 % at 2.5 times the floor.
        disk = 1.0 - 0.1 * (free - coming) / floor if floor else 1.0
        fills = [((self._log.bytes + coming) / self._config.max_bytes, "max_bytes"), (disk, "disk")]
        if self._config.max_age:
            fills.append((self.oldest_s() / self._config.max_age, "max_age"))
        return max(fills)

    def oldest_s(self) -> float:
        """How long ago the oldest request was received that some exporter has not delivered."""
        found = [reader.oldest_unix_nano for reader in self._readers.values()]
        times = [each for each in found if each is not None]
        return max(0.0, (self._now() - min(times)) / 1e9) if times else 0.0
