"""
Which request is an earlier one that comes again, and which is new data with the same bytes.

A sender that did not hear an answer sends the same bytes again, and they must be stored once. A
sender that did hear it and sends equal bytes has new data: a heartbeat without a time, fifty log
records of one millisecond. Both look alike, so what became of the first try decides (decision 13):

- its answer went out, and the other kernel has it or the connection ended well: new data;
- it was refused, failed, or its connection broke before or with the answer: it comes again;
- it is still in work on a connection that lives: new data, because a sender that gives up closes;
  after `PATIENCE_S` it may have given up without our knowing, and it comes again.

The identity of a request is a hash of its bytes and a salt. A request that comes again gets the salt
of its first try, new data one of its own. So that this is known after a kill, each try and each
delivered answer is appended to a file in the folder of the store or queue: a plain `write`, which
outlives the process. After a power cut the end of the file may be missing; then the salt of the hour
stands in, which a resend within the hour shares.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import struct
import termios
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

PATIENCE_S: Final = 5.0
"""A sender waits longer than this (OTLP: 10 s), so a try that is older may have been given up."""
SETTLE_S: Final = 0.1
"""How often answers are looked at that were not delivered yet."""
LINES: Final = 1 << 15
"""Lines of a file, of which there are two."""
MOST_TRIES: Final = 64
"""Tries of equal bytes that are remembered at the same time."""
HOUR_NS: Final = 3_600 * 10**9
BEGUN, DELIVERED = b"B", b"D"
LINE: Final = struct.Struct("=c16s8s")


class Exchange(Protocol):
    """The way on which a request came and its answer goes."""

    def broken(self) -> bool:
        """Whether the sender can hear no answer any more."""

    def delivered(self) -> bool | None:
        """Whether the answer that was written has arrived; None while that is not known."""


@dataclass(slots=True, eq=False)
class Try:
    """
    One request, from its bytes to its answer.

    Args:
        owner: what remembers it.
        digest: a hash of the bytes.
        salt: what tells it from others with the same bytes.
        exchange: how it came; None in an earlier process.
        began: when, on the monotonic clock.
        state: "open" without an answer, "answered", or "lost".
    """

    owner: "Resends"
    digest: bytes
    salt: bytes
    exchange: Exchange | None = None
    began: float = 0.0
    state: str = "open"

    @property
    def key(self) -> bytes:
        """The identity of the request: 16 bytes."""
        return hashlib.blake2b(self.digest + self.salt, digest_size=16, person=b"try").digest()

    def fail(self) -> None:
        """The sender was refused, or cannot have heard: the same bytes are this request."""
        self.state = "lost"

    def answered(self) -> None:
        """A success was written to the connection."""
        if self.state == "open":
            self.state = "answered"
            self.owner.watch(self)

    def may_come_again(self, now: float) -> bool:
        """Whether equal bytes can be this request."""
        if self.state == "lost" or self.exchange is None:
            return True
        if self.state == "open":
            return self.exchange.broken() or now - self.began > PATIENCE_S
        return not self.exchange.delivered()


@dataclass(slots=True)
class Seen:
    """What is known of some bytes: the tries whose answer may not have arrived."""

    tries: list[Try] = field(default_factory=list)


class Resends:
    """
    The memory of a receiver.

    Args:
        path: of the file; None keeps it in memory, and a kill forgets it.
        report: called once when the file cannot be written.
    """

    def __init__(self, path: Path | None, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()
        self._waiting: list[Try] = []
        self._lock = threading.Lock()
        self._fd = -1
        self._lines = 0
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Read what an earlier process left, and go on behind it."""
        if self._path is None:
            return
        for path in (self._before, self._path):
            with contextlib.suppress(OSError):
                self._read(path.read_bytes() if not path.is_symlink() else b"")
        self._start_file()

    def close(self) -> None:
        """Write what has been delivered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._settle()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def _before(self) -> Path:
        assert self._path is not None  # noqa: S101 - for the type checker
        return self._path.with_name(f"{self._path.name}.1")

    def _read(self, data: bytes) -> None:
        for kind, digest, salt in LINE.iter_unpack(data[: len(data) - len(data) % LINE.size]):
            seen = self._of(digest)
            seen.tries = [each for each in seen.tries if each.salt != salt]
            if kind == BEGUN:
                seen.tries.append(Try(self, digest, salt, state="lost"))

    def begin(self, digest: bytes, exchange: Exchange) -> Try:
        """
        A request has come, and is going to be stored.

        Args:
            digest: a hash of its bytes.
            exchange: how it came.
        """
        with self._lock:
            now = time.monotonic()
            known = digest in self._seen
            seen = self._of(digest)
            first = next((each for each in seen.tries if each.may_come_again(now)), None)
            if first is not None:
                salt = first.salt
                seen.tries.remove(first)
            elif known:
                salt = secrets.token_bytes(8)
            else:
                salt = struct.pack("=q", time.time_ns() // HOUR_NS)
            made = Try(self, digest, salt, exchange, now)
            seen.tries.append(made)
            del seen.tries[:-MOST_TRIES]
            self._write([(BEGUN, made)])
            return made

    def watch(self, answered: Try) -> None:
        """Look whether an answer has arrived, in a moment."""
        self._waiting.append(answered)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._settle()
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._look)

    def _settle(self) -> None:
        arrived, waiting = [], []
        for each in self._waiting:
            delivered = each.exchange is not None and each.exchange.delivered()
            if delivered:
                arrived.append(each)
            elif delivered is None:
                waiting.append(each)
            else:
                each.fail()
        self._waiting = waiting
        with self._lock:
            for each in arrived:
                seen = self._seen.get(each.digest)
                if seen is not None and each in seen.tries:
                    seen.tries.remove(each)
            self._write([(DELIVERED, each) for each in arrived])

    def _of(self, digest: bytes) -> Seen:
        seen = self._seen.get(digest)
        if seen is None:
            seen = self._seen[digest] = Seen()
            if len(self._seen) > 2 * LINES:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(digest)
        return seen

    def _write(self, lines: list[tuple[bytes, Try]]) -> None:
        if self._fd < 0 or not lines:
            return
        if self._lines >= LINES:
            self._start_file()
        try:
            os.write(
                self._fd, b"".join(LINE.pack(kind, one.digest, one.salt) for kind, one in lines)
            )
            self._lines += len(lines)
        except OSError as error:
            self._report(f"cannot write {self._path}: {error.strerror}")

    def _start_file(self) -> None:
        """A new file; the one before stays beside it, and what is under way is in both."""
        assert self._path is not None  # noqa: S101 - for the type checker
        try:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            with contextlib.suppress(FileNotFoundError):
                self._path.rename(self._before)
            flags = (
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            self._fd = os.open(self._path, flags, 0o640)
        except OSError as error:
            self._report(f"cannot write {self._path}: {error.strerror}")
            return
        self._lines = 0
        self._write([(BEGUN, each) for seen in self._seen.values() for each in seen.tries])


def unread(transport: Any) -> int | None:
    """Bytes that the other side has not confirmed; None where the system does not say."""
    waiting = int(transport.get_write_buffer_size())
    if waiting:
        return waiting
    found = transport.get_extra_info("socket")
    try:
        buffer = fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (AttributeError, OSError, ValueError):
        return None
    return int(struct.unpack("=i", buffer)[0])
