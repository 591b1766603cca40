"""
Dead letters: what an exporter rejected, one JSON line each, with the reason.

A dead letter is on disk before the queue moves on, so what was acknowledged is either delivered or here.
`collector queue replay` puts dead letters back into the queue. The file is bounded: when it is full the
exporter's queue stands still, because the next one would have to be dropped.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from collector.errors import Retryable
from collector.model import Batch, Request, Signal
from collector.otlp import count, encode, new_message
from collector.wal.storage import Files, file_name


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file."""

    time: datetime
    """When it was given up, UTC."""
    exporter: str
    """Which exporter rejected it."""
    signal: Signal
    """What `request` is."""
    reason: str
    """Why."""
    items: int
    """How many spans, points or records it holds: 1, unless the request could not be cut."""
    key: str
    """The identity of the request, in hex."""
    received_at_unix_nano: int
    """When the request was received."""
    tenant: str = ""
    """Whose it is."""
    transport: str = ""
    """How it came."""
    request: bytes
    """The OTLP request as protobuf; base64 in the file."""

    def batch(self) -> Batch:
        """The request, as it was given to the exporter."""
        message = new_message(self.signal)
        message.ParseFromString(self.request)
        origin = Request(
            self.received_at_unix_nano, bytes.fromhex(self.key), self.tenant, self.transport
        )
        return Batch(self.signal, message, origin, self.request)


def dead_letters_path(folder: Path, exporter: str) -> Path:
    """Where the dead letters of an exporter are."""
    return folder / "dead_letters" / f"{file_name(exporter)}.jsonl"


def read_dead_letters(files: Files, path: Path) -> Iterator[DeadLetter]:
    """The dead letters in a file; a torn last line and lines of others are passed over."""
    with contextlib.suppress(FileNotFoundError):
        for line in files.read_all(path).split(b"\n")[:-1]:
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line, type=DeadLetter)


class DeadLetters:
    """
    The file of one exporter; only one process writes it, the one that has the queue's folder.

    Args:
        folder: of the queue.
        exporter: the exporter's id.
        max_bytes: how large the file may become.
        files: how files are worked on.
        now: nanoseconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        exporter: str,
        max_bytes: int,
        files: Files,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = dead_letters_path(folder, exporter)
        self._exporter = exporter
        self._max_bytes = max_bytes
        self._files = files
        self._now = now
        self._keys: set[str] | None = None
        self._size = 0
        self._turn = asyncio.Lock()

    async def add(self, batch: Batch, reason: str) -> None:
        """
        Keep a batch; it is on disk when this returns. The same batch twice is one dead letter.

        Raises:
            Retryable: the file is full, or the disk is.
        """
        async with self._turn:
            try:
                await asyncio.to_thread(self._add, batch, reason)
            except OSError as error:
                text = f"cannot write to {self.path}: {error.strerror or error}"
                raise Retryable(text, 10.0) from error

    def _add(self, batch: Batch, reason: str) -> None:
        if self._keys is None:
            self._open()
        keys = self._keys if self._keys is not None else set()
        key = f"{batch.signal.value} {batch.request.key.hex()}"
        if key in keys:
            return
        letter = DeadLetter(
            time=datetime.fromtimestamp(self._now() / 1e9, UTC),
            exporter=self._exporter,
            signal=batch.signal,
            reason=reason[:1000],
            items=count(batch.signal, batch.message),
            key=batch.request.key.hex(),
            received_at_unix_nano=batch.request.received_at_unix_nano,
            tenant=batch.request.tenant,
            transport=batch.request.transport,
            request=encode(batch),
        )
        line = msgspec.json.encode(letter) + b"\n"
        if self._size + len(line) > self._max_bytes:
            raise Retryable(
                f"the dead letters in {self.path} are full ({self._max_bytes} bytes): look at them "
                f"with `collector queue peek --dead-letters {self._exporter}`, then stop the collector "
                "and `replay` or `drop` them",
                30.0,
            )
        fd = self._files.append(self.path)
        try:
            try:
                self._files.write_all(fd, line)
                self._files.sync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    self._files.truncate(fd, self._size)
                self._keys = None  # look again before the next one
                raise
        finally:
            self._files.close(fd)
        if not self._size:
            self._files.sync_folder(self.path.parent)
        self._size += len(line)
        keys.add(key)

    def _open(self) -> None:
        """Cut a torn last line and find out which dead letters there are."""
        self._files.make_folder(self.path.parent, 0o750)
        data = self._files.read_all(self.path) if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            fd = self._files.open(self.path, write=True)
            try:
                self._files.truncate(fd, whole)
                self._files.sync(fd)
            finally:
                self._files.close(fd)
        self._size = whole
        self._keys = {
            f"{letter.signal.value} {letter.key}"
            for letter in read_dead_letters(self._files, self.path)
        }
