"""
Spool files: OTLP requests on disk that outlive the process that made them.

Format, for everybody who writes or takes in such files. A file is named `*.spool`; files whose name
begins with a dot are being made. It holds the eight bytes `OTSPOOL1` and then frames, which are only
ever appended. All numbers are little endian.

    offset  size  field
    0       4     length of the payload in bytes
    4       4     CRC-32 (zlib) of everything in the frame from offset 8 on, payload included
    8       1     kind: 0 META, 1 REQUEST, 2 SEAL, 3 DONE
    9       1     signal: 0 none, 1 traces, 2 metrics, 3 logs
    10      2     zero
    12      4     number of records (spans, metric points, log records) in the payload
    16      8     id, unique in the file; frames may stand in another order than their ids
    24      8     when the frame was written, nanoseconds since 1970
    32      ...   payload

* META: a JSON object about the writer: service, pid, host, started. First, once.
* REQUEST: a whole `Export{Trace,Metrics,Logs}ServiceRequest` in protobuf.
* SEAL: ids (8 bytes each) of requests that were, or were about to be, sent as one request, which is
  their payloads one after the other in the order of the ids (protobuf merges what is concatenated).
* DONE: ids of requests that need no delivery any more.

What is to be delivered is every REQUEST that no DONE names: those of one SEAL as one request, any
other by itself, with exactly these bytes. A receiver that recognises a repeated request by its
bytes then stores nothing twice, even if a process died between the sending and the DONE.

Owner: the process that holds `flock(LOCK_EX)` on the file. The writer does, from before the file gets its
name until its death, so a file whose lock can be had is an orphan. Who takes the lock, and finds
that the name still leads to the file it has locked, owns the file: delivers, appends DONE, and
removes the file at the end. A torn tail (a frame that is cut short or whose CRC is wrong, up to the
end) is cut off by the next owner; a wrong CRC with sound frames behind it costs that frame alone.
A frame is written by one write(2), so that it survives SIGKILL as soon as the call returns.
"""

import contextlib
import errno
import itertools
import json
import os
import re
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

try:
    import fcntl
except ImportError:  # Windows: no flock, no spool
    fcntl = None  # type: ignore[assignment]  # checked by supported()

MAGIC: Final = b"OTSPOOL1"
FRAME: Final = struct.Struct("<IIBBHIQQ")
META, REQUEST, SEAL, DONE = range(4)
SIGNALS: Final = {"traces": 1, "metrics": 2, "logs": 3}
NAMES: Final = {number: signal for signal, number in SIGNALS.items()}
SUFFIX: Final = ".spool"
PAYLOAD_BYTES: Final = 64 * 1024 * 1024
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True, slots=True)
class Unit:
    """What is delivered as one request."""

    signal: str
    body: bytes
    records: int
    ids: tuple[int, ...]
    written_ns: int


@dataclass(slots=True)
class Content:
    """What a file holds: units to deliver, who wrote it, where sound frames end, frames lost."""

    meta: dict[str, Any]
    units: list[Unit]
    end: int
    bad: int
    next_id: int


def supported() -> bool:
    """Whether this system has the locks that spool files need."""
    return fcntl is not None


def frame(kind: int, signal: int, records: int, frame_id: int, payload: bytes) -> bytes:
    """A frame as bytes."""
    rest = FRAME.pack(len(payload), 0, kind, signal, 0, records, frame_id, time.time_ns())[8:]
    crc = zlib.crc32(payload, zlib.crc32(rest))
    return struct.pack("<II", len(payload), crc) + rest + payload


def parse(data: bytes) -> Content:
    """What a file with these bytes holds; anything is tolerated."""
    content = Content({}, [], min(len(data), len(MAGIC)), 0, 1)
    if data[: len(MAGIC)] != MAGIC:
        content.end = 0
        content.bad = 1 if data else 0
        return content
    requests: dict[int, tuple[int, int, int, bytes]] = {}
    seals: list[tuple[int, ...]] = []
    done: set[int] = set()
    position, skipped = len(MAGIC), 0
    while position + FRAME.size <= len(data):
        length, crc, kind, signal, _, records, frame_id, written = FRAME.unpack_from(data, position)
        end = position + FRAME.size + length
        if length > PAYLOAD_BYTES or end > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 8 : end]) != crc:
            skipped += 1  # unless nothing sound follows: then it is the torn tail
            position = end
            continue
        payload = data[position + FRAME.size : end]
        position = content.end = end
        content.bad, content.next_id = skipped, max(content.next_id, frame_id + 1)
        if kind == REQUEST and signal in NAMES:
            requests[frame_id] = (signal, records, written, payload)
        elif kind in (SEAL, DONE) and not length % 8:
            named = struct.unpack(f"<{length // 8}Q", payload)
            done.update(named) if kind == DONE else seals.append(named)
        elif kind == META:
            with contextlib.suppress(ValueError):
                content.meta = dict(json.loads(payload))
    groups = {ids[0]: ids for ids in seals if ids and set(ids) <= set(requests)}
    for first in list(requests):
        ids = groups.get(first, (first,))
        parts = [requests.pop(number) for number in ids if number in requests]
        if len(parts) != len(ids) or done.issuperset(ids):
            continue
        content.units.append(
            Unit(
                NAMES[parts[0][0]],
                b"".join(part[3] for part in parts),
                sum(part[1] for part in parts),
                ids,
                min(part[2] for part in parts),
            )
        )
    return content


class SpoolFile:
    """
    One file that this process owns. Made by `create` or `adopt`.

    Not locked against other threads: a caller that shares it brings a lock. Methods raise OSError.
    """

    def __init__(self, path: Path, descriptor: int, size: int, next_id: int) -> None:
        self.path = path
        self.size = size
        self.broken = False
        """A write failed half-way: nothing more is appended."""
        self._descriptor = descriptor
        self._ids = itertools.count(next_id)

    @classmethod
    def create(cls, folder: Path, service: str) -> Self:
        """A new file, locked before it has its name."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        word = re.sub(r"[^A-Za-z0-9_-]+", "-", service)[:40].strip("-") or "unknown"
        name = f"{word}.{os.getpid()}.{time.time_ns():x}{os.urandom(2).hex()}{SUFFIX}"
        making = folder / f".{name}"
        descriptor = os.open(making, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        made = cls(folder / name, descriptor, 0, 1)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            about = {"service": service, "pid": os.getpid(), "host": os.uname().nodename}
            about["started"] = time.time_ns()
            made._write(MAGIC + frame(META, 0, 0, 0, json.dumps(about).encode()))
            making.rename(made.path)
        except OSError:
            made.close()
            making.unlink(missing_ok=True)
            raise
        return made

    @classmethod
    def adopt(cls, path: Path) -> tuple[Self, Content] | None:
        """An orphan, with what it holds; None when it has an owner, or is gone."""
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = path.stat()
            mine = os.fstat(descriptor)
            if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                raise FileNotFoundError(path)
            with open(descriptor, "rb", closefd=False) as file:
                file.seek(0)
                content = parse(file.read())
            if content.end < mine.st_size:
                os.ftruncate(descriptor, content.end)
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, content.end, content.next_id), content

    def request(self, signal: str, records: int, body: bytes) -> int:
        """Append a request; its id."""
        frame_id = next(self._ids)  # first, as a signal handler may append in between
        self._write(frame(REQUEST, SIGNALS[signal], records, frame_id, body))
        return frame_id

    def name(self, kind: int, ids: tuple[int, ...]) -> None:
        """Append a SEAL or a DONE."""
        payload = struct.pack(f"<{len(ids)}Q", *ids)
        self._write(frame(kind, 0, 0, next(self._ids), payload))

    def sync(self) -> None:
        """Have it on the disk, not only in the kernel."""
        os.fsync(self._descriptor)

    def remove(self) -> None:
        """Delete the file, while no other process can own it, and let go."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go: any process may take it now."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        if self.broken or self._descriptor < 0:
            raise OSError(errno.EBADF, "the spool file cannot be written any more")
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError:
            self.broken = written > 0  # a torn frame: what follows would be lost with it
            raise
        finally:
            self.size += written


def files(folder: Path) -> list[Path]:
    """The spool files of a folder, oldest first."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry)))
    return [path for _, path in sorted(found)]


def used_bytes(folder: Path) -> int:
    """How many bytes the spool files of a folder take."""
    total = 0
    for path in files(folder):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def peek(path: Path) -> tuple[Content, bool]:
    """What a file holds, and whether a process owns it; changes nothing."""
    with path.open("rb") as file:
        owned = False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            owned = True
        return parse(file.read()), owned
