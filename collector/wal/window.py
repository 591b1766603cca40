"""
Requests of the last minutes: what distinguishes a repeat from a new request, also after a restart.

Most of it is read from the segments themselves. A file beside them keeps the identities whose
segments are deleted already; it is replaced whole before they go.
"""

import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from collector.wal.files import Files

WINDOW_NS: Final = 15 * 60 * 10**9
"""How long a request is recognised when it comes again."""
WINDOW_KEYS: Final = 100_000
_MAGIC: Final = b"OTELIERD\x01\0\0\0"
_KEY: Final = struct.Struct("<16sQ")


class Window:
    """
    Identity -> when its request was received, oldest first.

    Args:
        path: of the file.
        files: how files are worked on.
        now: nanoseconds since the epoch.
    """

    def __init__(self, path: Path, files: Files, now: Callable[[], int]) -> None:
        self._path = path
        self._files = files
        self._now = now
        self._received: OrderedDict[bytes, int] = OrderedDict()

    def holds(self, identity: bytes) -> bool:
        """Whether a request with this identity was stored a short time ago."""
        received = self._received.get(identity)
        return received is not None and self.is_fresh(received)

    def is_fresh(self, received_at: int) -> bool:
        """Whether a request that was received then is still recognised."""
        return received_at >= self._now() - WINDOW_NS

    def add(self, identity: bytes, received_at: int) -> None:
        """A request was stored."""
        self._received[identity] = received_at

    def load(self) -> None:
        """Add what the file has; a damaged one is passed over: stores recognise repeats by ids."""
        try:
            data = self._files.read_all(self._path)
        except FileNotFoundError:
            return
        body, check = data[:-4], data[-4:]
        if not body.startswith(_MAGIC) or zlib.crc32(body) != int.from_bytes(check):
            return
        merged = dict(_KEY.iter_unpack(body[len(_MAGIC) :]))
        merged.update(self._received)
        self._received = OrderedDict(sorted(merged.items(), key=lambda item: item[1]))
        self.forget()

    def forget(self) -> None:
        """Drop what is too old or too much."""
        oldest, received = self._now() - WINDOW_NS, self._received
        while received and (len(received) > WINDOW_KEYS or next(iter(received.values())) < oldest):
            received.popitem(last=False)

    def save(self) -> None:
        """Keep the identities that are about to lose their records."""
        self.forget()
        body = _MAGIC + b"".join(_KEY.pack(*pair) for pair in self._received.items())
        self._files.replace(self._path, body + zlib.crc32(body).to_bytes(4))
