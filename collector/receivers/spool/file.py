"""
One spool file: OTLP requests that a program left on disk because it could not send them.

The format is the one that the library `telemetry` writes (`telemetry/_spool/file.py` describes it; a test
holds both against each other). In short: the magic, then frames of 32 bytes and a payload, each with
a CRC-32: META about the writer, REQUEST with an OTLP request, SEAL with the ids of requests that were
sent as one, DONE with ids that need no delivery. Who holds the file's lock owns it; the writer does
until its death. So a lock that can be had means an orphan.

The file is looked through frame by frame and payloads are read only when they are needed: of a file of
any size one request at a time is in memory.
"""

import contextlib
import errno
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from collector.model import Signal

MAGIC: Final = b"OTSPOOL1"
FRAME: Final = struct.Struct("<IIBBHIQQ")  # length, crc, kind, signal, 0, records, id, written (ns)
META, REQUEST, SEAL, DONE = range(4)
SIGNALS: Final = {1: Signal.TRACES, 2: Signal.METRICS, 3: Signal.LOGS}
SUFFIX: Final = ".spool"
PAYLOAD_BYTES: Final = 64 << 20
"""A longer frame is none: writers do not make them."""
FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(slots=True, frozen=True)
class Unit:
    """
    What is delivered as one request.

    Args:
        signal: what it is.
        records: how many spans, points or log records it holds.
        ids: of the frames that it is made of.
        places: offset and length of their payloads; one behind the other they are the request.
        written_unix_nano: when the first of them was written.
    """

    signal: Signal
    records: int
    ids: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    written_unix_nano: int


@dataclass(slots=True)
class Content:
    """
    What a file holds.

    Args:
        meta: what the writer says about itself.
        units: what is to be delivered, in the order of the file.
        damaged: frames in the middle that cannot be read.
        foreign: whether it does not begin as a spool file does.
    """

    meta: dict[str, Any] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)
    damaged: int = 0
    foreign: bool = False


@dataclass(slots=True)
class _Frames:
    """What the frames of a file say, before it is put together."""

    requests: dict[int, tuple[int, int, int, tuple[int, int]]] = field(default_factory=dict)
    seals: list[tuple[int, ...]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    def units(self) -> Iterable[Unit]:
        """Every request that is not done: those that were sealed together as one, others alone."""
        left = self.requests
        groups = {ids[0]: ids for ids in self.seals if ids and all(each in left for each in ids)}
        for first in list(left):
            ids = groups.get(first, (first,))
            parts = [left.pop(each) for each in ids if each in left]
            if len(parts) != len(ids) or self.done.issuperset(ids):
                continue
            yield Unit(
                SIGNALS[parts[0][0]],
                sum(part[1] for part in parts),
                ids,
                tuple(part[3] for part in parts),
                min(part[2] for part in parts),
            )


class SpoolFile:
    """
    A file that no other process owns; made by `take`. Blocking; every method may raise OSError.

    Args:
        path: where it is.
        descriptor: open, with the lock.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._next_id = 1

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Lock a file; None when another process has it, or it is gone, or it is no plain file."""
        try:
            descriptor = os.open(path, FLAGS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there, mine = path.stat(), os.fstat(descriptor)
            if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                raise FileNotFoundError(path)  # the same as if it had gone earlier
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @property
    def size(self) -> int:
        """How long it is."""
        return os.fstat(self._descriptor).st_size

    def look(self) -> Content:
        """What it holds; a tail that was being written when the writer died is cut off."""
        content, frames = Content(), _Frames()
        size = self.size
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            if file.read(len(MAGIC)) != MAGIC:
                content.foreign = True
                return content
            end = position = len(MAGIC)
            damaged = 0
            while position + FRAME.size <= size:
                header = file.read(FRAME.size)
                length, check, kind, signal, _, records, number, written = FRAME.unpack(header)
                stop = position + FRAME.size + length
                if length > PAYLOAD_BYTES or stop > size:
                    break
                payload = file.read(length)
                if zlib.crc32(payload, zlib.crc32(header[8:])) != check:
                    damaged += 1  # unless nothing sound follows: then it is the torn tail
                    position = stop
                    continue
                place = (position + FRAME.size, length)
                position = end = stop
                content.damaged = damaged
                self._next_id = max(self._next_id, number + 1)
                if kind == REQUEST and signal in SIGNALS:
                    frames.requests[number] = (signal, records, written, place)
                elif kind in (SEAL, DONE) and length % 8 == 0:
                    named = struct.unpack(f"<{length // 8}Q", payload)
                    frames.done.update(named) if kind == DONE else frames.seals.append(named)
                elif kind == META:
                    with contextlib.suppress(ValueError, TypeError):
                        content.meta = dict(json.loads(payload))
        if end < size:
            os.ftruncate(self._descriptor, end)
        content.units = list(frames.units())
        return content

    def body(self, unit: Unit) -> bytes:
        """The bytes of a request, exactly as they were sent, or would have been."""
        return b"".join(os.pread(self._descriptor, length, at) for at, length in unit.places)

    def done(self, units: Iterable[Unit]) -> None:
        """Note that these need no delivery any more, for the process that owns the file next."""
        ids = [number for unit in units for number in unit.ids]
        if not ids:
            return
        payload = struct.pack(f"<{len(ids)}Q", *ids)
        rest = FRAME.pack(len(payload), 0, DONE, 0, 0, 0, self._next_id, time.time_ns())[8:]
        self._next_id += 1
        check = zlib.crc32(payload, zlib.crc32(rest))
        data = struct.pack("<II", len(payload), check) + rest + payload
        before = self.size
        if os.write(self._descriptor, data) < len(data):
            os.ftruncate(self._descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def remove(self) -> None:
        """Delete it, while no other process can own it."""
        self.path.unlink(missing_ok=True)

    def set_aside(self, reason: str) -> Path:
        """Give it a name under which it is not taken in, and write the reason beside it."""
        aside = self.path.with_name(f"{self.path.name}.bad")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        note = os.open(aside.with_name(f"{aside.name}.txt"), flags, 0o600)
        try:
            os.write(note, f"{reason}\n".encode())
        finally:
            os.close(note)
        self.path.rename(aside)
        return aside

    def close(self) -> None:
        """Let go: another process may take it now."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def waiting(folder: Path, limit: int) -> list[Path]:
    """Spool files in a folder, oldest first; at most so many are looked at."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if len(found) >= limit:
                break
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry)))
    return [path for _, path in sorted(found)]
