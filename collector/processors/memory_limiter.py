"""
The memory_limiter processor: refuses data before the process runs out of memory.

A task reads the resident memory of the process at every `check_interval`. Above the soft limit
(limit minus spike) batches are refused as `Retryable`: senders keep them and come again. Python
and the allocator keep freed memory for themselves, so above the limit the garbage is collected and
the allocator is asked to give pages back; without that a burst could keep the limiter closed for
ever.

It belongs first in a pipeline: receivers ask it (`admit`) before they decode a body, or read it,
so that while it refuses nothing more comes into memory. Whatever still arrives is refused, too.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import time
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from collector.errors import Retryable, StartFailed
from collector.model import Batch, Consume, Duration, Host
from collector.otlp import NOUNS
from collector.processors.shared.work import (
    arrived,
    handed_on,
)

MIB: Final = 1 << 20
PROC: Final = Path("/proc")
CGROUP: Final = Path("/sys/fs/cgroup")
REFUSED: Final = "data refused due to high memory usage"


class MemoryLimiter:
    """Refuses batches while the process uses too much memory."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the memory limiter."""

        check_interval: Duration = Duration(0)
        """How often memory is measured; must be set, 1s is a good choice."""
        limit_mib: int = 0
        """The most memory that the process should use, in MiB."""
        spike_limit_mib: int = 0
        """How much may come between two measurements; a fifth of the limit when it is 0."""
        limit_percentage: int = 0
        """The limit as a share of the memory there is (of the cgroup, if that is smaller). Used
        when `limit_mib` is 0."""
        spike_limit_percentage: int = 0
        """The spike as a share of the memory there is."""
        min_gc_interval_when_soft_limited: Duration = Duration(10)
        """Garbage is collected so often at most while above the soft limit."""
        min_gc_interval_when_hard_limited: Duration = Duration(0)
        """The same while above the limit."""
        max_gc_interval_when_soft_limited: Duration = Duration(30)
        """The interval doubles up to this while collecting does not help."""
        max_gc_interval_when_hard_limited: Duration = Duration(30)
        """The same while above the limit."""

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.config = config
        self.host = host
        self.next = next
        self.limit = 0
        self.soft_limit = 0
        self.refusing = False
        self._task: asyncio.Task[None] | None = None
        self._collected_at = float("-inf")
        self._pause = 0.0

    @staticmethod
    def check(config: Config) -> list[str]:
        """What the types cannot say, in the words of the OpenTelemetry Collector."""
        found = []
        if config.check_interval <= 0:
            found.append("'check_interval' must be greater than zero")
        if config.limit_mib <= 0 and config.limit_percentage <= 0:
            found.append("'limit_mib' or 'limit_percentage' must be greater than zero")
        if not 0 <= config.limit_percentage <= 100 or not 0 <= config.spike_limit_percentage <= 100:
            found.append(
                "'limit_percentage' and 'spike_limit_percentage' must be greater than zero and "
                "less than or equal to hundred"
            )
        if config.limit_mib > 0 and config.spike_limit_mib >= config.limit_mib:
            found.append("'spike_limit_mib' must be smaller than 'limit_mib'")
        if 0 < config.limit_percentage <= config.spike_limit_percentage:
            found.append("'spike_limit_percentage' must be smaller than 'limit_percentage'")
        for kind in ("soft", "hard"):
            low = getattr(config, f"min_gc_interval_when_{kind}_limited")
            high = getattr(config, f"max_gc_interval_when_{kind}_limited")
            if low < 0 or high < low:
                found.append(
                    f"'max_gc_interval_when_{kind}_limited' must not be smaller than "
                    f"'min_gc_interval_when_{kind}_limited', and that not negative"
                )
        return found

    async def __aenter__(self) -> Self:
        """
        Begin to measure.

        Raises:
            StartFailed: memory cannot be measured here.
        """
        try:
            resident()
            self.limit, spike = limits(self.config, 0 if self.config.limit_mib else available())
        except (OSError, ValueError) as error:
            raise StartFailed(f"cannot measure memory: {error}; remove memory_limiter") from error
        self.soft_limit = self.limit - spike
        self.host.log.info(
            "Refusing data above %d MiB (limit %d MiB)", self.soft_limit // MIB, self.limit // MIB
        )
        await self.measure()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def admit(self) -> None:
        """
        Say before a request is decoded whether it would be taken.

        Raises:
            Retryable: there is too little memory.
        """
        if self.refusing:
            raise Retryable(REFUSED, max(1.0, self.config.check_interval))

    async def __call__(self, batch: Batch) -> None:
        """
        Hand the batch on.

        Raises:
            Retryable: there is too little memory.
        """
        amount = arrived(self.host, batch)
        noun = NOUNS[batch.signal]
        if self.refusing:
            self.host.stats.add(f"otelcol_processor_refused_{noun}", amount, processor=self.host.id)
            raise Retryable(REFUSED, max(1.0, self.config.check_interval))
        self.host.stats.add(f"otelcol_processor_accepted_{noun}", amount, processor=self.host.id)
        handed_on(self.host, batch.signal, amount)
        await self.next(batch)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.config.check_interval)
            try:
                await self.measure()
            except OSError as error:
                # Unknown is not full: go on as it was, and say so.
                self.host.log.warning("Cannot measure memory: %s", error)

    async def measure(self) -> None:
        """Measure once, collect garbage when there is too much, and decide."""
        used = resident()
        if used > self.soft_limit and self._may_collect(used):
            await asyncio.to_thread(give_back)
            freed = used - (now := resident())
            self._pause = self._next_pause(used, freed)
            used = now
            self._collected_at = time.monotonic()
        refusing = used > self.soft_limit
        if refusing is not self.refusing:
            self.refusing = refusing
            self.host.log.log(
                30 if refusing else 20,
                "%s: %d MiB in use, soft limit %d MiB",
                "Memory usage is above the soft limit, refusing data"
                if refusing
                else "Memory usage is back below the soft limit, taking data",
                used // MIB,
                self.soft_limit // MIB,
            )

    def _interval(self, used: int, which: str) -> float:
        kind = "hard" if used > self.limit else "soft"
        return float(getattr(self.config, f"{which}_gc_interval_when_{kind}_limited"))

    def _may_collect(self, used: int) -> bool:
        pause = max(self._pause, self._interval(used, "min"))
        return time.monotonic() - self._collected_at >= min(pause, self._interval(used, "max"))

    def _next_pause(self, used: int, freed: int) -> float:
        if freed > used // 100:
            return 0.0
        return min(max(self._pause * 2, self.config.check_interval), self._interval(used, "max"))


def limits(config: Any, total: int) -> tuple[int, int]:
    """Limit and spike in bytes, of so much memory in all."""
    if config.limit_mib:
        limit = config.limit_mib * MIB
        return limit, config.spike_limit_mib * MIB or limit // 5
    limit = total * config.limit_percentage // 100
    return limit, total * config.spike_limit_percentage // 100 or limit // 5


def resident(proc: Path = PROC) -> int:
    """Bytes of memory that this process has."""
    return int((proc / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Bytes of memory that there are for this process: the machine's, or the cgroup's if smaller."""
    lines = (proc / "meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) * 1024
    return min([total, *cgroup_limits(proc, cgroup)])


def cgroup_limits(proc: Path, cgroup: Path) -> list[int]:
    """The limits of this process's control groups, of both versions; none when there are none."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, name = cgroup, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroup / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be that of the host: then only the root is there.
        folder = root / path.lstrip("/")
        for each in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):
                found.append(int((each / name).read_text()))
            if each == root:
                break
    return found


def give_back() -> None:
    """Collect garbage and have the allocator return what is free to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has no need
    if trim is not None:
        trim(0)
