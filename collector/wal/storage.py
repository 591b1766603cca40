"""
The durable log: requests are on disk before the sender hears that they are taken.

    receiver -> processors -> append, fsync -> answer        one copy, whatever the number of exporters
    exporter <- reader at its own cursor                     none waits for another

One thread appends. All requests that wait while it forces data to disk are written together and
share the next fsync (group commit), so the cost of durability falls as load grows. The answer to a
request depends on the log alone: an exporter that is down makes nobody wait and nothing repeat.

Requests that come again within 15 minutes (the sender did not hear the answer) are recognised by a
hash and answered as taken, also after a restart. When the log approaches its budget, or the disk is
nearly full, new requests are refused before anything fails, and accepted again when there is clearly
room; nothing that was acknowledged is ever dropped to make room.

It is the extension `file_storage`, the name that the OpenTelemetry Collector uses, because exporters
refer to it by `sending_queue: {storage: file_storage}`. The bytes are in wal/format.py, the folder
in wal/segments.py, cursors in wal/cursor.py.
"""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Literal, Self

from collector.errors import Retryable, StartFailed
from collector.model import Batch, Host
from collector.stats import QuietLog
from collector.wal.config import WalConfig
from collector.wal.cursor import Cursor, load_cursors
from collector.wal.cursor import Reader as Reader
from collector.wal.cursor import file_name as file_name
from collector.wal.files import Files as Files
from collector.wal.format import Record as Record
from collector.wal.segments import FULL, WINDOW_NS, Log
from collector.wal.writer import Append, Writer

WAITING_BYTES: Final = 128 << 20
"""Requests that may wait for the thread; more is refused for now."""
REFUSE_FROM: Final = 0.90
ACCEPT_BELOW: Final = 0.75
HOLD_S: Final = 2.0
"""Once it refuses, it refuses so long at least: senders back off instead of trying each gap. It is
short because it is also how long nothing is taken when there is room again."""
MAX_FLOOR: Final = 1 << 30
"""A disk counts as full with a tenth of it free, or this much when a tenth is more."""
CROWDED: Final = 4096
"""While there is no room, even a small segment that is delivered is replaced by an empty one."""
CHECK_S: Final = 0.1
"""How often cursors that moved are saved."""


class FileStorage:
    """
    A durable log in a folder.

    Args:
        config: of `extensions: file_storage:`.
        host: for counters and the log.
        files: how files are worked on.
        clock: seconds, for waiting.
        now: nanoseconds since the epoch.
    """

    Config = WalConfig

    def __init__(
        self,
        config: WalConfig,
        host: Host,
        *,
        files: Files | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.config = config
        self.folder = Path(config.directory)
        self.files = files or Files()
        self._host = host
        self._clock = clock
        self._now = now
        self._log = Log(
            self.folder,
            self.files,
            now,
            segment_bytes=config.segment_bytes,
            reserve_bytes=config.reserve_bytes,
            sync=config.fsync,
        )
        self._readers: dict[str, Reader] = {}
        self._cursors: dict[str, Cursor] = {}  # of all exporters, as they are on disk
        self._damaged_cursors = False
        self._writer = Writer(f"wal {host.id}", self._log, self._settle)
        self._checking: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._pending: dict[bytes, asyncio.Future[int]] = {}
        self._waiting_bytes = 0
        self._refusing_since: float | None = None
        self._report = QuietLog(host.log, clock).warning
        self._open = False

    def describe(self) -> str:
        """Where the log is, and whose cursors nobody uses."""
        text = f"durable queue in {self.folder}"
        orphans = [name for name in self._cursors if name not in self._readers]
        if orphans:
            text += (
                f"; kept for exporters that are not configured: {', '.join(orphans)}"
                f" (let go with `collector queue drop {orphans[0]}`)"
            )
        return text

    @property
    def durability(self) -> str:
        """What an answer means."""
        return (
            "answered after fsync"
            if self.config.fsync
            else "no fsync: a power cut loses what was answered"
        )

    # --- life cycle ---

    async def __aenter__(self) -> Self:
        """
        Open the folder and repair what a crash left.

        Raises:
            StartFailed: the folder cannot be used; one line with the fix.
        """
        self._writer.start()
        try:
            await self._writer.job(self._start)
        except BaseException as error:
            self._writer.stop()
            if isinstance(error, OSError):
                raise StartFailed(
                    f"cannot use the queue folder {self.folder}: {error.strerror or error}: give "
                    "this user write permission there, or set `directory` to another place"
                ) from error
            raise
        self._open = True
        self._checking = asyncio.create_task(self._check_forever())
        self._host.stats.watch(self._publish)
        if not self.config.fsync:
            self._host.log.warning(
                "file_storage: fsync is off: a power cut loses requests that were acknowledged"
            )
        log = self._log
        if log.torn_bytes:
            self._host.stats.add("otelier_wal_torn_bytes", log.torn_bytes, storage=self._host.id)
        if log.damaged:
            self._host.log.error(
                "%s: %d damaged files were put aside as *.bad; requests in them are not delivered",
                self.folder, len(log.damaged),
            )  # fmt: skip
        return self

    def _start(self) -> None:
        mode = int(self.config.directory_permissions, 8)
        cursors = self.folder / "cursors"
        if self.config.create_directory:
            self.files.make_folder(self.folder, mode)
        self._log.open()
        try:
            self._load(cursors, mode)
        except BaseException:
            self._log.close()
            raise

    def _load(self, cursors: Path, mode: int) -> None:
        self.files.make_folder(cursors, mode)
        self._cursors, damaged = load_cursors(self.files, cursors)
        for name in damaged:
            self.files.rename(cursors / name, cursors / f"{name}.bad")
            self._damaged_cursors = True
            self._host.log.error(
                "%s is damaged and was put aside; its exporter delivers everything again", name
            )
        for name in self.files.names(cursors):
            if name.endswith(".tmp"):
                self.files.unlink(cursors / name)
        self._log.next = max([self._log.next, *(each.next for each in self._cursors.values())])

    async def __aexit__(self, *exc: object) -> None:
        """Write what waits, save the cursors, let go of the folder."""
        self._open = False
        self._host.stats.unwatch(self._publish)
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        for reader in self._readers.values():
            reader.close()
        try:
            await self.checkpoint()
        except OSError as error:
            self._host.log.warning("cannot save cursors in %s: %s", self.folder, error)
        await self._writer.job(self._log.close)
        self._writer.stop()

    # --- writing ---

    async def append(
        self, batch: Batch, route: str = "", items: int = 0, *, again: bool = False
    ) -> int | None:
        """
        Store a batch; it is on disk when this returns.

        Args:
            batch: its bytes are taken at once; nothing of it is kept.
            route: the pipeline that it comes from, or `@` and the id of one exporter.
            items: how many spans, points or records it holds.
            again: store it although it may be known.

        Returns:
            Its number, or None when the same request is in the log already.

        Raises:
            Retryable: it is not stored.
        """
        whole = batch.wire is not None
        payload: bytes = batch.wire if batch.wire is not None else batch.message.SerializeToString()
        identity = self._identity(batch, route, payload, whole=whole)
        if again:
            identity = secrets.token_bytes(16)
        known = self._pending.get(identity)
        if known is not None:
            await asyncio.shield(known)  # fails as the first one does
        received = self._log.window.get(identity)
        if known is not None or (received is not None and received >= self._now() - WINDOW_NS):
            self._count("otelier_wal_deduplicated_items", items, signal=batch.signal.value)
            return None
        self._admit(len(payload))
        record = Record(0, identity, batch.signal, batch.request, route, items, payload)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending[identity] = future
        self._waiting_bytes += len(payload)
        self._writer.append(Append(record, future))
        return await asyncio.shield(future)

    @staticmethod
    def _identity(batch: Batch, route: str, payload: bytes, *, whole: bool) -> bytes:
        digest = hashlib.blake2b(batch.request.key, digest_size=16, person=b"wal-route")
        digest.update(route.encode())
        if not whole:  # a processor changed it, and may have made several parts of one request
            digest.update(b"\0")
            digest.update(payload)
        return digest.digest()

    def _admit(self, size: int) -> None:
        """Take a request, or refuse it while there still is room for what was taken."""
        if not self._open:
            raise Retryable(f"the queue in {self.folder} is closed", 1.0)
        if self._waiting_bytes + size > WAITING_BYTES:
            self._refused("busy")
            raise Retryable("the disk does not keep up: too many requests wait for it", 1.0)
        fill, what = self._fill(size)
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
            f"the queue in {self.folder} is full ({what} at {min(fill, 1):.0%}){behind}",
            max(1.0, HOLD_S - held),
        )

    def _refused(self, reason: str) -> None:
        self._count("otelier_wal_refused_requests", reason=reason)

    def _fill(self, size: int = 0) -> tuple[float, str]:
        """How much of the budget is used, 1.0 being all of it, and which budget that is."""
        coming = self._waiting_bytes + size
        free, whole = self._log.space
        floor = min(whole // 10, MAX_FLOOR)
        # The disk counts as 90 % full when the floor is reached, as 75 % at 2.5 times the floor.
        disk = 1.0 - 0.1 * (free - coming) / floor if floor else 1.0
        fills = [((self._log.bytes + coming) / self.config.max_bytes, "max_bytes"), (disk, "disk")]
        if self.config.max_age:
            fills.append((self.oldest_s() / self.config.max_age, "max_age"))
        return max(fills)

    def oldest_s(self) -> float:
        """How long ago the oldest request was received that some exporter has not delivered."""
        found = [reader.oldest_unix_nano for reader in self._readers.values()]
        times = [each for each in found if each is not None]
        return max(0.0, (self._now() - min(times)) / 1e9) if times else 0.0

    # --- reading ---

    async def reader(
        self, exporter: str, routes: Collection[str], start: Literal["now", "oldest"] = "now"
    ) -> Reader:
        """
        The place of an exporter in the log; it is on disk when this returns.

        Args:
            exporter: its id.
            routes: the pipelines that feed it.
            start: where an exporter begins that the log does not know.

        Raises:
            OSError: the cursor cannot be saved.
        """
        fed = {*routes, f"@{exporter}"}

        def make() -> Reader:
            known = self._cursors.get(exporter)
            if known is None:
                oldest = [each.header.first for each in self._log.segments[:1]] or [self._log.next]
                first = oldest[0] if start == "oldest" or self._damaged_cursors else self._log.next
                cursor = Cursor(exporter, first, routes=tuple(sorted(fed)))
            else:
                cursor = known.feed(fed, self._log.next)
            if cursor != known:
                cursor.save(self.files, self.folder / "cursors")
            reader = Reader(self._log, cursor)
            reader.measure()
            self._cursors[exporter] = cursor
            return reader

        def register(reader: Reader) -> None:
            self._readers[exporter] = reader

        return await self._writer.job(make, register)

    async def release(self, exporter: str) -> None:
        """An exporter reads no more. Its cursor stays, and keeps what it has not delivered."""
        try:
            await self.checkpoint()
        except OSError as error:
            self._report("cannot save cursors in %s: %s", self.folder, error)
        reader = self._readers.pop(exporter, None)
        if reader is not None:
            reader.close()
            self._cursors[exporter] = reader.cursor()

    def knows(self, exporter: str) -> bool:
        """Whether an exporter has a cursor here."""
        return exporter in self._cursors

    async def forget_idle(self, exporter: str) -> None:
        """Take the cursor of an exporter away, unless something waits for it."""
        reader = self._readers.get(exporter)
        if reader is None or reader.lag_items:
            return
        await self.release(exporter)
        self._cursors.pop(exporter, None)
        path = self.folder / "cursors" / f"{file_name(exporter)}.json"
        with contextlib.suppress(OSError):  # it is named at the next start then, and can be dropped
            await asyncio.to_thread(self.files.unlink, path)

    async def checkpoint(self) -> None:
        """
        Save the cursors that moved, then delete what every exporter has delivered.

        Raises:
            OSError: a cursor cannot be saved; nothing is deleted then.
        """
        async with self._saving:
            moved = [
                cursor
                for cursor in (reader.cursor() for reader in self._readers.values())
                if self._cursors.get(cursor.exporter) != cursor
            ]
            for cursor in moved:
                await asyncio.to_thread(self._save, cursor)
                self._cursors[cursor.exporter] = cursor
            lowest = min((each.next for each in self._cursors.values()), default=None)
            if lowest is not None:
                await self._writer.job(lambda: self._tidy(lowest))

    def _save(self, cursor: Cursor) -> None:
        folder = self.folder / "cursors"
        try:
            cursor.save(self.files, folder)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._log.give_reserve()  # a cursor on a full disk is what makes room again
            cursor.save(self.files, folder)

    def _tidy(self, lowest: int) -> None:
        log = self._log
        try:
            self._remove(lowest)
        except OSError as error:
            if error.errno not in FULL:
                raise
            log.give_reserve()
            self._remove(lowest)
        log.keep_reserve()

    def _remove(self, lowest: int) -> None:
        log = self._log
        used = log.segments[-1].end if log.segments else 0
        crowded = self._refusing_since is not None and used > CROWDED
        if lowest >= log.next and (used >= self.config.segment_bytes or crowded):
            log.rotate()  # the last segment stays, so it must not be the large one
        log.remove_before(lowest)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self.checkpoint()
            except OSError as error:
                self._count("otelier_wal_cursor_save_failed")
                self._report("cannot save cursors in %s: %s", self.folder, error)
            self._publish()

    def _publish(self) -> None:
        add, gauge, storage = self._host.stats.add, self._host.stats.set, self._host.id
        gauge("otelier_wal_bytes", self._log.bytes, storage=storage)
        gauge("otelier_wal_capacity_bytes", self.config.max_bytes, storage=storage)
        gauge("otelier_wal_refusing", int(self._refusing_since is not None), storage=storage)
        orphans = sum(name not in self._readers for name in self._cursors)
        gauge("otelier_wal_orphaned_cursors", orphans, storage=storage)
        for reader in self._readers.values():
            gauge("otelcol_exporter_queue_size", reader.lag_bytes, exporter=reader.exporter)
            gauge(
                "otelcol_exporter_queue_capacity", self.config.max_bytes, exporter=reader.exporter
            )
            gauge("otelier_exporter_lag_items", reader.lag_items, exporter=reader.exporter)
            oldest = reader.oldest_unix_nano
            age = 0 if oldest is None else max(0, self._now() - oldest) // 10**9
            gauge("otelier_exporter_oldest_unsent_seconds", age, exporter=reader.exporter)
            if reader.bad_parts or reader.missing:
                add("otelier_wal_damaged_parts", reader.bad_parts, storage=storage)
                add("otelier_wal_missing_records", reader.missing, exporter=reader.exporter)
                self._report(
                    "%s has damaged parts; at most %d requests are lost, the files are kept as *.bad",
                    self.folder, reader.missing,
                )  # fmt: skip
                reader.bad_parts = reader.missing = 0

    def _count(self, name: str, amount: int = 1, **attributes: str) -> None:
        self._host.stats.add(name, amount, storage=self._host.id, **attributes)

    # --- what the thread reports ---

    def _settle(
        self, group: Sequence[Append], outcome: Sequence[Record] | Exception, micros: int
    ) -> None:
        """Tell everybody in a group what became of it."""
        for each in group:
            self._pending.pop(each.record.identity, None)
            self._waiting_bytes -= len(each.record.payload)
        if isinstance(outcome, Exception):
            self._failed(group, outcome)
            return
        self._count("otelier_wal_commits")
        self._count("otelier_wal_commit_microseconds", micros)
        self._host.stats.time("otelier_wal_commit_seconds", micros / 1e6, storage=self._host.id)
        for reader in self._readers.values():
            reader.arrived(outcome)
        for each, record in zip(group, outcome, strict=True):
            if not each.future.done():
                each.future.set_result(record.number)

    def _failed(self, group: Sequence[Append], error: Exception) -> None:
        self._count("otelier_wal_write_failed")
        if isinstance(error, OSError) and error.errno in FULL:
            self._refusing_since = self._clock()
        reason = (isinstance(error, OSError) and error.strerror) or f"{error!r}"
        self._report("cannot write to %s: %s; senders must try again", self.folder, reason)
        for each in group:
            if not each.future.done():
                each.future.set_exception(
                    Retryable(f"cannot write to the queue in {self.folder}: {reason}", HOLD_S)
                )
                each.future.exception()  # somebody may have stopped waiting
