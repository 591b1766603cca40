"""
One file that only grows, and the system calls on it; blocking, for one thread.

The descriptor is opened in O_APPEND without following a symbolic link, and locked with flock for as
long as it is open. That lock is what makes cutting back safe: no other program appends behind the place
that a failed write began at.

A file is made of lines, or of frames (four bytes of length, big endian, and so many bytes). What
stands behind the last whole one when the file is opened was left by a crash and moved aside.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from collector.exporters.file.paths import Place

MODE: Final = 0o640
BLOCK: Final = 1 << 16
MAX_TAIL: Final = 64 << 20
"""No batch is larger, so a longer last line was not written by us."""
HEADER: Final = 4

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
UNUSABLE: Final = frozenset(
    (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EFBIG, errno.ENXIO, errno.ENAMETOOLONG)
)
"""Waiting does not help: there is something else in the place of the file."""


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
    A file that only grows, by whole lines or frames.

    Args:
        place: where it is. `open` first; after an error or a move, `in_place` is false and `open`
            is due again.
        frames: whether it is made of frames.
        folder_mode: of inner folders that are missing.
    """

    def __init__(self, place: Place, *, frames: bool = False, folder_mode: int = 0o750) -> None:
        self.place = place
        self.path = place.path
        self.frames = frames
        self._folder_mode = folder_mode
        self._fd = -1
        self._dirty = False

    @property
    def is_open(self) -> bool:
        """Whether there is a descriptor."""
        return self._fd >= 0

    @property
    def size(self) -> int:
        """How many bytes it has; only while it is open."""
        return os.fstat(self._fd).st_size

    @property
    def number(self) -> tuple[int, int]:
        """Device and inode; only while it is open."""
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def open(self) -> int:
        """
        Open or create the file, lock it, and cut a torn end.

        Returns:
            How many bytes behind the last whole line or frame were moved to `<path>.torn`.

        Raises:
            OSError: it cannot be opened; `explain` puts it into words.
        """
        self.close(sync=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with self.place.folder(self._folder_mode) as folder:
            fd = os.open(self.place.name, flags, MODE, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.ENXIO, "not a regular file")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                torn = self._repair(fd, folder)
                os.fsync(folder)
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
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(named, os.fstat(self._fd))

    def write(self, data: bytes) -> None:
        """
        Add whole lines or frames; `sync` forces them to disk.

        Raises:
            OSError: it failed, and a part may stand in the file: `cut` is due.
        """
        self._dirty = True
        write_all(self._fd, data)

    def cut(self, end: int) -> None:
        """
        Take back what was written behind `end`, also when the file was closed since, and close it.

        It is closed because a descriptor cannot be trusted after a failed fsync: the kernel reports
        the loss once. What cannot be cut is found by the next `open`, or stays as a repeat.
        """
        with contextlib.suppress(OSError):
            if self._fd < 0:
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                with self.place.folder() as folder:
                    self._fd = os.open(self.place.name, flags, dir_fd=folder)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.size > end:
                os.ftruncate(self._fd, end)
        self._drop()

    def sync(self) -> None:
        """
        Force what was written to disk.

        Raises:
            OSError: it failed; `close` gives the file up then, and so must the caller.
        """
        if self._fd >= 0 and self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False

    def move(self, name: str) -> None:
        """
        Give the file another name in its folder, durably, and close it.

        Raises:
            OSError: it has its old name still.
        """
        with self.place.folder() as folder:
            os.rename(self.place.name, name, src_dir_fd=folder, dst_dir_fd=folder)
            self._drop()
            os.fsync(folder)

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

    def _repair(self, fd: int, folder: int) -> int:
        """Move what stands behind the last whole line or frame aside; how many bytes that was."""
        size = os.fstat(fd).st_size
        keep = whole_frames(fd, size) if self.frames else whole_lines(fd, size)
        return move_aside(fd, folder, self.place.name, keep, line=not self.frames)


def move_aside(fd: int, folder: int, name: str, keep: int, *, line: bool) -> int:
    """
    Move what stands behind a place in a file to `<name>.torn`.

    Args:
        fd: of the file.
        folder: it is in, a descriptor.
        name: of the file there.
        keep: the place.
        line: whether what is moved shall end a line.

    Returns:
        How many bytes that was.
    """
    size = os.fstat(fd).st_size
    if keep >= size:
        return 0
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    aside = os.open(f"{name}.torn", flags, MODE, dir_fd=folder)
    try:
        for start in range(keep, size, BLOCK):
            write_all(aside, os.pread(fd, min(BLOCK, size - start), start))
        if line:
            write_all(aside, b"\n")
        os.fsync(aside)
    finally:
        os.close(aside)
    os.ftruncate(fd, keep)
    os.fsync(fd)
    return size - keep


def whole_lines(fd: int, size: int) -> int:
    """Where the last whole line ends."""
    keep = size
    while keep > 0:
        start = max(0, keep - BLOCK)
        newline = os.pread(fd, keep - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        keep = start
        if size - keep > MAX_TAIL:
            raise OSError(errno.EFBIG, "the last line is too long")
    return keep


def whole_frames(fd: int, size: int) -> int:
    """Where the last whole frame ends; a frame is never empty, but what a power cut leaves may be."""
    keep = 0
    while keep + HEADER <= size:
        length = int.from_bytes(os.pread(fd, HEADER, keep))
        if length > MAX_TAIL and keep == 0:
            raise OSError(errno.EFBIG, "the first frame is too long")
        if not 0 < length <= MAX_TAIL or keep + HEADER + length > size:
            break
        keep += HEADER + length
    return keep
