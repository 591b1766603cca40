"""
The contract of a store: an exporter that you can ask questions.

A store takes batches like any exporter and answers `find`. It lives on documents (documents/build.py):
what was written comes back equal, whatever the store does inside (BSON dates have milliseconds,
MongoDB nests dotted keys, SQLite keeps JSON). `tests/contracts/stores.py` is this contract as a
test suite; each store passes it unchanged.

Promises of every store:

- **Durability.** `write` returns after the documents survive kill -9 and power loss of the
  process that wrote them (SQLite: fsync; MongoDB: majority and journal).
- **Idempotence.** A document whose `_id` is stored already is success and is counted as a
  duplicate. Writing the same batch twice stores nothing twice, also across restarts.
- **Isolation.** A document that can never be stored is reported in `Written.refused`, with its
  reason, and kept as a dead letter; its neighbours are stored.
- **Places.** `routing.Routing` says which collection a document belongs to. A log record is in
  one of them, and `find` without a `collection` asks all of them: it finds each record once.
  The trail (`trace_logs`) is derived from spans and records and asked for by name only.
- **Retention.** Documents go when they are older than the configuration keeps their collection,
  by `received_at`.
- **Statistics.** `daily_statistics` equals a recount of the stored facts soon after the last of
  them arrived, whatever was sent twice or killed in between.
- **Failure.** `Retryable` when the store cannot be reached or cannot write now. An unknown
  outcome (timeout) is `Retryable` too: the resend is a duplicate at worst.
- **Reading.** `find` returns whole documents in the order asked for; nothing found is an empty
  list, never an error. Values of a query are values: they can never become operators, SQL or
  field paths. A query that needs longer than the store allows, or a store that cannot be reached,
  is `Retryable` with a text that says what to do.
- **Lists.** `traces`, `services`, `operations` and `metric_names` read no more than they are
  allowed to, and say when that was not everything. No `text` and no `where` narrows them
  (ValueError). See stores/lists.py.
- **Following.** `follow` gives each log record that becomes visible after a position at least once;
  what it cannot give it names as a gap. A repeat can only come right behind a position.
- **Moving.** What another store holds can be taken over: documents keep their collection and their
  `received_at`, whatever the routes of this store say, and nothing is stored twice.
- **Read-only.** Opened with `read_only=True` a store creates nothing, changes nothing, and may be
  open while another process writes.

A store narrows a query down with what it has (indexes, SQL, BSON filters), and may find too much.
`query_match.matches` says exactly which documents a query means; every store asks it last.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final, Protocol, Self, TypeVar

import msgspec

from collector.documents.build import Document as Document
from collector.documents.build import documents
from collector.documents.build import dumps as dumps
from collector.documents.build import loads as loads
from collector.documents.trace_message import trace_bytes as trace_bytes
from collector.documents.trace_message import trace_json as trace_json
from collector.model import Batch, Host, Signal
from collector.stats import QuietLog
from collector.stores.answers import Failure as Failure
from collector.stores.answers import Followed as Followed
from collector.stores.answers import Walked as Walked
from collector.stores.answers import failure_of as failure_of
from collector.stores.dead_letters import DeadLetter as DeadLetter
from collector.stores.lists import ENTRIES as ENTRIES
from collector.stores.lists import MOST_COUNTED as MOST_COUNTED
from collector.stores.lists import MOST_WALKED as MOST_WALKED
from collector.stores.lists import Counted as Counted
from collector.stores.lists import ListedTrace as ListedTrace
from collector.stores.lists import MetricName as MetricName
from collector.stores.lists import Operation as Operation
from collector.stores.lists import Part as Part
from collector.stores.lists import Place as Place
from collector.stores.lists import ServiceCount as ServiceCount
from collector.stores.lists import Traces as Traces
from collector.stores.statistics import DailyStatistic as DailyStatistic

MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""A larger document is rejected by every store (it is what MongoDB can hold)."""

ID: Final = re.compile(r"[0-9a-f]{24}")
"""What `_id` looks like."""

T = TypeVar("T")


class Refused(msgspec.Struct, frozen=True):
    """
    One document that can never be stored, and why.

    Args:
        document: as it was given.
        reason: a word for counters: "invalid_id", "cannot_encode", "too_large", or what the
            server said ("validator", "unique_index", ...).
    """

    document: Document
    reason: str


@dataclass(slots=True, frozen=True)
class Written:
    """
    What became of the documents of one `write`: stored + duplicates + len(refused) = given.

    Args:
        stored: how many are new.
        duplicates: how many were there already.
        refused: those that can never be stored.
    """

    stored: int
    duplicates: int = 0
    refused: Sequence[Refused] = ()


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to find: all given conditions must hold; one that is not given holds always."""

    signal: Signal
    """Which documents: spans ("traces"), log records ("logs") or metric points ("metrics")."""
    id: str | None = None
    """The trace id, or any id of `context` that is in `telemetry.attributes.LOOKUP`."""
    trace_ids: tuple[str, ...] = ()
    """Only documents of one of these traces (lower-case hex)."""
    task_ids: tuple[str, ...] = ()
    """Only documents with one of these as `context.task_id`."""
    context: Mapping[str, str] = {}
    """Keys of `context` and the values that they must have."""
    service: str | None = None
    """`service` equals this."""
    min_severity: int | None = None
    """Logs: severity at least this (info 9, warning 13, error 17, critical 21); see `severity`."""
    status: str | None = None
    """Spans: `status` equals this (UNSET, OK, ERROR)."""
    name: str | None = None
    """Spans and metrics: `name` equals this. Logs: `event` equals this."""
    names: tuple[str, ...] = ()
    """The same, equals one of these."""
    roots: bool = False
    """Spans: only those without a parent."""
    min_duration_ms: float | None = None
    """Spans: `duration_ms` at least this."""
    since_unix_nano: int | None = None
    """Event time at or after this."""
    until_unix_nano: int | None = None
    """Event time before this."""
    text: str | None = None
    """Logs: `message` contains this, case-insensitively."""
    where: tuple[tuple[str, str], ...] = ()
    """(key, value) pairs: an attribute, or a resource attribute, of that name equals the value.
    The key is the attribute's exact name (`http.request.method`; also `correlation.id` or
    `exception.type`, which documents keep in places of their own), or a dotted path of the document
    that begins with `attributes.`, `resource.` or `context.`. The value is text; an attribute that
    is a number or a boolean matches when its JSON text equals it (`"200"`, `"true"`); one that is
    a list, a map, bytes or empty never matches."""
    collection: str | None = None
    """Logs: only the records that are kept there (`error_logs`, `analytics`, ...), or the trail
    (`trace_logs`), which is not part of the logs otherwise."""
    newest_first: bool = False
    """Order by event time, then `_id`; oldest first unless this is set."""
    limit: int = 100
    """At most so many documents, 1 to 10000."""
    after: tuple[int, str] | None = None
    """(event time in ns, `_id`) of the last document of the page before: go on behind it."""

    def __post_init__(self) -> None:
        """Reject what no store could answer."""
        if not 1 <= self.limit <= 10_000:
            raise ValueError(f"limit: {self.limit} is not between 1 and 10000")
        if self.after is not None and not ID.fullmatch(self.after[1]):
            raise ValueError("after: the second part is not an _id (24 lower-case hex digits)")


class Store(Protocol):
    """What the query side and the pipeline see of a store."""

    async def __call__(self, batch: Batch) -> None:
        """Consume a batch as an exporter does: documents, then `write`; counts what was rejected."""

    async def write(
        self, signal: Signal, documents: Sequence[Document], *, collection: str | None = None
    ) -> Written:
        """
        Store documents of one signal; see the promises above.

        Args:
            signal: what they are.
            documents: of that signal.
            collection: where they are kept; the routes decide unless it is given. Documents of the
                trail are written to `trace_logs` by name.
        """

    async def find(self, query: Query) -> list[Document]:
        """The documents that match, in order; an empty list when nothing does."""

    async def slowest(self, query: Query, after: tuple[float, str] | None = None) -> list[Document]:
        """
        The spans that match, the longest first, those of equal length by `_id` from the last.

        Args:
            query: its order and its `after` have no meaning here.
            after: `duration_ms` and `_id` of the last span of the page before.
        """

    async def failures(self, query: Query) -> list[Failure]:
        """What failed: documents that match, counted by type, message and service; latest first."""

    async def traces(
        self,
        query: Query,
        *,
        longest: bool = False,
        after: Place | None = None,
        most: int = MOST_WALKED,
    ) -> Traces:
        """
        Traces with a span that matches, `query.limit` of them, by their first matching span.

        Args:
            query: about spans, without `text` and `where`; its order and `after` have no meaning.
            longest: the longest matching span first; the newest first otherwise.
            after: `behind` of the page before.
            most: spans to look at; the page ends early behind them.
        """

    async def services(self, query: Query, *, most: int = MOST_COUNTED) -> Counted[ServiceCount]:
        """The newest `most` spans or log records that match, counted by service."""

    async def operations(
        self, query: Query, *, kinds: Sequence[str] = (), most: int = MOST_COUNTED
    ) -> Counted[Operation]:
        """The newest `most` spans that match, those of some kinds by service, name and kind."""

    async def metric_names(self, query: Query, *, most: int = MOST_COUNTED) -> Counted[MetricName]:
        """The newest `most` metric points that match, by name."""

    def follow(self, query: Query, after: str = "") -> AsyncGenerator[Followed, None]:
        """
        New log records that match, for ever; the first step comes at once and may be empty.

        A step comes at least every few seconds. Close the generator when it is no longer needed.

        Args:
            query: its times, order, limit and `after` have no meaning here.
            after: the position of an earlier step; only what is stored from now on without one.

        Raises:
            Retryable: the store cannot be asked now; follow again from the last position.
            ValueError: the position is none of this store.
        """

    async def sizes(self) -> dict[str, int]:
        """Roughly how many documents each collection holds, by name; none that holds nothing."""

    async def walk(self, collection: str, *, limit: int, after: str = "") -> Walked:
        """Documents of one collection in the store's own order, those behind a position."""

    async def fetch(self, collection: str, ids: Sequence[str]) -> list[Document]:
        """Those documents of one collection that have one of these `_id`s, in any order."""

    async def take_over(
        self, *, letters: Sequence[DeadLetter] = (), statistics: Sequence[DailyStatistic] = ()
    ) -> None:
        """
        Keep dead letters and statistics of another store.

        A dead letter that is there already stays. Of two rows of the statistics the one that counts more
        stays.
        """

    async def dead_letters(self, *, limit: int, after: str = "") -> list[DeadLetter]:
        """Dead letters in the order of their ids, those behind the id `after`."""

    async def forget(self, ids: Sequence[str]) -> int:
        """Delete dead letters; how many there were."""

    async def daily_statistics(self, since: date, until: date) -> list[DailyStatistic]:
        """The statistics of the days from `since` to `until`, inclusive, in order."""

    def describe(self) -> str:
        """Where this store keeps its data, without secrets, for "searched in ..." messages."""

    async def __aenter__(self) -> Self:
        """Open; a store that is down does not stop the collector from starting."""

    async def __aexit__(self, *exc: object) -> None:
        """Close; nothing acknowledged is lost."""


def event_time(signal: Signal, document: Document) -> int:
    """The time that a query orders by, in nanoseconds: a span's start, else the record's time."""
    key = "start_unix_nano" if signal is Signal.TRACES else "time_unix_nano"
    time: int = document[key]
    return time


def encodable(query: Query) -> bool:
    """Whether all texts of a query are valid Unicode; no document holds a text that is not."""
    try:
        dumps(query)
    except UnicodeEncodeError:
        return False
    return True


def listable(query: Query, *signals: Signal) -> bool:
    """
    Whether a list can have anything for a query.

    Raises:
        ValueError: it has a condition that lists do not know.
    """
    if query.where or query.text is not None or query.context:
        raise ValueError("lists: a question with `text`, `where` or `context` is not answered")
    return query.signal in signals and encodable(query)


class StoreConsumer:
    """
    The exporter side of a store: batch -> documents -> `write`, and what was not new is counted.

    The items of a batch that was taken count as sent where the pipeline ends; here only the part
    that the store did not keep: `otelier_store_duplicates` and `otelier_store_refused` {reason}.

    Args:
        host: of the store.
        write: the store's `write`.
    """

    def __init__(
        self, host: Host, write: Callable[[Signal, Sequence[Document]], Awaitable[Written]]
    ) -> None:
        self._host = host
        self._write = write
        self._quiet_log = QuietLog(host.log)
        self._turn = asyncio.Lock()

    async def convert(self, work: Callable[[], T]) -> T:
        """
        Run work that holds the GIL in a thread, so that the event loop stays free; one at a time.

        Two of them take as long as one after the other, and a thread that needs the GIL for a moment
        (the one that writes to SQLite, the event loop) would have to wait for both.
        """
        async with self._turn:
            return await asyncio.to_thread(work)

    async def __call__(self, batch: Batch) -> None:
        """Store a batch."""
        found = await self.convert(partial(documents, batch))
        self.count(await self._write(batch.signal, found))

    def count(self, written: Written) -> None:
        """Count what a store did not keep of a batch."""
        add, exporter = self._host.stats.add, self._host.id
        if written.duplicates:
            add("otelier_store_duplicates", written.duplicates, exporter=exporter)
        for refused in written.refused:
            add("otelier_store_refused", 1, exporter=exporter, reason=refused.reason)
            self._quiet_log.warning(
                "Documents are rejected: %s; see otelier_store_refused in the metrics.",
                refused.reason,
                subject=refused.reason,
            )
