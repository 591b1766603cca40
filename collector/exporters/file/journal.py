"""
What the file exporter was doing when it was killed: a note beside its files.

A request that was written and not settled comes again after a kill: from the log, whose cursor is
saved a moment later, or from a sender who did not hear the answer. A line of text cannot say which
request it came from, so the exporter keeps a journal: before each piece, where it begins in which
file, how long it is and its checksum; behind the last piece, that the request is done. At the start
it reads the journal of a process that was killed. Requests that were done are known. Of the last
one, which may not be, each piece is looked for in its file: what stands there whole is forced to
disk and not written again; of what was cut off in the middle, the beginning is moved to
`<path>.torn`, as a torn line is. It was not acknowledged: the file ends before the piece does.

It is a help and not a promise: it is not forced to disk, and every doubt (the file was moved, a byte
differs, the machine was started anew since) means to leave the file alone and to write again. So it
cannot lose a line, whatever a power cut leaves of it. A stop in good order needs no journal, and
deletes it.
"""

import contextlib
import os
import stat
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from collector.exporters.file.appender import MODE, move_aside, write_all
from collector.model import Batch
from collector.otlp import encode

KNOWN: Final = 10_000
"""So many requests are known. A queue is not further ahead of its cursor."""
LARGEST: Final = 4 << 20
"""A journal that reached this size is written anew, with what is known only."""
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

Torn = Callable[[Path, int], None]
"""(file, how many bytes were moved aside)"""


class Begun(msgspec.Struct, frozen=True, array_like=True):
    """
    One piece of a request, before it is written.

    Args:
        request: the identity of the request.
        piece: its number.
        of: how many pieces the request has.
        path: of the file.
        device: where the file is.
        inode: which it is there, whatever it is called.
        at: where in the file the piece begins.
        size: of the piece.
        check: CRC-32 of the piece.
        boot: of the machine, "" where it says nothing of that.
    """

    request: bytes
    piece: int
    of: int
    path: str
    device: int
    inode: int
    at: int
    size: int
    check: int
    boot: str

    def settle(self, boot: str, torn: Torn) -> bool:
        """
        Look what became of the piece, and move a beginning of it aside.

        Returns:
            Whether the whole piece stands in its file; if so, it is on disk then.
        """
        path = Path(self.path)
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            closing.callback(os.close, folder)
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(path.name, flags, dir_fd=folder)
            closing.callback(os.close, fd)
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != (self.device, self.inode):
                return False
            if self.at < found.st_size < self.at + self.size:
                if boot and self.boot == boot:
                    ends = os.pread(fd, 1, found.st_size - 1) == b"\n"
                    torn(path, move_aside(fd, folder, path.name, self.at, line=not ends))
                return False
            data = os.pread(fd, self.size, self.at)
            if len(data) == self.size and zlib.crc32(data) == self.check:
                os.fsync(fd)
                return True
        return False


def boot_id() -> str:
    """Another text each time that the machine starts; empty where the system does not say."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def identity(batch: Batch) -> bytes:
    """Equal for a request and its resend, different for what a processor made of it."""
    digest = blake2b(batch.request.key, digest_size=16, person=b"file-journal")
    digest.update(batch.signal.encode())
    digest.update(encode(batch))
    return digest.digest()


class Journal:
    """
    The journal of one exporter; used by one thread.

    Args:
        path: where it is.
        torn: called with what was moved aside.
        known: so many requests are known.
        largest: a journal that reached so many bytes is written anew.
    """

    def __init__(
        self, path: Path, torn: Torn, *, known: int = KNOWN, largest: int = LARGEST
    ) -> None:
        self.path = path
        self.boot = boot_id()
        self._torn = torn
        self._known = known
        self._largest = largest
        self._fd = -1
        self._size = 0
        self._done: OrderedDict[bytes, None] = OrderedDict()
        self._before: frozenset[bytes] = frozenset()
        self._last: list[Begun] = []

    def open(self) -> None:
        """
        Read what a killed process left, and begin anew.

        Raises:
            OSError: there can be no journal here.
        """
        begun = self._read()
        self._last = [each for each in begun if each.settle(self.boot, self._torn)]
        if begun and len(self._last) == begun[0].of:
            self._know(begun[0].request)
            self._last = []
        self._before = frozenset(self._done)
        self._rewrite()

    def knows(self, request: bytes) -> bool:
        """Whether the process before this one wrote a request."""
        return request in self._before

    def written(self, request: bytes) -> frozenset[int]:
        """The pieces of a request that the process before this one wrote, when it wrote not all."""
        return frozenset(each.piece for each in self._last if each.request == request)

    def begin(self, begun: Begun) -> None:
        """A piece is going to be written."""
        self._add(begun)

    def done(self, request: bytes) -> None:
        """All pieces of a request are written, and on disk."""
        self._know(request)
        self._last = [each for each in self._last if each.request != request]
        self._add(request)
        if self._size >= self._largest:
            with contextlib.suppress(OSError):  # it grows on, and is tried again
                self._rewrite()

    def close(self, *, keep: bool) -> None:
        """Let go of the journal; it goes, unless what it says may still be needed."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        os.close(fd)
        if not keep and not self._last:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _know(self, request: bytes) -> None:
        self._done[request] = None
        self._done.move_to_end(request)
        while len(self._done) > self._known:
            self._done.popitem(last=False)

    def _read(self) -> list[Begun]:
        """Learn which requests are done; the pieces of the one behind them."""
        last: dict[int, Begun] = {}
        for entry in _entries(self.path):
            if isinstance(entry, bytes):
                self._know(entry)
                last = {}
                continue
            if any(each.request != entry.request for each in last.values()):
                last = {}
            last[entry.piece] = entry
        return list(last.values())

    def _rewrite(self) -> None:
        beside = self.path.with_name(f"{self.path.name}.tmp")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        fd = os.open(beside, flags | os.O_EXCL, MODE)
        try:
            data = b"".join([*map(_line, self._done), *map(_line, self._last)])
            write_all(fd, data)
            beside.rename(self.path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        old, self._fd, self._size = self._fd, fd, len(data)
        if old >= 0:
            os.close(old)

    def _add(self, entry: Begun | bytes) -> None:
        if self._fd < 0:
            return
        data = _line(entry)
        with contextlib.suppress(OSError):  # without it a line may be there twice after a kill
            write_all(self._fd, data)
            self._size += len(data)


def _line(entry: Begun | bytes) -> bytes:
    # The break in front ends what a full disk left of the entry before.
    return b"\n" + msgspec.json.encode(entry)


def _entries(path: Path) -> Iterator[Begun | bytes]:
    """What stands in a journal, without the entries that a full disk or a power cut left in part."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor that follows no link
        file.seek(max(0, os.fstat(fd).st_size - 2 * LARGEST))
        for line in file.read().split(b"\n"):
            with contextlib.suppress(msgspec.MsgspecError):
                yield msgspec.json.decode(line, type=Begun | bytes)
