"""
One exporter's place in the durable log: what it still has to deliver, and how far it has come.

A cursor is the lowest number that is not delivered, and the numbers above it that are: several
deliveries run at the same time and end in any order. It lives in a file of its own that is replaced
whole (temp, fsync, rename, fsync of the folder), many deliveries at a time. A crash in between
delivers again what the file did not know, never skips.
"""

import asyncio
import hashlib
import re
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from collector.errors import StartFailed
from collector.wal.files import Files, sealed, unsealed
from collector.wal.format import SEGMENT_HEADER, Bad, Record, heads, walk
from collector.wal.segments import Log, Segment

VERSION: Final = 1
READ_BYTES: Final = 8 << 20
"""How much one read takes from the log at most, beyond its first record."""
READ_RECORDS: Final = 256
SCAN_BYTES: Final = 64 << 20
"""How much it looks through in one go when little of it is for this exporter."""


def file_name(exporter: str) -> str:
    """A name for files about an exporter: readable, safe, and different for different ids."""
    name = urllib.parse.quote(exporter, safe="")
    if len(name) > 100 or not re.match(r"\w", name):
        digest = hashlib.blake2b(exporter.encode(), digest_size=8).hexdigest()
        name = f"{name[:80].lstrip('.')}-{digest}"
    return name


@dataclass(slots=True)
class Cursor:
    """
    How far an exporter has come.

    Args:
        exporter: its id.
        next: every record with a lower number is delivered.
        done: numbers above `next` that are delivered, too.
        routes: what is for it.
        former: what was for it before the configuration changed, and the number from which on it is
            not any more.
    """

    exporter: str
    next: int
    done: set[int] = field(default_factory=set)
    routes: tuple[str, ...] = ()
    former: dict[str, int] = field(default_factory=dict)

    def wants(self, route: str, number: int) -> bool:
        """Whether a record is for the exporter, delivered or not."""
        return route in self.routes or number < self.former.get(route, 0)

    def feed(self, routes: Collection[str], number: int) -> Self:
        """The same place, with other pipelines from a number on; what was for it before still is."""
        former = {
            route: limit
            for route, limit in self.former.items()
            if limit > self.next and route not in routes
        }
        gone = [route for route in self.routes if route not in routes and not route.startswith("@")]
        if number > self.next:
            former.update(dict.fromkeys(gone, number))
        return replace(self, routes=tuple(sorted(routes)), former=former)

    def save(self, files: Files, folder: Path) -> None:
        """Put it on disk."""
        content: dict[str, Any] = {
            "version": VERSION,
            "exporter": self.exporter,
            "next": self.next,
            "done": list(ranges(self.done)),
            "routes": list(self.routes),
        }
        if self.former:
            content["former"] = self.former
        files.replace(folder / f"{file_name(self.exporter)}.json", sealed(content))

    @classmethod
    def load(cls, files: Files, path: Path) -> Self | None:
        """
        The cursor in a file, None when it is damaged.

        Raises:
            StartFailed: a later version wrote it.
        """
        content = unsealed(files.read_all(path))
        if content is None:
            return None
        if content["version"] > VERSION:
            raise StartFailed(
                f"{path} was written by a later version: start that version again, or move the "
                "file away to deliver everything in the log again"
            )
        done = {each for start, stop in content["done"] for each in range(start, stop)}
        routes, former = tuple(content["routes"]), content.get("former", {})
        return cls(content["exporter"], content["next"], done, routes, former)


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers as (first, behind the last)."""
    start = stop = None
    for number in sorted(numbers):
        if number != stop:
            if start is not None and stop is not None:
                yield start, stop
            start = number
        stop = number + 1
    if start is not None and stop is not None:
        yield start, stop


def load_cursors(files: Files, folder: Path) -> tuple[dict[str, Cursor], list[str]]:
    """The cursors in a folder by exporter, and the names of files that are damaged."""
    found: dict[str, Cursor] = {}
    damaged = []
    for name in files.names(folder):
        if not name.endswith(".json"):
            continue
        cursor = Cursor.load(files, folder / name)
        if cursor is None:
            damaged.append(name)
        else:
            found[cursor.exporter] = cursor
    return found, damaged


@dataclass(slots=True)
class _Found:
    """What one look into the log brought, before it changes anything."""

    next: int
    at: tuple[int, int] | None
    records: list[Record] = field(default_factory=list)
    after_damage: bool = False
    parts: int = 0
    missing: int = 0
    more: bool = False


class Reader:
    """
    The records that one exporter has to deliver; made by `FileStorage.reader`.

    Args:
        log: where they are.
        cursor: how far the exporter has come, and what is for it: ids of pipelines, and `@` with
            its own id.
    """

    def __init__(self, log: Log, cursor: Cursor) -> None:
        self.exporter = cursor.exporter
        self.routes = frozenset(cursor.routes)
        self.lag_items = 0
        """Items that are not delivered."""
        self.bad_parts = 0
        """Damaged parts of the log that this reader was the first to meet."""
        self.missing = 0
        """Numbers that are missing behind damage: at most so many records are lost."""
        self.saved: Cursor | None = None
        """What is on disk."""
        self._log = log
        self._former = dict(cursor.former)
        self._done = set(cursor.done)
        self._open: dict[int, tuple[int, int]] = {}  # number -> (received, items), in delivery
        self._next = cursor.next  # the lowest number that was not read yet
        self._at: tuple[int, int] | None = None  # segment and offset where the next read begins
        self._after_damage = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    def measure(self) -> None:
        """Find out how many items wait; blocking, for the start."""
        total = 0
        segments = self._log.segments
        for segment, limit in zip(segments, limits(segments), strict=True):
            if limit is not None and limit <= self._next:
                continue
            if segment.header.first >= self._next and not self._done and not self._former:
                total += sum(segment.items[route] for route in self.routes)
                continue
            with self._log.reading(segment) as read:
                for found, route in heads(read, SEGMENT_HEADER, segment.end, segment.header.mark):
                    if limit is not None and found.number >= limit:
                        break
                    ahead = found.number >= self._next and found.number not in self._done
                    if ahead and self._is_for_us(route, found.number):
                        total += found.items
        self.lag_items = total

    async def read(self, window: int = 1000) -> list[Record]:
        """
        The next records, in order; waits until there are any. Empty when the log is closed.

        Args:
            window: how many records the reading may be ahead of the oldest that is not `done`.
        """
        while not self._closed:
            self._news.clear()
            self._room.clear()
            if self._open and len(self._open) + len(self._done) >= window:
                await self._room.wait()
                continue
            found = await asyncio.to_thread(self._look)
            self._next, self._at = found.next, found.at
            self._after_damage = found.after_damage
            self.bad_parts += found.parts
            self.missing += found.missing
            for record in found.records:
                self._open[record.number] = (record.request.received_at_unix_nano, record.items)
            if found.records:
                return found.records
            if not found.more and not self._news.is_set():
                await self._news.wait()
        return []

    def done(self, numbers: Iterable[int]) -> None:
        """These are delivered, or are kept somewhere else for good."""
        for number in numbers:
            found = self._open.pop(number, None)
            if found is not None:
                self._done.add(number)
                self.lag_items -= found[1]
        self._room.set()

    def is_done(self, number: int) -> bool:
        """Whether a record is delivered."""
        return number in self._done or (number < self._next and number not in self._open)

    @property
    def oldest_unix_nano(self) -> int | None:
        """When the oldest request in delivery was received; None when nothing is."""
        return self._open[min(self._open)][0] if self._open else None

    @property
    def lag_bytes(self) -> int:
        """Size of the segments that are kept for it."""
        if not self.lag_items:
            return 0
        lowest = min(self._open, default=self._next)
        segments = self._log.segments
        pairs = zip(segments, limits(segments), strict=True)
        return sum(each.end for each, limit in pairs if limit is None or limit > lowest)

    def cursor(self) -> Cursor:
        """How far it has come."""
        lowest = min(self._open, default=self._next)
        self._done = {number for number in self._done if number >= lowest}
        self._former = {route: end for route, end in self._former.items() if end > lowest}
        routes = tuple(sorted(self.routes))
        return Cursor(self.exporter, lowest, set(self._done), routes, dict(self._former))

    def arrived(self, records: Sequence[Record]) -> None:
        """Records were appended."""
        self.lag_items += sum(record.items for record in records if record.route in self.routes)
        self._news.set()

    def close(self) -> None:
        """End `read`."""
        self._closed = True
        self._news.set()
        self._room.set()

    def _look(self) -> _Found:
        """Read on from where the last read ended; runs in a thread and changes nothing."""
        found = _Found(self._next, self._at, after_damage=self._after_damage)
        segments = self._log.segments
        scanned = size = 0
        for segment, limit in zip(segments, limits(segments), strict=True):
            if limit is not None and limit <= found.next:
                continue
            first, end = segment.header.first, segment.end
            at = found.at[1] if found.at is not None and found.at[0] == first else SEGMENT_HEADER
            try:
                with self._log.reading(segment) as read:
                    for stop, each in walk(read, at, end, segment.header.mark):
                        if isinstance(each, Record) and limit is not None and each.number >= limit:
                            break
                        scanned += stop - at
                        found.at, at = (first, stop), stop
                        if isinstance(each, Bad):
                            found.after_damage = True
                            found.parts += self._log.set_aside(segment, each)
                            continue
                        if self._wanted(each, found):
                            found.records.append(each)
                            size += len(each.payload)
                        if (
                            size >= READ_BYTES
                            or len(found.records) >= READ_RECORDS
                            or scanned >= SCAN_BYTES
                        ):
                            found.more = True
                            return found
            except FileNotFoundError:
                continue  # removed meanwhile, because every cursor was past it
            if limit is not None:
                if found.after_damage:
                    found.missing += limit - found.next
                    found.after_damage = False
                found.next = limit
        return found

    def _wanted(self, record: Record, found: _Found) -> bool:
        """Whether a record is to be delivered; either way the reading goes on behind it."""
        if record.number < found.next:
            return False
        if found.after_damage:
            found.missing += record.number - found.next
            found.after_damage = False
        found.next = record.number + 1
        return self._is_for_us(record.route, record.number) and record.number not in self._done

    def _is_for_us(self, route: str, number: int) -> bool:
        return route in self.routes or number < self._former.get(route, 0)


def limits(segments: Sequence[Segment]) -> list[int | None]:
    """For each segment the number from which on its records do not count; None for the last."""
    return [segment.header.first for segment in segments[1:]] + ([None] if segments else [])
