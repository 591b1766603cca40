"""
The folder of segments: opening after any crash, appending with fsync, removing what is delivered.

Blocking code; one thread opens, appends and removes, others may read. A reader is safe without a lock because a
segment's `end` moves only after fsync, and the list of segments is replaced, never changed.

What a crash can leave behind, and what opening does: a torn tail of the last segment is cut (its
bytes are kept in `<name>.torn`); a damaged part in the middle stays, is skipped and counted by
those who read it, and the file gets a second name, `<name>.bad`, that outlives its deletion; a
segment without a readable header becomes `.bad` whole; a segment of a later version refuses to open.
Nothing is ever recreated empty.

After a failed write or fsync the descriptor is never used again: the kernel reports a loss once, so
a second fsync that succeeds proves nothing. The segment is cut back and left, and the same records
are written from memory to a new one. A segment says the number of its first record, and records of
the one before it from that number on do not count: what was never acknowledged cannot come back.
"""

import contextlib
import errno
import os
import re
import struct
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from collector.errors import StartFailed
from collector.wal.files import Files
from collector.wal.format import (
    SEGMENT_HEADER,
    Bad,
    Head,
    Header,
    NewerFormatError,
    Read,
    Record,
    heads,
    new_header,
    pack,
    read_header,
    walk,
)

NAME: Final = re.compile(r"(\d{20})\.wal")
FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

WINDOW_NS: Final = 15 * 60 * 10**9
"""How long a request is recognised when it comes again."""
WINDOW_KEYS: Final = 100_000
_WINDOW_MAGIC: Final = b"OTELIERD\x01\0\0\0"
_KEY: Final = struct.Struct("<16sQ")

Window = OrderedDict[bytes, int]
"""Identity -> when its request was received, oldest first."""


@dataclass(slots=True)
class Segment:
    """
    One file of records.

    Args:
        path: where it is.
        header: what it says about itself.
        end: how many of its bytes are known to be on disk.
        items: how many items it holds for each route.
        records: how many records it holds.
    """

    path: Path
    header: Header
    end: int
    items: Counter[str] = field(default_factory=Counter)
    records: int = 0


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
        self.window: Window = OrderedDict()
        self.damaged: set[tuple[str, int]] = set()
        self.lost_bytes = 0
        self.torn_bytes = 0
        self.space = (1 << 62, 1 << 62)
        self._now = now
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
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
            self._load_window()
            self._measure()
            for name in self.files.names(self.folder):
                if name.endswith(".tmp"):
                    self.files.unlink(self.folder / name)
            self.keep_reserve()
        except BaseException:
            self.close()
            raise

    def look(self, *, repair: bool = False) -> None:
        """Find the segments; without `repair` nothing in the folder is touched."""
        found: list[Segment] = []
        names = [name for name in self.files.names(self.folder) if NAME.fullmatch(name)]
        for name in names:
            segment = self._find(self.folder / name, last=name == names[-1], repair=repair)
            if segment is not None:
                found.append(segment)
        self.segments = tuple(found)
        fresh = self._now() - WINDOW_NS
        for index, segment in enumerate(found):
            limit = found[index + 1].header.first if index + 1 < len(found) else None
            self.next = max(self.next, segment.header.first)
            for each, route in self._heads(segment):
                if limit is not None and each.number >= limit:
                    break
                self.next = max(self.next, each.number + 1)
                segment.items[route] += each.items
                segment.records += 1
                if each.received_at >= fresh:
                    self.window[each.identity] = each.received_at

    def _heads(self, segment: Segment) -> Iterator[tuple[Head, str]]:
        with self.reading(segment) as read:
            yield from heads(read, SEGMENT_HEADER, segment.end, segment.header.mark)

    def _find(self, path: Path, *, last: bool, repair: bool) -> Segment | None:
        fd = self.files.open(path, write=repair)
        try:
            size = self.files.size(fd)
            start = self.files.read(fd, SEGMENT_HEADER, 0)
            try:
                header = read_header(start) if size >= SEGMENT_HEADER else None
            except NewerFormatError as newer:
                raise StartFailed(
                    f"{path} was written by a later version ({newer}): start that version again "
                    "until `collector queue ls` shows nothing waiting, or move the folder "
                    f"{self.folder} away; it is not touched"
                ) from None
            if header is not None:
                if last and repair:
                    size = self._cut_tail(fd, path, size, header)
                return Segment(path, header, size)
        finally:
            self.files.close(fd)
        if repair:
            if size < SEGMENT_HEADER or (last and not start.strip(b"\0") and size == len(start)):
                self.files.unlink(path)  # its creation was cut short: it never held a record
            else:
                self.files.rename(path, path.with_suffix(".bad"))
                self.damaged.add((path.name, 0))
                self.lost_bytes += size
            self.files.sync_folder(self.folder)
        return None

    def _cut_tail(self, fd: int, path: Path, size: int, header: Header) -> int:
        """Cut what stands behind the last valid record; the new size."""

        def read(amount: int, at: int) -> bytes:
            return self.files.read(fd, amount, at)

        torn = None
        for _, found in walk(read, SEGMENT_HEADER, size, header.mark):
            if isinstance(found, Bad) and found.last:
                torn = found.start
        if torn is None:
            return size
        aside = path.with_suffix(".torn")
        rest = self.files.read(fd, min(size - torn, 64 << 20), torn)
        if rest.strip(b"\0"):
            with contextlib.suppress(OSError):  # a full disk must not keep the log from opening
                self.files.replace(aside, rest)
        self.files.truncate(fd, torn)
        self.files.sync(fd)
        self.torn_bytes += size - torn
        return torn

    def _load_window(self) -> None:
        try:
            data = self.files.read_all(self.folder / "window")
        except FileNotFoundError:
            return
        body, check = data[:-4], data[-4:]
        if not body.startswith(_WINDOW_MAGIC) or zlib.crc32(body) != int.from_bytes(check):
            return  # repeats may be stored again by files; stores recognise them by their ids
        merged = dict(_KEY.iter_unpack(body[len(_WINDOW_MAGIC) :]))
        merged.update(self.window)
        self.window = OrderedDict(sorted(merged.items(), key=lambda item: item[1]))
        self.forget()

    def forget(self) -> None:
        """Drop from the window what is too old or too much."""
        oldest = self._now() - WINDOW_NS
        window = self.window
        while window and (len(window) > WINDOW_KEYS or next(iter(window.values())) < oldest):
            window.popitem(last=False)

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
            self.window[record.identity] = record.request.received_at_unix_nano
        self.forget()
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
        self._save_window()
        for segment in gone:
            self.files.unlink(segment.path)
            self.segments = self.segments[1:]
        self._measure()
        return len(gone)

    def rotate(self) -> None:
        """Begin a new segment, so that the one before it can be removed."""
        if self.segments and self.segments[-1].end > SEGMENT_HEADER:
            self._create()

    def _save_window(self) -> None:
        """Keep the identities that are about to lose their records."""
        self.forget()
        body = _WINDOW_MAGIC + b"".join(_KEY.pack(*pair) for pair in self.window.items())
        self.files.replace(self.folder / "window", body + zlib.crc32(body).to_bytes(4))

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

    def damage(self, segment: Segment, bad: Bad) -> bool:
        """Note a damaged part and keep its file aside; whether it was not known before."""
        key = (segment.path.name, bad.start)
        if key in self.damaged:
            return False
        self.damaged.add(key)
        self.lost_bytes += bad.stop - bad.start
        with contextlib.suppress(OSError):  # it has that name already, or links are unknown here
            self.files.link(segment.path, segment.path.with_suffix(".bad"))
        return True

    def keep_reserve(self) -> None:
        """Take the reserve, when there is room for it; without it a full disk is only less kind."""
        path = self.folder / "reserve"
        if not self._reserve_bytes or path.exists():
            return
        free, _ = self.files.space(self.folder)
        if free < 4 * self._reserve_bytes:
            return
        with contextlib.suppress(OSError):
            fd = self.files.create(path)
            try:
                self.files.allocate(fd, self._reserve_bytes)
            except OSError:
                self.files.unlink(path)
                raise
            finally:
                self.files.close(fd)

    def give_reserve(self) -> None:
        """Free the reserve."""
        with contextlib.suppress(OSError):
            self.files.unlink(self.folder / "reserve")

    def close(self) -> None:
        """Let go of the folder."""
        self._release()
        lock, self._lock = self._lock, None
        if lock is not None:
            self.files.close(lock)
