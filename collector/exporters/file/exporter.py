"""
The file exporter: batches as lines, for people who `tail` and `grep`.

The call returns when the lines are on disk (`fsync: batch`), because acknowledged means stored. What
a batch adds to a file is one write of whole lines in O_APPEND; a write that fails half-way is cut
back, in all files of the batch, so that a resend does not stand there twice. Whatever a crash left
behind the last newline is moved to `<path>.torn` at open: it was never acknowledged, but it is not
ours to delete.

All work on the files, and the encoding before it, happens in one thread per exporter: the loop
never waits for a disk, and no two writes can meet, not even when a caller is cancelled. A file is
locked for as long as it is open, because cutting back is only safe for a single writer. When
the file is moved or deleted (logrotate), the next batch opens a new one. Files that were put
aside are compressed in a second thread of low priority.

A failed fsync is final for its descriptor (the kernel may have dropped the pages and reports it
once): the file is opened again before anything else is acknowledged.

    routes    which file a record belongs to      format    what stands in it
    writers   one batch into several files        rotation  when a file is put aside
    targets   the files of an exporter, pieces    cleanup   when that is done
    paths     names that come from data           backups   compressing and deleting
    journal   what was written before a kill
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

from collector.errors import Retryable, StartFailed
from collector.exporters.file.appender import Appender, explain, make_folders
from collector.exporters.file.cleanup import Cleanup
from collector.exporters.file.config import (
    FileSettings,
)
from collector.exporters.file.journal import Journal, identity
from collector.exporters.file.rotation import Keeping
from collector.exporters.file.targets import Sorter
from collector.exporters.file.writers import Writers
from collector.model import Batch, Host

OPEN_FILES: Final = 100
TURN_S: Final = 60.0
BUSY_S: Final = 3.0
"""When a sender should try again after the disk was full."""


class File:
    """
    Appends batches to files.

    Args:
        config: which.
        host: what the service gives.
        clock: seconds since 1970; the day of a file is the day of writing.
        turn_s: how often files of days that are over are looked for.
    """

    Config = FileSettings

    def __init__(
        self,
        config: FileSettings,
        host: Host,
        clock: Callable[[], float] = time.time,
        turn_s: float = TURN_S,
    ) -> None:
        self.config = config
        self.host = host
        self._clock = clock
        self._turn_s = turn_s
        self._sorter = Sorter(config, self._refused)
        self._writers = Writers(
            limit=config.group_by.max_open_files if config.group_by else OPEN_FILES,
            sync=config.fsync != "never",
            folder_mode=int(config.directory_permissions, 8),
            torn=self._torn,
            turned=self._turned,
        )
        self._cleanup = Cleanup(host, clock, self._sorter.taken)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"file {host.id}")
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: Appender | None = None
        self._journal: Journal | None = None
        self._unheard = False
        self._name_reported = False

    def describe(self) -> str:
        """Where the lines go."""
        config = self.config
        parts = [f"{len(config.routes)} files by routes"] if config.routes else []
        if config.path:
            what = "frames" if config.format.endswith("proto") else "lines"
            parts.append(f"{config.format} {what} in {config.path}")
        return ", ".join(parts)

    @property
    def durability(self) -> str:
        """What an answer means."""
        return {
            "batch": "answered after fsync",
            "interval": f"fsync every {self.config.flush_interval:g}s: "
            "a power cut loses what was answered since the last one",
            "never": "no fsync: a power cut loses what was answered",
        }[self.config.fsync]

    async def __aenter__(self) -> Self:
        """Open the files, or say in one line why that cannot be done."""
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._thread.shutdown()
            await asyncio.to_thread(self._cleanup.close)
            raise
        if self.config.fsync == "interval":
            self._tasks.append(asyncio.create_task(self._sync_forever()))
        if any(target.keeping.rotation for target in self._sorter.targets()):
            self._tasks.append(asyncio.create_task(self._turn_forever()))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Force everything to disk, as far as the settings ask for it, and close."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        try:
            await self._in_thread(self._close)
        finally:
            self._thread.shutdown(wait=False)
            await asyncio.to_thread(self._cleanup.close)

    async def __call__(self, batch: Batch) -> None:
        """
        Append a batch.

        Raises:
            Retryable: the disk is full or failing; nothing of the batch is in any file.
        """
        try:
            await self._in_thread(self._take, batch)
        except OSError as error:
            reason = f"cannot write to {error.filename}: {error.strerror or error}"
            raise Retryable(reason, delay_s=BUSY_S) from error
        except asyncio.CancelledError:
            self._unheard = True  # it is written, and may come again at the next start
            raise

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # --- in the thread ---

    def _open(self) -> None:
        now = self._clock()
        for target in self._sorter.targets():
            pattern = target.keeping.pattern
            path = pattern.fill("").path if target.groups is None else Path(pattern.path)
            try:
                if self.config.create_directory:
                    make_folders(pattern.base, int(self.config.directory_permissions, 8))
                if target.groups is None:
                    self._writers.open(target, now)
                else:  # its files come with the data: two writers must meet at the start
                    self._lock = Appender(pattern.lock)
                    self._lock.open()
            except OSError as error:
                self._close()
                raise StartFailed(explain(path, error)) from error
            if target.keeping.compression and target.keeping.rotation is None:
                self.host.log.warning(
                    "compression of %s has no effect: only files that rotation puts aside are "
                    "compressed; add rotation",
                    pattern.path,
                )
            self._cleanup.due(target.keeping)
        if self.config.fsync == "batch":  # else what was done is not on disk for sure
            first = next(self._sorter.targets()).keeping.pattern
            journal = Journal(first.journal.path, self._torn)
            try:
                journal.open()
            except OSError as error:
                self.host.log.warning(
                    "cannot write %s: %s; after a kill a request may be written twice",
                    journal.path, error.strerror,
                )  # fmt: skip
            else:
                self._journal = journal

    def _close(self) -> None:
        try:
            self._writers.close()
        finally:
            if self._lock is not None:
                self._lock.close(sync=False)
            if self._journal is not None:
                self._journal.close(keep=self._unheard)

    def _take(self, batch: Batch) -> None:
        journal, sync = self._journal, self.config.fsync == "batch"
        request = identity(batch) if journal is not None else b""
        if journal is not None and journal.knows(request):
            self.host.stats.add("otelier_file_recognised_requests", exporter=self.host.id)
            return
        pieces, lost = self._sorter.pieces(batch)
        if lost:
            self.host.stats.add("otelier_file_not_routed", lost, exporter=self.host.id)
        if not pieces:
            return
        self._writers.write(pieces, self._clock(), sync=sync, journal=journal, request=request)
        if journal is not None:
            journal.done(request)

    def _torn(self, path: Path, size: int) -> None:
        self.host.stats.add("otelier_file_torn_bytes", size, exporter=self.host.id)
        self.host.log.warning(
            "%s ended in the middle of a record; its last %d bytes are now in %s.torn",
            path, size, path,
        )  # fmt: skip

    def _turned(self, kept: Keeping) -> None:
        self.host.stats.add("otelier_file_rotated", exporter=self.host.id)
        self._cleanup.due(kept)

    def _refused(self) -> None:
        self.host.stats.add("otelier_file_refused_names", exporter=self.host.id)
        if not self._name_reported and self.config.group_by is not None:
            self._name_reported = True
            self.host.log.warning(
                'group_by: a value of %s may not become part of a path; such records are in "%s"; '
                "see allowed and max_groups, and the counter otelier_file_refused_names",
                self.config.group_by.resource_attribute,
                self.config.group_by.otherwise,
            )

    def _turn(self) -> None:
        self._writers.turn(self._clock())
        for target in self._sorter.targets():
            self._cleanup.due(target.keeping)

    def _sync(self) -> None:
        for path, error in self._writers.sync():
            self.host.stats.add("otelier_file_sync_failed", exporter=self.host.id)
            self.host.log.warning("cannot sync %s: %s", path, error)

    # --- from time to time ---

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self.config.flush_interval)
            await self._in_thread(self._sync)

    async def _turn_forever(self) -> None:
        while True:
            await asyncio.sleep(self._turn_s)
            try:
                await self._in_thread(self._turn)
            except OSError as error:
                self.host.stats.add("otelier_file_sync_failed", exporter=self.host.id)
                self.host.log.warning("cannot close the file of a day that is over: %s", error)
