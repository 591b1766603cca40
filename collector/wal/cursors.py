"""
The cursors of all exporters: loaded at the start, saved as they move, and what they let go of.

A cursor is saved before anything that it is past is deleted, so that a crash in between delivers
again and never skips. Everything that touches the log runs in its one thread (wal/writer.py).
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Final, Literal

from collector.model import Host
from collector.wal.cursor import Cursor, Reader, file_name, load_cursors
from collector.wal.losses import Losses
from collector.wal.segments import FULL, Log
from collector.wal.writer import Writer

CROWDED: Final = 4096
"""While there is no room, even a small segment that is delivered is replaced by an empty one."""


class Cursors:
    """
    Who reads a log, and how far each has come.

    Args:
        log: the log.
        writer: its thread.
        host: for the log of what is damaged.
        segment_bytes: a segment of this size is worth to be replaced when it is delivered.
        crowded: whether there is no room for new requests.
        report: for a cursor that cannot be saved, once a minute.
    """

    def __init__(
        self,
        log: Log,
        writer: Writer,
        host: Host,
        *,
        segment_bytes: int,
        crowded: Callable[[], bool],
        report: Callable[..., None],
    ) -> None:
        self.readers: dict[str, Reader] = {}
        self._log = log
        self._writer = writer
        self._host = host
        self._files = log.files
        self._folder = log.folder / "cursors"
        self._segment_bytes = segment_bytes
        self._crowded = crowded
        self._report = report
        self._cursors: dict[str, Cursor] = {}  # of all exporters, as they are on disk
        self._damaged = False
        self.losses = Losses(log.files, log.folder)
        self._saving = asyncio.Lock()

    def load(self, mode: int) -> None:
        """Read the cursors; blocking. A damaged one is put aside: its exporter starts anew."""
        self._files.make_folder(self._folder, mode)
        self.losses.load()
        self._cursors, damaged = load_cursors(self._files, self._folder)
        for name in damaged:
            self._files.rename(self._folder / name, self._folder / f"{name}.bad")
            self._damaged = True
            self._lost(f"cursor {name}", f"the cursor {name} was damaged: all is delivered again")
        for name in self._files.names(self._folder):
            if name.endswith(".tmp"):
                self._files.unlink(self._folder / name)
        self._look_for_losses()

    def _look_for_losses(self) -> None:
        """Note what is missing, say it, count it."""
        losses, segments = self.losses, self._log.segments
        before = len(losses.found)
        gaps = list(self._log.gaps)
        waits = min((each.next for each in self._cursors.values()), default=None)
        if segments and waits is not None and waits < segments[0].header.first:
            gaps.insert(0, (waits, segments[0].header.first))
        self._log.next = max([self._log.next, *(each.next for each in self._cursors.values())])
        if self._log.next < losses.next:
            gaps.append((self._log.next, losses.next))
            self._log.next = losses.next
        for first, stop in gaps:
            text = f"requests {first} to {stop - 1} are missing in {self._log.folder}"
            if self._lost(f"gap {first} {stop}", text):
                self._host.stats.add("otelier_wal_gap_records", stop - first, storage=self._host.id)
        for name, _ in sorted(self._log.damage.places):
            self._lost(f"segment {name}", f"{name} was damaged and put aside as *.bad")
        nobody = not self._cursors and losses.exporters is None
        if nobody and any(each.records for each in segments):
            self._damaged = True
            self._lost(f"cursors {self._log.next}", "all cursors are gone: all is delivered again")
        for exporter in losses.exporters or ():
            if exporter not in self._cursors:  # until it reads again, nothing may be deleted
                first = segments[0].header.first if segments else self._log.next
                self._cursors[exporter] = cursor = Cursor(exporter, first)
                cursor.save(self._files, self._folder)
                self._lost(f"cursor {exporter} {self._log.next}", missing_cursor(exporter))
        if len(losses.found) != before:
            losses.save()

    def _lost(self, name: str, text: str) -> bool:
        new = self.losses.add(name, text)
        if new:
            self._host.log.error(
                "%s; `collector queue acknowledge` says that you have seen it", text
            )
        return new

    def orphans(self) -> list[str]:
        """Exporters that have a cursor and do not read."""
        return [name for name in self._cursors if name not in self.readers]

    def knows(self, exporter: str) -> bool:
        """Whether an exporter has a cursor here."""
        return exporter in self._cursors

    async def reader(
        self, exporter: str, routes: Collection[str], start: Literal["now", "oldest"] = "now"
    ) -> Reader:
        """See `FileStorage.reader`."""
        fed = {*routes, f"@{exporter}"}

        def make() -> Reader:
            known = self._cursors.get(exporter)
            if known is None:
                oldest = [each.header.first for each in self._log.segments[:1]] or [self._log.next]
                again = start == "oldest" or self._damaged
                first = oldest[0] if again else self._log.next
                cursor = Cursor(exporter, first, routes=tuple(sorted(fed)))
            else:
                cursor = known.feed(fed, self._log.next)
            if cursor != known:
                cursor.save(self._files, self._folder)
            reader = Reader(self._log, cursor)
            reader.measure()
            self._cursors[exporter] = cursor
            self.losses.know({*(self.losses.exporters or ()), *self._cursors})
            return reader

        def register(reader: Reader) -> None:
            self.readers[exporter] = reader

        return await self._writer.job(make, register)

    async def release(self, exporter: str) -> None:
        """An exporter reads no more. Its cursor stays, and keeps what it has not delivered."""
        await self.try_checkpoint()
        reader = self.readers.pop(exporter, None)
        if reader is not None:
            reader.close()
            self._cursors[exporter] = reader.cursor()

    async def forget_idle(self, exporter: str) -> None:
        """Take the cursor of an exporter away, unless something waits for it."""
        reader = self.readers.get(exporter)
        if reader is None or reader.lag_items:
            return
        await self.release(exporter)
        self._cursors.pop(exporter, None)
        path = self._folder / f"{file_name(exporter)}.json"
        with contextlib.suppress(OSError):  # it is named at the next start then, and can be dropped
            await self._writer.job(lambda: self.losses.know(self._cursors))
            await asyncio.to_thread(self._files.unlink, path)

    async def try_checkpoint(self) -> bool:
        """Save the cursors; when that fails it is reported, and nothing is deleted."""
        try:
            await self.checkpoint()
        except OSError as error:
            self._report("cannot save cursors in %s: %s", self._log.folder, error)
            return False
        return True

    async def checkpoint(self) -> None:
        """
        Save the cursors that moved, then delete what every exporter has delivered.

        Raises:
            OSError: a cursor cannot be saved; nothing is deleted then.
        """
        async with self._saving:
            moved = [
                cursor
                for cursor in (reader.cursor() for reader in self.readers.values())
                if self._cursors.get(cursor.exporter) != cursor
            ]
            for cursor in moved:
                await asyncio.to_thread(self._save, cursor)
                self._cursors[cursor.exporter] = cursor
            lowest = min((each.next for each in self._cursors.values()), default=None)
            if lowest is not None:
                await self._writer.job(lambda: self._remove(lowest))

    def note_end(self) -> None:
        """Write down how far the log has come; blocking, at a clean stop."""
        self.losses.next = self._log.next
        self.losses.save()

    def close(self) -> None:
        """End all readers."""
        for reader in self.readers.values():
            reader.close()

    def _save(self, cursor: Cursor) -> None:
        self._with_reserve(lambda: cursor.save(self._files, self._folder))

    def _remove(self, lowest: int) -> None:
        def remove() -> None:
            log = self._log
            used = log.segments[-1].end if log.segments else 0
            crowded = self._crowded() and used > CROWDED
            if lowest >= log.next and (used >= self._segment_bytes or crowded):
                log.rotate()  # the last segment stays, so it must not be the large one
            log.remove_before(lowest)

        self._with_reserve(remove)
        self._log.reserve.keep()

    def _with_reserve(self, work: Callable[[], None]) -> None:
        """Do what makes room again; on a full disk with the room that was kept aside."""
        try:
            work()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._log.reserve.give()
            work()


def missing_cursor(exporter: str) -> str:
    """What is said of an exporter that had a cursor."""
    return f'the cursor of "{exporter}" is gone: all that is in the queue is delivered to it again'
