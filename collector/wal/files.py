"""
The file operations of the durable log, in one object that can be replaced.

Durability is a statement about what survives when any of these calls fails or power goes, so every
one of them goes through a `Files`. Tests pass one that fails at the n-th call, or that forgets what
was never synced; nothing in the log knows the difference.
"""

import contextlib
import fcntl
import json
import os
import zlib
from pathlib import Path
from typing import Any, Final

from collector.errors import StartFailed

MODE: Final = 0o640


class Files:
    """System calls on files, blocking; every one may raise OSError."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist, open for reading and writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, MODE)

    def open(self, path: Path, *, write: bool = False) -> int:
        """Open a file that exists."""
        access = os.O_RDWR if write else os.O_RDONLY
        return os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW)

    def append(self, path: Path) -> int:
        """Open a file to write at its end; it is created when it is missing."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, MODE)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview, at: int | None = None) -> int:
        """Write some of `data`, at an offset or where the descriptor stands; how much it was."""
        return os.write(fd, data) if at is None else os.pwrite(fd, data, at)

    def read(self, fd: int, size: int, at: int) -> bytes:
        """Up to `size` bytes from an offset on."""
        return os.pread(fd, size, at)

    def sync(self, fd: int) -> None:
        """Force data, and what is needed to read it, to disk."""
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder survive a power cut."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Take disk space for a file."""
        os.posix_fallocate(fd, 0, size)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what has that name."""
        old.rename(new)

    def link(self, path: Path, name: Path) -> None:
        """Give a file a second name."""
        name.hardlink_to(path)

    def unlink(self, path: Path) -> None:
        """Take a name away; it is no error when it is gone already."""
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, in order; none when there is no such folder."""
        try:
            return sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []

    def size(self, fd: int) -> int:
        """How long a file is."""
        return os.fstat(fd).st_size

    def space(self, folder: Path) -> tuple[int, int]:
        """(free bytes for us, all bytes) of the file system."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    # --- what is made of them ---

    def write_all(self, fd: int, data: bytes, at: int | None = None) -> None:
        """Write everything; the system may take less than it was given."""
        view = memoryview(data)
        while view:
            written = self.write(fd, view, at)
            view = view[written:]
            at = None if at is None else at + written

    def read_all(self, path: Path) -> bytes:
        """Everything in a file."""
        fd = self.open(path)
        try:
            parts = []
            at = 0
            while part := self.read(fd, 1 << 20, at):
                parts.append(part)
                at += len(part)
            return b"".join(parts)
        finally:
            self.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        """Put a file in place of another, whole or not at all, also in a power cut."""
        temporary = path.with_name(f"{path.name}.tmp")
        self.unlink(temporary)
        fd = self.create(temporary)
        try:
            try:
                self.write_all(fd, data)
                self.sync(fd)
            finally:
                self.close(fd)
            self.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                self.unlink(temporary)
            raise
        self.sync_folder(path.parent)

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder and those above it that are missing, each of them durable."""
        if path.is_dir():
            return
        self.make_folder(path.parent, mode)
        path.mkdir(mode, exist_ok=True)
        self.sync_folder(path.parent)

    def lock(self, path: Path) -> int:
        """
        Take the lock of a folder, for as long as the descriptor is open.

        Raises:
            StartFailed: another process has it; says which.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StartFailed(
                f"the queue folder {path.parent} is in use by process {owner}: stop that process, "
                "or give each collector a `directory` of its own"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the number, too
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd


def sealed(content: dict[str, Any]) -> bytes:
    """A small document with its checksum, as one line of JSON."""
    text = json.dumps(content, sort_keys=True)
    return f"{text}\n{zlib.crc32(text.encode()):08x}\n".encode()


def unsealed(data: bytes) -> dict[str, Any] | None:
    """The document that `sealed` made; None when the bytes are anything else."""
    text, _, check = data.partition(b"\n")
    if check.strip() != f"{zlib.crc32(text):08x}".encode():
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
