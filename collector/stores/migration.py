"""
Moving everything from one store to another: copy, then compare.

Documents go page by page, each page into the collection that it comes from, with its own
`received_at`. The journal remembers behind which page the target has confirmed; it is replaced as a
whole after each page, so that a run that was killed goes on there. What is sent again is there
already: ids are deterministic, so a page twice is a page once. The trail goes first, because a
target derives a trail from spans and records, and the first one stays.

Comparing reads the source again, fetches the same ids from the target and compares the documents
byte by byte. A digest is the sum of the hashes of all documents, so it depends on no order.
"""

import asyncio
import contextlib
import datetime
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from collector.documents.build import Document, dumps
from collector.errors import CollectorError, Retryable
from collector.model import Signal
from collector.stores.base import DailyStatistic, DeadLetter, Store
from collector.stores.retention import kept_s
from collector.stores.routing import LETTERS, METRICS, SPANS, STATISTICS, TRAIL

PAGE: Final = 1000
"""Documents that are moved at once."""

PATIENCE_S: Final = 120.0
"""For how long a store that is away is waited for."""

EXAMPLES: Final = 5
"""Differences that are shown of one collection."""

_LETTERS: Final = 20
_FIRST_DELAY_S: Final = 0.5
_LAST_DELAY_S: Final = 10.0
_MASK: Final = (1 << 128) - 1
P = ParamSpec("P")
T = TypeVar("T")


class Place(msgspec.Struct, kw_only=True):
    """How far one collection is."""

    position: str = ""
    """Behind this the source goes on."""
    documents: int = 0
    """How many the target has confirmed."""
    done: bool = False
    """Whether that is all."""


class State(msgspec.Struct, kw_only=True):
    """What the journal holds."""

    source: str
    """The source's description, without secrets."""
    target: str
    """The target's."""
    places: dict[str, Place] = {}
    """By collection."""


class JournalError(CollectorError):
    """The journal cannot be used; the message says what to do."""


class Journal:
    """
    The journal of one move.

    Args:
        path: of the file; it is made when it is missing.
        source: description of the source.
        target: description of the target.

    Raises:
        JournalError: the file is that of another move, or none at all.
    """

    def __init__(self, path: Path, source: str, target: str) -> None:
        self.path = path
        self.state = State(source=source, target=target)
        self.resumed = False
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(
                f"cannot read {path}: {error.strerror}: name another --journal"
            ) from error
        try:
            found = msgspec.json.decode(body, type=State)
        except msgspec.DecodeError as error:
            text = f"{path} is no journal ({error}): delete it, or name another --journal"
            raise JournalError(text) from error
        if (found.source, found.target) != (source, target):
            text = f"{path} is the journal of another move, from {found.source} to {found.target}"
            raise JournalError(f"{text}: name another --journal")
        self.state = found
        self.resumed = True

    def place(self, collection: str) -> Place:
        """How far a collection is."""
        return self.state.places.setdefault(collection, Place())

    def save(self) -> None:
        """Replace the file; after a power cut it is the old one or this one."""
        beside = self.path.with_name(f"{self.path.name}.new")
        try:
            beside.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(beside, flags, 0o640), "wb") as file:
                file.write(msgspec.json.encode(self.state))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            text = f"cannot write {self.path}: {error.strerror}: name another --journal"
            raise JournalError(text) from error

    def forget(self) -> None:
        """Delete the file: the next run looks at everything again."""
        self.path.unlink(missing_ok=True)


@dataclass(slots=True)
class Copied:
    """
    What became of the documents of one collection.

    Args:
        documents: confirmed by the target, in this run and in those before.
        refused: what the target can never store, by reason; there they are dead letters.
    """

    documents: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Compared(msgspec.Struct, kw_only=True):
    """One collection of the source, and what the target has of it."""

    collection: str
    """Its name."""
    documents: int = 0
    """How many the source has."""
    found: int = 0
    """How many of them the target has."""
    expired: int = 0
    """How many the target does not have, because they are older than it keeps them."""
    different: int = 0
    """How many it has with another content."""
    digest_from: str = ""
    """Sum of the hashes in the source, without what has expired."""
    digest_to: str = ""
    """The same in the target."""
    examples: list[str] = []
    """Some of the differences: id, and what differs."""

    @property
    def equal(self) -> bool:
        """Whether nothing is missing and nothing differs."""
        return self.documents == self.found + self.expired and not self.different


Report = Callable[[str, int, int], None]
"""Called with progress: collection, documents so far, documents in all as far as is known."""

Done = Callable[[int], None]
"""The same for one collection: documents so far."""


def order(sizes: Mapping[str, int]) -> list[str]:
    """The collections in the order in which they are moved."""
    first = [name for name in (TRAIL, SPANS, METRICS) if name in sizes]
    last = [name for name in (LETTERS, STATISTICS) if name in sizes]
    return [*first, *sorted(set(sizes) - {*first, *last}), *last]


def signal_of(collection: str) -> Signal:
    """What the documents of a collection are."""
    return {SPANS: Signal.TRACES, METRICS: Signal.METRICS}.get(collection, Signal.LOGS)


async def copy(source: Store, target: Store, journal: Journal, report: Report) -> dict[str, Copied]:
    """
    Move everything that the journal does not know yet.

    Raises:
        Retryable: a store is away for too long; the same call goes on later.
    """
    copied: dict[str, Copied] = {}
    sizes = await patiently(source.sizes)
    for name in order(sizes):
        place = journal.place(name)
        copied[name] = found = Copied(documents=place.documents)
        report(name, place.documents, sizes[name])
        if place.done:
            continue
        if name == STATISTICS:
            await _copy_statistics(source, target, found)
        elif name == LETTERS:
            await _copy_letters(source, target, found)
        else:
            await _copy_documents(
                (source, target), name, journal, found, _done(report, name, sizes[name])
            )
        place.documents, place.done = found.documents, True
        journal.save()
        report(name, found.documents, max(sizes[name], found.documents))
    return copied


def _done(report: Report, name: str, total: int) -> Done:
    return lambda documents: report(name, documents, max(total, documents))


async def _copy_documents(
    stores: tuple[Store, Store], name: str, journal: Journal, found: Copied, done: Done
) -> None:
    source, target = stores
    place, signal = journal.place(name), signal_of(name)

    async def write(documents: Sequence[Document]) -> None:
        written = await target.write(signal, documents, collection=name)
        for refused in written.refused:
            found.refused[refused.reason] = found.refused.get(refused.reason, 0) + 1

    step = await patiently(source.walk, name, limit=PAGE, after=place.position)
    while True:
        # The next page is read while this one is written.
        writing = patiently(write, step.documents)
        place.documents += len(step.documents)
        if step.position is None:
            await writing
            found.documents = place.documents
            return
        reading = patiently(source.walk, name, limit=PAGE, after=step.position)
        _, ahead = await asyncio.gather(writing, reading)
        place.position = step.position
        found.documents = place.documents
        journal.save()
        done(place.documents)
        step = ahead


async def _copy_letters(source: Store, target: Store, found: Copied) -> None:
    found.documents = 0
    async for page in _letters(source):
        await patiently(target.take_over, letters=page)
        found.documents += len(page)


async def _copy_statistics(source: Store, target: Store, found: Copied) -> None:
    found.documents = 0
    for days in years():
        rows = await patiently(source.daily_statistics, *days)
        if rows:
            await patiently(target.take_over, statistics=rows)
            found.documents += len(rows)


async def _letters(store: Store) -> AsyncIterator[list[DeadLetter]]:
    after = ""
    while page := await patiently(store.dead_letters, limit=_LETTERS, after=after):
        yield page
        after = page[-1].id


def years() -> Iterator[tuple[datetime.date, datetime.date]]:
    """All days that there are, in parts: most rows lie in a few years."""
    yield datetime.date(1970, 1, 1), datetime.date(2019, 12, 31)
    for year in range(2020, 2100):
        yield datetime.date(year, 1, 1), datetime.date(year, 12, 31)
    yield datetime.date(2100, 1, 1), datetime.date(9999, 12, 31)


async def patiently(call: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What a call gives, after the store came back if it was away for a while."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE_S
    delay_s = _FIRST_DELAY_S
    while True:
        try:
            return await call(*args, **kwargs)
        except Retryable as error:
            if loop.time() + delay_s > give_up:
                text = f"{error}; run the same command again to go on where it stopped"
                raise Retryable(text, error.delay_s) from error
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, _LAST_DELAY_S)


# --- comparing ---


async def compare(
    source: Store, target: Store, kept: Mapping[str, int], report: Report, now: datetime.datetime
) -> list[Compared]:
    """
    Look whether the target has everything that the source has.

    Args:
        source: what was moved.
        target: where to.
        kept: for how many seconds the target keeps the documents of a collection.
        report: called with progress.
        now: what ages are counted from.
    """
    sizes = await patiently(source.sizes)
    results = []
    for name in order(sizes):
        result = Compared(collection=name)
        results.append(result)
        report(name, 0, sizes[name])
        if name == STATISTICS:
            await _compare_statistics(source, target, result)
        elif name == LETTERS:
            await _compare_letters(source, target, result)
        else:
            edge = now - datetime.timedelta(seconds=kept_s(kept, name))
            await _compare_documents(source, target, result, edge, _done(report, name, sizes[name]))
        report(name, result.documents, max(sizes[name], result.documents))
    return results


async def _compare_documents(
    source: Store,
    target: Store,
    result: Compared,
    edge: datetime.datetime,
    done: Done,
) -> None:
    name, position = result.collection, ""
    there, here = Digest(), Digest()
    while True:
        step = await patiently(source.walk, name, limit=PAGE, after=position)
        wanted = {document["_id"]: document for document in step.documents}
        got = await patiently(target.fetch, name, list(wanted))
        found = {document["_id"]: document for document in got}
        for _id, document in wanted.items():
            result.documents += 1
            copied = found.get(_id)
            if copied is None and document["received_at"] < edge:
                result.expired += 1
                continue
            mine = dumps(document, ordered=True)
            here.add(mine)
            if copied is None:
                _note(result, f"{_id}: missing")
                continue
            result.found += 1
            other = dumps(copied, ordered=True)
            there.add(other)
            if mine != other:
                result.different += 1
                _note(result, f"{_id}: {', '.join(differing(document, copied))} differ")
        done(result.documents)
        if step.position is None:
            break
        position = step.position
    result.digest_from, result.digest_to = here.text(), there.text()


async def _compare_letters(source: Store, target: Store, result: Compared) -> None:
    there, here = Digest(), Digest()
    async with contextlib.aclosing(_each(_letters(target))) as others:  # type: ignore[type-var]
        other = await anext(others, None)
        async for page in _letters(source):
            for mine in page:
                while other is not None and other.id < mine.id:
                    other = await anext(others, None)
                result.documents += 1
                here.add(msgspec.json.encode(mine))
                if other is None or other.id != mine.id:
                    _note(result, f"{mine.id}: missing")
                    continue
                result.found += 1
                there.add(msgspec.json.encode(other))
                if other != mine:
                    result.different += 1
                    _note(result, f"{mine.id}: differs")
    result.digest_from, result.digest_to = here.text(), there.text()


async def _each(pages: AsyncIterator[list[DeadLetter]]) -> AsyncIterator[DeadLetter]:
    async for page in pages:
        for dead_letter in page:
            yield dead_letter


async def _compare_statistics(source: Store, target: Store, result: Compared) -> None:
    """Of two rows the one that counts more is the newer one, so the target may count more."""
    there, here = Digest(), Digest()
    for days in years():
        rows = await patiently(source.daily_statistics, *days)
        if not rows:
            continue
        others = await patiently(target.daily_statistics, *days)
        by_key = {_key(row): row for row in others}
        for row in rows:
            result.documents += 1
            other = by_key.get(_key(row))
            here.add(_counts(row))
            if other is None:
                _note(result, f"{'/'.join(map(str, _key(row)))}: missing")
                continue
            result.found += 1
            there.add(_counts(row if other.count > row.count else other))
            if not same_row(row, other):
                result.different += 1
                _note(result, f"{'/'.join(map(str, _key(row)))}: counts {other.count}")
    result.digest_from, result.digest_to = here.text(), there.text()


def same_row(mine: DailyStatistic, other: DailyStatistic) -> bool:
    """Whether the target's row says the same, or counts more; sums may differ in the last bits."""
    if other.count > mine.count:
        return True
    pairs = [(getattr(mine, name), getattr(other, name)) for name in mine.__struct_fields__]
    return all(
        math.isclose(one, two, rel_tol=1e-9)
        if isinstance(one, float) and isinstance(two, float)
        else one == two
        for one, two in pairs
    )


def _key(row: DailyStatistic) -> tuple[datetime.date, str, str, str, str]:
    return row.day, row.kind, row.tenant, row.model, row.band


def _counts(row: DailyStatistic) -> bytes:
    """What of a row is exact: sums of floats depend on their order."""
    whole = (row.count, row.errors, row.fallbacks, row.scores, row.durations)
    return msgspec.json.encode([*_key(row), *whole])


def _note(result: Compared, text: str) -> None:
    if len(result.examples) < EXAMPLES:
        result.examples.append(text)


def differing(one: Document, two: Document) -> list[str]:
    """The names of the fields that differ."""
    names = sorted({*one, *two})
    return [
        name
        for name in names
        if dumps({"": one.get(name)}, ordered=True) != dumps({"": two.get(name)}, ordered=True)
    ]


class Digest:
    """The sum of the hashes of some documents."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, body: bytes) -> None:
        """Take a document in."""
        self._sum += int.from_bytes(blake2b(body, digest_size=16).digest())
        self._sum &= _MASK

    def text(self) -> str:
        """As 32 hex digits."""
        return f"{self._sum:032x}"
