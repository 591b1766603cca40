"""
Files that were put aside: compressed, counted, and deleted when they are too old or too many.

A thread of low priority does it, never the one that writes. A file is compressed into a temporary
one, which is forced to disk, renamed, and only then is the original deleted: a crash leaves the
original, and at most a temporary file that the next attempt replaces. What comes out is one member
or frame that gunzip and unzstd read.

A file is locked while it is compressed or deleted. So one that another program still writes to, whatever
its name, is left alone, and two collectors on one folder do not compress the same file.
"""

import contextlib
import datetime as dt
import errno
import fcntl
import gzip
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

import zstandard

from collector.exporters.file.appender import MODE
from collector.exporters.file.config import Rotation
from collector.exporters.file.paths import STAMP, Place
from collector.exporters.file.rotation import Keeping, day

BLOCK: Final = 1 << 18
ENDINGS: Final = {"gzip": ".gz", "zstd": ".zst"}
GZIP_LEVEL: Final = 6
ZSTD_LEVEL: Final = 3


class Stopped(Exception):
    """The collector stops; the next start goes on."""


@dataclass(frozen=True, slots=True)
class Backup:
    """
    A file that was put aside.

    Args:
        name: of the file.
        group: what stands for the `*` of its path.
        stamp: the day, or the time, in its name.
        number: behind it, when there were several.
        packed: its ending, when it is compressed.
    """

    name: str
    group: str
    stamp: str
    number: int
    packed: str

    @property
    def day(self) -> dt.date:
        """The day in its name."""
        return dt.date.fromisoformat(self.stamp[:10])

    @property
    def age(self) -> tuple[str, int]:
        """Sorts the older ones first; a file of the whole day ends after its parts."""
        return self.stamp if "T" in self.stamp else f"{self.stamp}U", self.number


def tidy(
    keeping: Keeping, now: float, reserved: frozenset[str], stop: threading.Event
) -> tuple[int, int]:
    """
    Compress and delete what was put aside.

    Args:
        keeping: the rules.
        now: seconds since 1970.
        reserved: paths that belong to others, although they fit the pattern.
        stop: set when the collector stops.

    Returns:
        How many files were compressed, and how many deleted.

    Raises:
        Stopped: before it was done.
        OSError: it cannot be done now.
    """
    rotation = keeping.rotation
    if rotation is None:
        return 0, 0
    today = day(now, localtime=rotation.localtime)
    packed = deleted = 0
    for folder_group, place in keeping.pattern.folders():
        with contextlib.suppress(FileNotFoundError), place.folder() as folder:
            groups: dict[str, list[Backup]] = {}
            for each in backups(folder, place, folder_group):
                if os.path.abspath(keeping.pattern.fill(each.group).path) not in reserved:  # noqa: PTH100
                    groups.setdefault(each.group, []).append(each)
            for found in groups.values():
                aside = [each for each in found if not _is_written(each, today)]
                old = surplus(aside, rotation, today)
                for each in old:
                    if stop.is_set():
                        raise Stopped
                    deleted += _delete(folder, each.name)
                ending = ENDINGS.get(keeping.compression, "")
                for each in aside:
                    if ending and not each.packed and each not in old:
                        packed += pack(folder, each, keeping, stop)
    return packed, deleted


def _is_written(backup: Backup, today: dt.date) -> bool:
    """Whether it is the file of a day that is not over."""
    return "T" not in backup.stamp and not backup.packed and backup.day >= today


def backups(folder: int, place: Place, group: str | None) -> Iterator[Backup]:
    """
    The files in a folder that were put aside.

    Args:
        folder: its descriptor.
        place: a file there, its name with a `*` when each file has a group of its own.
        group: of the whole folder.
    """
    stem, ending = os.path.splitext(place.name)  # noqa: PTH122 - a name, not a path
    before, star, behind = stem.partition("*")
    if not star:
        before, star, behind = stem, "", ""
    middle = "(?P<group>.+)" if star else "(?P<group>)"
    shape = re.compile(
        f"{re.escape(before)}{middle}{re.escape(behind)}-(?P<stamp>{STAMP})"
        rf"(?:\.(?P<number>\d{{1,6}}))?{re.escape(ending)}(?P<packed>\.gz|\.zst)?",
        re.DOTALL,
    )
    for name in sorted(os.listdir(folder)):
        found = shape.fullmatch(name)
        if found is None:
            continue
        backup = Backup(
            name,
            found["group"] if group is None else group,
            found["stamp"],
            int(found["number"] or 0),
            found["packed"] or "",
        )
        with contextlib.suppress(ValueError):  # 2025-02-31 is no day, and the file not ours
            backup.day  # noqa: B018 - raises
            yield backup


def surplus(found: list[Backup], rotation: Rotation, today: dt.date) -> set[Backup]:
    """Those that are too many or too old; a file and its compressed form count once."""
    newest = sorted({each.age for each in found}, reverse=True)
    kept = set(newest[: rotation.max_backups] if rotation.max_backups else newest)
    return {
        each
        for each in found
        if each.age not in kept
        or (rotation.max_days and (today - each.day).days > rotation.max_days)
    }


def _delete(folder: int, name: str) -> bool:
    """Delete a file unless another program has it open; whether it is gone now."""
    try:
        fd = _locked(folder, name)
    except FileNotFoundError:
        return False
    if fd is None:
        return False
    try:
        os.unlink(name, dir_fd=folder)
    finally:
        os.close(fd)
    return True


def _locked(folder: int, name: str) -> int | None:
    """A descriptor of a regular file with our lock on it; None when that is not to be had."""
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if os.path.samestat(named, os.fstat(fd)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def pack(folder: int, backup: Backup, keeping: Keeping, stop: threading.Event) -> bool:
    """Put the compressed form of a file in its place; whether that was done."""
    try:
        fd = _locked(folder, backup.name)
    except FileNotFoundError:
        return False
    if fd is None:
        return False
    try:
        facts = os.fstat(fd)
        if facts.st_size == 0:
            os.unlink(backup.name, dir_fd=folder)
            return False
        target = _target(folder, backup, keeping.compression, fd)
        if target is not None:
            temporary = f"{target}.tmp"
            for each in (temporary, *(f"{backup.name}{end}.tmp" for end in ENDINGS.values())):
                with contextlib.suppress(FileNotFoundError):  # of an attempt that was cut off
                    os.unlink(each, dir_fd=folder)
            try:
                _compress(folder, fd, temporary, keeping, stop)
                os.rename(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)
        os.unlink(backup.name, dir_fd=folder)
        os.fsync(folder)
        return target is not None
    finally:
        os.close(fd)


def _target(folder: int, backup: Backup, method: str, fd: int) -> str | None:
    """
    The name of the compressed form; None when it is there already, from before a crash.

    There may be another one of that name: the clock was set back, and a day came twice.
    """
    ending = ENDINGS[method]
    number = backup.number
    name = backup.name
    while True:
        try:
            there = os.open(
                name + ending, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
            )
        except FileNotFoundError:
            return name + ending
        with os.fdopen(there, "rb") as packed, os.fdopen(os.dup(fd), "rb") as source:
            if _same(packed, source, method):
                return None
        number += 1
        head, _, tail = backup.name.rpartition(backup.stamp)
        if backup.number:
            tail = tail.removeprefix(f".{backup.number}")
        name = f"{head}{backup.stamp}.{number}{tail}"


def _same(packed: IO[bytes], source: IO[bytes], method: str) -> bool:
    """Whether a compressed file holds what another file holds."""
    source.seek(0)
    try:
        with _reader(packed, method) as plain:
            while True:
                block = source.read(BLOCK)
                if _exactly(plain, len(block) or 1) != block:
                    return False
                if not block:
                    return True
    except (OSError, EOFError, zstandard.ZstdError):
        return False


def _exactly(plain: Any, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = plain.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _reader(packed: IO[bytes], method: str) -> Any:
    if method == "gzip":
        return gzip.GzipFile(fileobj=packed, mode="rb")
    return zstandard.ZstdDecompressor().stream_reader(
        packed, read_across_frames=True, closefd=False
    )


def _compress(folder: int, source: int, name: str, keeping: Keeping, stop: threading.Event) -> None:
    """Write the compressed form of an open file, and force it to disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    facts = os.fstat(source)
    with os.fdopen(os.open(name, flags, MODE, dir_fd=folder), "wb") as raw:
        writer: Any
        if keeping.compression == "gzip":
            level = keeping.level or GZIP_LEVEL
            writer = gzip.GzipFile("", "wb", level, raw, mtime=int(facts.st_mtime))
        else:
            made = zstandard.ZstdCompressor(level=keeping.level or ZSTD_LEVEL, write_checksum=True)
            writer = made.stream_writer(raw, size=facts.st_size, closefd=False)
        with writer:
            position = 0
            while block := os.pread(source, BLOCK, position):
                if stop.is_set():
                    raise Stopped
                writer.write(block)
                position += len(block)
        raw.flush()
        os.utime(raw.fileno(), ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.fsync(raw.fileno())
