"""
The folder of segments: opening after any crash, appending with fsync, removing what is delivered.

Blocking code; one thread opens, appends and removes, others may read. A reader is safe without a lock because a
segment's `end` moves only after fsync, and the list of segments is replaced, never changed.

What a crash can leave behind at the ends of files is repaired by segment_file.py. A damaged part in
the middle stays, is skipped and counted by those who read it, and the file gets a second name,
`<name>.bad`, that outlives its deletion.

After a failed write or fsync the descriptor is never used again: the kernel reports a loss once, so
a second fsync that succeeds proves nothing. The segment is cut back and left, and the same records
are written from memory to a new one. A segment says the number of its first record, and records of
the one before it from that number on do not count: what was never acknowledged cannot come back.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from collector.wal.files import Files
from collector.wal.format import (
    SEGMENT_HEADER,
    Bad,
    Head,
    Read,
    Record,
    heads,
    new_header,
    pack,
)
from collector.wal.reserve import Reserve
from collector.wal.segment_file import Damage, find_segment
from collector.wal.segment_file import Segment as Segment
from collector.wal.window import Window

NAME: Final = re.compile(r"(\d{20})\.wal")
FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Log:
    """
    The segments of one folder.

    Args:
        folder: where they are; see `open`.
        files: how files are worked on.
        now: the time in nanoseconds since the epoch.
        segment_bytes: a segment that reached this size is followed by a new one.
        reserve_bytes: disk space kept aside, so that a full disk still allows a clean close.
        sync: whether data is forced to disk before it counts as written.
    """

    def __init__(
        self,
        folder: Path,
        files: Files,
        now: Callable[[], int],
        *,
        segment_bytes: int,
        reserve_bytes: int = 0,
        sync: bool = True,
    ) -> None:
        self.folder = folder
        self.files = files
        self.segments: tuple[Segment, ...] = ()
        self.next = 1
        self.window = Window(folder / "window", files, now)
        self.damage = Damage()
        self.gaps: list[tuple[int, int]] = []
        """Numbers of records that are missing between segments: the first, and behind the last."""
        self.reserve = Reserve(folder, files, reserve_bytes)
        self.space = (1 << 62, 1 << 62)
        self._now = now
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._lock: int | None = None
        self._fd: int | None = None

    # --- opening ---

    def open(self) -> None:
        """
        Take the folder, and repair what a crash left.

        Raises:
            StartFailed: it is in use, or from a later version.
            OSError: it cannot be read or written.
        """
        self._lock = self.files.lock(self.folder / "lock")
        try:
            self.look(repair=True)
            self.window.load()
            self._measure()
            for name in self.files.names(self.folder):
                if name.endswith(".tmp"):
                    self.files.unlink(self.folder / name)
            self.reserve.keep()
        except BaseException:
            self.close()
            raise

    def look(self, *, repair: bool = False) -> None:
        """Find the segments; without `repair` nothing in the folder is touched."""
        found: list[Segment] = []
        names = [name for name in self.files.names(self.folder) if NAME.fullmatch(name)]
        for name in names:
            segment = find_segment(
                self.files, self.folder / name, self.damage, last=name == names[-1], repair=repair
            )
            if segment is not None:
                found.append(segment)
        self.segments = tuple(found)
        self.gaps = []
        for index, segment in enumerate(found):
            if index and segment.header.first > self.next:
                self.gaps.append((self.next, segment.header.first))
            limit = found[index + 1].header.first if index + 1 < len(found) else None
            self.next = max(self.next, segment.header.first)
            for each, route in self._heads(segment):
                if limit is not None and each.number >= limit:
                    break
                self.next = max(self.next, each.number + 1)
                segment.items[route] += each.items
                segment.records += 1
                if self.window.is_fresh(each.received_at):
                    self.window.add(each.identity, each.received_at)

    def _heads(self, segment: Segment) -> Iterator[tuple[Head, str]]:
        with self.reading(segment) as read:
            yield from heads(read, SEGMENT_HEADER, segment.end, segment.header.mark)

    # --- appending ---

    def write(self, records: Sequence[Record]) -> list[Record]:
        """
        Append records and force them to disk; returns them with their numbers.

        Raises:
            OSError: nothing of them counts as written.
        """
        try:
            segment = self._active()
            numbered = self._put(segment, records)
        except OSError as error:
            self._abandon()
            if error.errno in FULL:
                raise
            segment = self._create()
            try:
                numbered = self._put(segment, records)
            except OSError:
                self._abandon()
                raise
        self.next += len(numbered)
        for record in numbered:
            self.window.add(record.identity, record.request.received_at_unix_nano)
        self.window.forget()
        self._measure()
        return numbered

    def _active(self) -> Segment:
        """The segment to append to, with its descriptor open."""
        last = self.segments[-1] if self.segments else None
        if self._fd is None and last is not None and last.end == SEGMENT_HEADER:
            self._fd = self.files.open(last.path, write=True)
        if self._fd is None or last is None or last.end >= self._segment_bytes:
            return self._create()
        return last

    def _put(self, segment: Segment, records: Sequence[Record]) -> list[Record]:
        fd = self._fd
        if fd is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        numbered = [
            replace(record, number=self.next + index) for index, record in enumerate(records)
        ]
        data = b"".join(pack(record, segment.header.mark) for record in numbered)
        self.files.write_all(fd, data, segment.end)
        if self._sync:
            self.files.sync(fd)
        segment.records += len(records)
        for record in numbered:
            segment.items[record.route] += record.items
        segment.end += len(data)
        return numbered

    def _create(self) -> Segment:
        """A new segment at the end; it and its name are on disk."""
        self._release()
        name = self.next
        if self.segments:
            name = max(name, int(self.segments[-1].path.stem) + 1)
        while True:
            path = self.folder / f"{name:020}.wal"
            try:
                fd = self.files.create(path)
                break
            except FileExistsError:
                name += 1  # what a failure left; its records do not count, see `limits`
        header, data = new_header(self.next, self._now())
        try:
            self.files.write_all(fd, data, 0)
            self.files.sync(fd)
            self.files.sync_folder(self.folder)
        except OSError:
            self.files.close(fd)
            with contextlib.suppress(OSError):
                self.files.unlink(path)
            raise
        segment = Segment(path, header, len(data))
        self._fd = fd
        self.segments = (*self.segments, segment)
        return segment

    def _abandon(self) -> None:
        """Give the open segment up after a failure; what it has on disk stays readable."""
        fd = self._fd
        if fd is None or not self.segments:
            return
        segment = self.segments[-1]
        with contextlib.suppress(OSError):
            self.files.truncate(fd, segment.end)
            self.files.sync(fd)
        self._release()
        if segment.end == SEGMENT_HEADER:
            self.segments = self.segments[:-1]
            with contextlib.suppress(OSError):
                self.files.unlink(segment.path)

    def _release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                self.files.close(fd)

    # --- removing ---

    def remove_before(self, number: int) -> int:
        """
        Delete segments whose records all have lower numbers; how many there were.

        The last segment stays: its header remembers the next number.
        """
        gone = []
        for segment, following in zip(self.segments, self.segments[1:], strict=False):
            if following.header.first > number:
                break
            gone.append(segment)
        if not gone:
            self._measure()
            return 0
        self.window.save()
        for segment in gone:
            self.files.unlink(segment.path)
            self.segments = self.segments[1:]
        self._measure()
        return len(gone)

    def rotate(self) -> None:
        """Begin a new segment, so that the one before it can be removed."""
        if self.segments and self.segments[-1].end > SEGMENT_HEADER:
            self._create()

    # --- the rest ---

    def _measure(self) -> None:
        """Look how much disk is free; a failure here says nothing about what was written."""
        with contextlib.suppress(OSError):
            self.space = self.files.space(self.folder)

    @property
    def bytes(self) -> int:
        """Size of all segments."""
        return sum(segment.end for segment in self.segments)

    @contextlib.contextmanager
    def reading(self, segment: Segment) -> Iterator[Read]:
        """A function that reads from a segment."""
        fd = self.files.open(segment.path)
        try:
            yield lambda size, at: self.files.read(fd, size, at)
        finally:
            self.files.close(fd)

    def set_aside(self, segment: Segment, bad: Bad) -> bool:
        """Note a damaged part and keep its file; whether it was not known before."""
        if not self.damage.note(segment.path, bad):
            return False
        with contextlib.suppress(OSError):  # it has that name already, or links are unknown here
            self.files.link(segment.path, segment.path.with_suffix(".bad"))
        return True

    def close(self) -> None:
        """Let go of the folder."""
        self._release()
        lock, self._lock = self._lock, None
        if lock is not None:
            self.files.close(lock)
