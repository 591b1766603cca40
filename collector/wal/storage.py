"""
The durable log: requests are on disk before the client is answered.

    receiver -> processors -> append, fsync -> answer        one copy, whatever the number of exporters
    exporter <- reader at its own cursor                     none waits for another

One thread appends. All requests that wait while it forces data to disk are written together and
share the next fsync (group commit), so the cost of durability falls as load grows. The answer to a
request depends on the log alone: an exporter that is down makes no client wait and nothing repeat.

Requests that come again within 15 minutes (the client did not get the answer) are recognised by a
hash and answered as taken, also after a restart. When the log approaches its budget, or the disk is
nearly full, new requests are refused before anything fails, and accepted again when there is clearly
room; nothing that was acknowledged is ever dropped to make room.

It is the extension `file_storage`, the name that the OpenTelemetry Collector uses, because exporters
refer to it by `sending_queue: {storage: file_storage}`. The bytes are in wal/format.py, the folder
in wal/segments.py, cursors in wal/cursors.py, when it is full in wal/budget.py.
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
from collector.wal.budget import HOLD_S, Budget
from collector.wal.config import WalConfig
from collector.wal.cursor import Reader as Reader
from collector.wal.cursor import file_name as file_name
from collector.wal.cursors import Cursors
from collector.wal.files import Files as Files
from collector.wal.format import Record as Record
from collector.wal.segments import FULL, Log
from collector.wal.writer import Append, Writer

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
        self.state_folder = self.folder  # where receivers remember what outlives a kill
        self.files = files or Files()
        self._host = host
        self._now = now
        self._log = Log(
            self.folder,
            self.files,
            now,
            segment_bytes=config.segment_bytes,
            reserve_bytes=config.reserve_bytes,
            sync=config.fsync,
        )
        self._writer = Writer(f"wal {host.id}", self._log, self._settle)
        self._report = QuietLog(host.log, clock).warning
        self._cursors = Cursors(
            self._log,
            self._writer,
            host,
            segment_bytes=config.segment_bytes,
            crowded=lambda: self._budget.refusing,
            report=self._report,
        )
        self._readers = self._cursors.readers
        self._budget = Budget(
            config, self._log, self._readers, clock=clock, now=now, refused=self._refused
        )
        self._checking: asyncio.Task[None] | None = None
        self._pending: dict[bytes, asyncio.Future[int]] = {}
        self._open = False

    def describe(self) -> str:
        """Where the log is, and cursors that no exporter uses."""
        text = f"durable queue in {self.folder}"
        orphans = self._cursors.orphans()
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
        if log.damage.torn_bytes:
            self._host.stats.add(
                "otelier_wal_torn_bytes", log.damage.torn_bytes, storage=self._host.id
            )
        self._cursors.losses.show(self._host)
        return self

    def _start(self) -> None:
        mode = int(self.config.directory_permissions, 8)
        if self.config.create_directory:
            self.files.make_folder(self.folder, mode)
        self._log.open()
        try:
            self._cursors.load(mode)
        except BaseException:
            self._log.close()
            raise

    async def __aexit__(self, *exc: object) -> None:
        """Write what waits, save the cursors, let go of the folder."""
        self._open = False
        self._host.health.problems.pop(self._host.id, None)
        self._host.stats.unwatch(self._publish)
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        self._cursors.close()
        try:
            await self.checkpoint()
        except OSError as error:
            self._host.log.warning("cannot save cursors in %s: %s", self.folder, error)
        with contextlib.suppress(OSError):  # the disk is full: the next start knows less
            await self._writer.job(self._cursors.note_end)
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
        identity = identity_of(batch, route, payload, whole=whole)
        if again:
            identity = secrets.token_bytes(16)
        known = self._pending.get(identity)
        if known is not None:
            await asyncio.shield(known)  # fails as the first one does
        if known is not None or self._log.window.holds(identity):
            self._count("otelier_wal_deduplicated_items", items, signal=batch.signal.value)
            return None
        if not self._open:
            raise Retryable(f"the queue in {self.folder} is closed", 1.0)
        self._budget.admit(len(payload))
        record = Record(0, identity, batch.signal, batch.request, route, items, payload)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending[identity] = future
        self._budget.waiting_bytes += len(payload)
        self._writer.append(Append(record, future))
        return await asyncio.shield(future)

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
        return await self._cursors.reader(exporter, routes, start)

    async def release(self, exporter: str) -> None:
        """An exporter reads no more. Its cursor stays, and keeps what it has not delivered."""
        await self._cursors.release(exporter)

    def knows(self, exporter: str) -> bool:
        """Whether an exporter has a cursor here."""
        return self._cursors.knows(exporter)

    async def forget_idle(self, exporter: str) -> None:
        """Take the cursor of an exporter away, unless something waits for it."""
        await self._cursors.forget_idle(exporter)

    async def checkpoint(self) -> None:
        """
        Save the cursors that moved, then delete what every exporter has delivered.

        Raises:
            OSError: a cursor cannot be saved; nothing is deleted then.
        """
        await self._cursors.checkpoint()

    def oldest_s(self) -> float:
        """How long ago the oldest request was received that some exporter has not delivered."""
        return self._budget.oldest_s()

    def _refused(self, reason: str) -> None:
        self._count("otelier_wal_refused_requests", reason=reason)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            if not await self._cursors.try_checkpoint():
                self._count("otelier_wal_cursor_save_failed")
            if self._cursors.losses.found:
                await self._writer.job(self._cursors.losses.look_again)
            self._cursors.losses.show(self._host)
            self._publish()

    def _publish(self) -> None:
        add, gauge, storage = self._host.stats.add, self._host.stats.set, self._host.id
        gauge("otelier_wal_bytes", self._log.bytes, storage=storage)
        gauge("otelier_wal_capacity_bytes", self.config.max_bytes, storage=storage)
        gauge("otelier_wal_refusing", int(self._budget.refusing), storage=storage)
        orphans = len(self._cursors.orphans())
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
        """Answer everything in a group."""
        for each in group:
            self._pending.pop(each.record.identity, None)
            self._budget.waiting_bytes -= len(each.record.payload)
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
            self._budget.refuse()
        reason = (isinstance(error, OSError) and error.strerror) or f"{error!r}"
        self._report("cannot write to %s: %s; senders must try again", self.folder, reason)
        for each in group:
            if not each.future.done():
                each.future.set_exception(
                    Retryable(f"cannot write to the queue in {self.folder}: {reason}", HOLD_S)
                )
                each.future.exception()  # the client may have stopped waiting


def identity_of(batch: Batch, route: str, payload: bytes, *, whole: bool) -> bytes:
    """Equal for a request and its resend on one route; other parts of one request differ."""
    digest = hashlib.blake2b(batch.request.key, digest_size=16, person=b"wal-route")
    digest.update(route.encode())
    if not whole:  # a processor changed it, and may have made several parts of one request
        digest.update(b"\0")
        digest.update(payload)
    return digest.digest()
