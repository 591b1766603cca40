"""
One file of the durable log: finding out what it is, and repairing what a crash left in it.

A torn tail of the last segment is cut, and its bytes are kept in `<name>.torn`. A file without a
readable header becomes `.bad` whole, a segment of a later version refuses to open. Nothing is ever
recreated empty.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from collector.errors import StartFailed
from collector.wal.files import Files
from collector.wal.format import SEGMENT_HEADER, Bad, Header, NewerFormatError, read_header, walk


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


@dataclass(slots=True)
class Damage:
    """
    What was found damaged in a folder.

    Args:
        places: files and the offsets in them, each noted once.
        lost_bytes: bytes that cannot be read.
        torn_bytes: bytes cut from the end of the last segment: they were never acknowledged.
    """

    places: set[tuple[str, int]] = field(default_factory=set)
    lost_bytes: int = 0
    torn_bytes: int = 0

    def note(self, path: Path, bad: Bad) -> bool:
        """Note a damaged part; whether it was not known before."""
        place = (path.name, bad.start)
        if place in self.places:
            return False
        self.places.add(place)
        self.lost_bytes += bad.stop - bad.start
        return True


def find_segment(
    files: Files, path: Path, found: Damage, *, last: bool, repair: bool
) -> Segment | None:
    """
    The segment in a file; None when it is none, and what it was is then put aside.

    Args:
        files: how files are worked on.
        path: of the file.
        found: collects what is damaged.
        last: whether it is the newest one, whose end a crash may have torn.
        repair: cut and put aside; else nothing is touched.

    Raises:
        StartFailed: a later version wrote it.
    """
    fd = files.open(path, write=repair)
    try:
        size = files.size(fd)
        start = files.read(fd, SEGMENT_HEADER, 0)
        try:
            header = read_header(start) if size >= SEGMENT_HEADER else None
        except NewerFormatError as newer:
            raise StartFailed(
                f"{path} was written by a later version ({newer}): start that version again "
                "until `collector queue ls` shows nothing waiting, or move the folder "
                f"{path.parent} away; it is not touched"
            ) from None
        if header is not None:
            if last and repair:
                whole = _cut_tail(files, fd, path, size, header.mark)
                found.torn_bytes += size - whole
                size = whole
            return Segment(path, header, size)
    finally:
        files.close(fd)
    if repair:
        if size < SEGMENT_HEADER or (last and not start.strip(b"\0") and size == len(start)):
            files.unlink(path)  # its creation was cut short: it never held a record
        else:
            files.rename(path, path.with_suffix(".bad"))
            found.places.add((path.name, 0))
            found.lost_bytes += size
        files.sync_folder(path.parent)
    return None


def _cut_tail(files: Files, fd: int, path: Path, size: int, mark: bytes) -> int:
    """Cut what stands behind the last valid record; the new size."""

    def read(amount: int, at: int) -> bytes:
        return files.read(fd, amount, at)

    torn = None
    for _, part in walk(read, SEGMENT_HEADER, size, mark):
        if isinstance(part, Bad) and part.last:
            torn = part.start
    if torn is None:
        return size
    aside = path.with_suffix(".torn")
    rest = files.read(fd, min(size - torn, 64 << 20), torn)
    if rest.strip(b"\0"):
        with contextlib.suppress(OSError):  # a full disk must not keep the log from opening
            files.replace(aside, rest)
    files.truncate(fd, torn)
    files.sync(fd)
    return torn
