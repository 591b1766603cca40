"""
One file of lines and the system calls on it; blocking, for one thread.

The descriptor is opened in O_APPEND without following a symbolic link, and locked with flock for as
long as it is open. That lock is what makes cutting back safe: nobody else appends behind the place
that a failed write began at.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

MODE: Final = 0o640
BLOCK: Final = 1 << 16
MAX_TAIL: Final = 64 << 20
"""No batch is larger, so a longer last line was not written by us."""

FIXES: Final = {
    errno.ENOENT: "the folder does not exist; create it, or set create_directory: true",
    errno.EACCES: "permission denied; give this user the right to write there, or change path",
    errno.EPERM: "permission denied; give this user the right to write there, or change path",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.ENOSPC: "the disk is full; free space, or choose another path",
    errno.EISDIR: "this is a folder; add a file name to path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; change path",
    errno.EEXIST: "a part of the path is a file, not a folder; change path",
    errno.ELOOP: "this is a symbolic link, which is not followed; write the real path",
    errno.EAGAIN: "another collector or exporter has it open; give each of them a file of its own",
    errno.EFBIG: "the last line is longer than any of ours; this is another kind of file: change path",
    errno.ENXIO: "this is no regular file; change path",
}


def explain(path: Path, error: OSError) -> str:
    """Which file cannot be opened, why, and what to do."""
    fix = FIXES.get(error.errno or 0, error.strerror or str(error))
    return f"cannot open {path}: {fix}"


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(path: Path, mode: int) -> None:
    """Make a folder and those above it that are missing, each with `mode`, each durable."""
    if path.is_dir():
        return
    make_folders(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    sync_folder(path.parent)


def write_all(fd: int, data: bytes) -> None:
    """Write everything; the system may take less than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Appender:
    """
    A file that only grows, by whole lines.

    Args:
        path: where it is. `open` first; after an error or a move, `in_place` is false and `open`
            is due again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._dirty = False

    def open(self) -> int:
        """
        Open or create the file, lock it, and cut a torn last line.

        Returns:
            How many bytes behind the last newline were moved to `<path>.torn`.

        Raises:
            OSError: it cannot be opened; `explain` turns it into words.
        """
        self.close(sync=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self.path, flags, MODE)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ENXIO, "not a regular file")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            torn = self._repair(fd)
            sync_folder(self.path.parent)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return torn

    def in_place(self) -> bool:
        """Whether the open file is still the one that its path names."""
        if self._fd < 0:
            return False
        try:
            named = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._fd))

    def append(self, lines: bytes, *, sync: bool) -> None:
        """
        Add whole lines, and force them to disk if `sync`.

        Raises:
            OSError: it failed. The file ends where it ended before and is closed: after a failed
                fsync a descriptor cannot be trusted, because the kernel reports the loss once.
        """
        end = os.fstat(self._fd).st_size
        try:
            write_all(self._fd, lines)
            self._dirty = True
            if sync:
                self.sync()
        except OSError:
            with contextlib.suppress(OSError):  # then `open` finds the torn line
                os.ftruncate(self._fd, end)
            self._drop()
            raise

    def sync(self) -> None:
        """
        Force what was appended to disk.

        Raises:
            OSError: it failed; `append` and `close` give the file up then, and so must the caller.
        """
        if self._fd >= 0 and self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False

    def close(self, *, sync: bool) -> None:
        """Close the file, after a last `sync` if wanted."""
        try:
            if sync:
                self.sync()
        finally:
            self._drop()

    def _drop(self) -> None:
        fd, self._fd, self._dirty = self._fd, -1, False
        if fd >= 0:
            os.close(fd)

    def _repair(self, fd: int) -> int:
        """Move what stands behind the last newline to `<path>.torn`; how many bytes that was."""
        size = os.fstat(fd).st_size
        keep = size
        while keep > 0:
            start = max(0, keep - BLOCK)
            newline = os.pread(fd, keep - start, start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
            if size - keep > MAX_TAIL:
                raise OSError(errno.EFBIG, "the last line is too long")
        if keep == size:
            return 0
        aside = Path(f"{self.path}.torn")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        torn = os.open(aside, flags, MODE)
        try:
            write_all(torn, os.pread(fd, size - keep, keep) + b"\n")
            os.fsync(torn)
        finally:
            os.close(torn)
        os.ftruncate(fd, keep)
        os.fsync(fd)
        return size - keep
