"""
The MongoDB store: documents in collections that people query themselves.

The driver is pymongo's blocking client in a few threads, not its async one: encoding holds the GIL
for longer than a network call takes, so it has to leave the event loop anyway, and then one thread
does both; and a server that hangs can only hold a thread, whose wait has a deadline (`timeout`).
Shapes are in _mongodb_shape.py, filters in _mongodb_filter.py, the meaning of answers in
_mongodb_bulk.py, collections and indexes in _mongodb_indexes.py, statistics in
_mongodb_statistics.py, dead letters in _mongodb_letters.py.

A server that is down never delays the start: what looks for it then runs in the background.
Nothing that happens here is traced (suppressed instrumentation), or each batch would make another.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any, Final, Self, TypeVar

import msgspec
import pymongo
from opentelemetry.instrumentation.utils import suppress_instrumentation
from pymongo import uri_parser
from pymongo.errors import ExecutionTimeout, PyMongoError

from collector.documents import Document
from collector.errors import Permanent, Retryable, StartFailed
from collector.model import Batch, Duration, Host, OnRequest, Secret, Signal
from collector.sending import RetryOnFailure, SendingQueue
from collector.stores import _mongodb_bulk as bulk
from collector.stores import _mongodb_init as mongodb_init
from collector.stores import _mongodb_letters as mongodb_letters
from collector.stores import _mongodb_shape as shape
from collector.stores import _mongodb_statistics as mongodb_statistics
from collector.stores._mongodb_batch import collections_for, encode, in_order
from collector.stores._mongodb_client import CODEC, DURABLE, client_of, servers
from collector.stores._mongodb_filter import exact, filter_of, sort, time_fields
from collector.stores._mongodb_indexes import REACH_S, Preparation
from collector.stores.base import (
    DailyStatistic,
    DeadLetter,
    Intake,
    Query,
    Refused,
    Written,
    encodable,
    event_time,
    matches,
)
from collector.stores.letters import letter
from collector.stores.retention import table
from collector.stores.routing import (
    LETTERS,
    OWN_NAME,
    TRAIL,
    Routing,
)
from collector.stores.statistics import days_of

WRITERS: Final = 8
"""Threads that encode and insert."""

READERS: Final = 16
"""Threads that answer questions; one over all logs takes one for each of their collections."""

MAX_WRITES: Final = 64
"""Calls of `write` that may wait or run; more is refused for now."""

MAX_QUESTIONS: Final = 64
"""Questions that may wait or run; more is refused for now."""

_NAMES_S: Final = 60.0
T = TypeVar("T")


class MongoDB:
    """
    The store; see `base.Store` for what it promises.

    Args:
        config: of `exporters: mongodb:`.
        host: for counters and log.
        read_only: create no collection, no index, no document.
        tend: give what is there the retention of the configuration. Off for commands that only
            write some documents, and may not know the collector's configuration.
    """

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of `exporters: mongodb:`."""

        uri: Secret = Secret("mongodb://localhost:27017")
        """Connection string, with user and password where needed; shown nowhere."""
        database: str = "telemetry"
        """Database that holds the collections."""
        timeout: Duration = Duration(10)
        """How long one insert may take, from choosing a server to the confirmation."""
        query_timeout: Duration = Duration(10)
        """A question that takes longer is ended with an error."""
        events: dict[str, str] = {}
        """Which collection the events of a name, or of a beginning and `*`, are kept in: analytics,
        ml_inferences, audit_logs, a name of your own that ends in _events, or level."""
        retention: dict[str, int | str] = {}
        """How long the documents of a collection are kept: days, a duration (36h, 30d) or
        unlimited."""
        sending_queue: OnRequest[SendingQueue] = None
        """A queue in front of this exporter, see "Delivery"; off until the key is there."""
        retry_on_failure: OnRequest[RetryOnFailure] = None
        """How the queue tries again, see "Delivery"."""

        def __post_init__(self) -> None:
            """Refuse what cannot work, without showing the URI."""
            Routing(self.events)
            table(self.retention)
            scheme, _, rest = str(self.uri).partition("://")
            try:
                if scheme not in ("mongodb", "mongodb+srv"):
                    raise ValueError
                # The SRV form would ask the name server, which is no business of a validation.
                uri_parser.parse_uri(f"mongodb://{rest}", validate=False)
            except (PyMongoError, ValueError):
                raise ValueError(
                    "uri: not a MongoDB connection string; write mongodb://[user:password@]host"
                    "[:port][/?options], with %XX for special characters in user and password"
                ) from None
            if (
                not self.database
                or len(self.database) > 63
                or set(self.database) & set('/\\. "$\0')
            ):
                raise ValueError(
                    f"database: {self.database!r} is no name of a database; use letters, digits, _ and -"
                )

    def __init__(
        self, config: Config, host: Host, *, read_only: bool = False, tend: bool = True
    ) -> None:
        self._config = config
        self._tend = tend
        self._host = host
        self._read_only = read_only
        self._servers = servers(config.uri)
        self._intake = Intake(host, self.write)
        self._client: pymongo.MongoClient[dict[str, Any]] | None = None
        self._preparation: Preparation | None = None
        self._statistics: mongodb_statistics.Statistics | None = None
        self._routing = Routing(config.events)
        self._found: tuple[float, tuple[str, ...]] = (0.0, self._routing.logs)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="mongodb-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="mongodb-reader")
        self._writes = 0
        self._questions = 0
        self._closing = False

    def describe(self) -> str:
        """Servers and database."""
        return f"MongoDB at {self._servers}, database {self._config.database}"

    async def __aenter__(self) -> Self:
        """
        Make the client; it connects when it is needed.

        Raises:
            StartFailed: the driver cannot use the connection string.
        """
        try:
            self._client = client_of(
                self._config.uri, float(self._config.timeout), WRITERS + READERS + 2
            )
        except Exception as error:  # its text may quote the URI
            raise StartFailed(
                f"the MongoDB driver refuses the `uri` for {self._servers} ({type(error).__name__}): "
                "check its options"
            ) from None
        if not self._read_only:
            self._preparation = Preparation(
                self._client[self._config.database],
                self._servers,
                self._host.log,
                kept=table(self._config.retention),
                logs=self._routing.logs,
                tend=self._tend,
            )
            self._statistics = mongodb_statistics.Statistics(
                self._client.get_database(self._config.database, write_concern=DURABLE),
                self._routing,
                self._preparation.create,
                self._statistics_failed(asyncio.get_running_loop()),
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let running calls end (each has its deadline), refuse those that wait, disconnect."""
        self._closing = True
        for pool in (self._readers, self._writers):
            await asyncio.to_thread(pool.shutdown)
        if self._statistics is not None:
            await asyncio.to_thread(self._statistics.stop)
        if self._preparation is not None:
            self._preparation.stop()
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def __call__(self, batch: Batch) -> None:
        """Consume a batch as an exporter does."""
        await self._intake(batch)

    async def write(self, signal: Signal, documents: Sequence[Document]) -> Written:
        """Store documents; returns after a majority has them in its journal."""
        if self._preparation is None:
            raise Permanent(f"{self.describe()} is not open for writing")
        if self._closing or self._client is None:
            raise Retryable(f"{self.describe()} is closed")
        if self._writes >= MAX_WRITES:
            raise Retryable(f"{self._writes} writes wait for MongoDB at {self._servers} already")
        self._writes += 1
        try:
            return await self._write(signal, documents)
        finally:
            self._writes -= 1

    async def find(self, query: Query) -> list[Document]:
        """The documents that match, in order; logs are looked for in each collection and merged."""
        filters = filter_of(query) if encodable(query) else None
        if filters is None:
            if self._closing or self._client is None:
                raise Retryable(f"{self.describe()} is closed")
            return []
        return await self._ask(lambda: self._merged(filters, query))

    async def dead_letters(self, *, limit: int, after: str = "") -> list[DeadLetter]:
        """Dead letters in the order of their ids."""
        return await self._ask(
            lambda: self._one(lambda: mongodb_letters.read(self._letters(), limit, after))
        )

    async def forget(self, ids: Sequence[str]) -> int:
        """Delete dead letters; how many there were."""
        if self._read_only:
            raise Permanent(f"{self.describe()} is not open for writing")
        return await self._ask(
            lambda: self._one(lambda: mongodb_letters.forget(self._letters(), ids))
        )

    async def daily_statistics(self, since: date, until: date) -> list[DailyStatistic]:
        """The statistics of some days."""
        return await self._ask(
            lambda: self._one(
                lambda: mongodb_statistics.read(
                    self._database.with_options(codec_options=CODEC), since, until
                )
            )
        )

    async def init(self, *, dry_run: bool = False) -> list[mongodb_init.Difference]:
        """What the database lacks; unless it is a dry run, that is made, and what remains is told."""
        kept = table(self._config.retention)

        def run() -> list[mongodb_init.Difference]:
            if not dry_run:
                mongodb_init.apply(self._database, kept, self._routing.logs)
            return mongodb_init.differences(self._database, kept, self._routing.logs)

        def unbounded() -> list[mongodb_init.Difference]:
            # Building indexes on a large collection takes as long as it takes.
            try:
                self._reach()
                return run()
            except PyMongoError as error:
                raise bulk.retryable(error, self._servers) from error

        (found,) = await self._all(self._readers, [unbounded])
        return found

    def sharding(self) -> str:
        """The commands that shard the collections."""
        kept = table(self._config.retention)
        return mongodb_init.sharding(self._config.database, kept, self._routing.logs)

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Bound how many questions wait."""
        if self._closing or self._client is None:
            raise Retryable(f"{self.describe()} is closed")
        if self._questions >= MAX_QUESTIONS:
            raise Retryable(f"{self._questions} questions wait already")
        self._questions += 1
        try:
            return await question()
        finally:
            self._questions -= 1

    async def _one(self, call: Callable[[], T]) -> T:
        """One blocking question."""
        (found,) = await self._all(self._readers, [partial(self._within, call)])
        return found

    async def _merged(self, filters: dict[str, Any], query: Query) -> list[Document]:
        """Ask every collection that can have what is asked for, and merge."""
        names = await self._one(lambda: self._names(query))
        found: list[Document] = []
        while True:
            answers = await self._all(
                self._readers, [partial(self._find, name, filters, query) for name in names]
            )
            found += itertools.islice(in_order(answers, query), query.limit - len(found))
            # One record in two collections (the routes were changed, then it was sent again) is one;
            # what the repeats took of the limit is asked for again.
            full = any(len(answer) == query.limit for answer in answers)
            if len(found) == query.limit or not full or not found:
                return found
            last = (event_time(query.signal, found[-1]), found[-1]["_id"])
            query = msgspec.structs.replace(query, after=last)
            filters = filter_of(query) or {}

    def _statistics_failed(self, loop: asyncio.AbstractEventLoop) -> Callable[[str], None]:
        def count(reason: str) -> None:
            labels = {"exporter": self._host.id, "reason": reason}
            add = partial(self._host.stats.add, "otelier_store_statistics_failed", 1, **labels)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the counters with it
                loop.call_soon_threadsafe(add)

        return count

    async def _all(self, pool: ThreadPoolExecutor, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Run blocking calls at once; when one fails, its error, after all have ended."""
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(loop.run_in_executor(pool, self._run, call) for call in calls),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value] # no exception is left in it

    def _run(self, call: Callable[[], T]) -> T:
        if self._closing:
            raise Retryable(f"{self.describe()} is closed")
        with suppress_instrumentation():
            return call()

    # --- writing ---

    async def _write(self, signal: Signal, documents: Sequence[Document]) -> Written:
        (found,) = await self._all(
            self._writers, [partial(encode, signal, documents, self._routing)]
        )
        days = days_of(documents) if signal is Signal.LOGS else set()
        await self._mark(days)
        chunks = [
            (name, chunk)
            for name, positions in found.groups.items()
            for chunk in bulk.chunks(positions, found.encoded)
        ]
        trails = list(bulk.chunks(range(len(found.trails)), found.trails))
        outcomes = await self._all(
            self._writers,
            [
                *(partial(self._insert, name, found.of(chunk)) for name, chunk in chunks),
                *(
                    partial(self._insert, TRAIL, [found.trails[each] for each in chunk])
                    for chunk in trails
                ),
            ],
        )
        for (_, chunk), outcome in zip(chunks, outcomes, strict=False):
            found.refused += [(chunk[position], reason) for position, reason in outcome.refused]
        for outcome in outcomes[len(chunks) :]:
            if outcome.refused:
                self._count("otelier_store_trail_refused", len(outcome.refused))
        if found.refused:
            letters = [
                letter(signal, self._place(signal, documents[at]), documents[at], reason)
                for at, reason in found.refused
            ]
            (lost,) = await self._all(self._writers, [lambda: self._keep(letters)])
            if lost:
                self._count("otelier_store_dead_letters_refused", lost)
        await self._mark(days)
        outcomes = outcomes[: len(chunks)]
        return Written(
            sum(outcome.stored for outcome in outcomes),
            sum(outcome.duplicates for outcome in outcomes),
            tuple(Refused(documents[position], reason) for position, reason in found.refused),
        )

    def _count(self, name: str, amount: int) -> None:
        self._host.stats.add(name, amount, exporter=self._host.id)

    def _place(self, signal: Signal, document: Document) -> str:
        try:
            return self._routing.collection(signal, document)
        except Exception:  # a document of anything
            return ""

    async def _mark(self, days: set[int]) -> None:
        if days and self._statistics is not None:
            mark = partial(self._statistics.mark, days)
            await self._all(self._writers, [lambda: self._durably(mark)])

    def _insert(self, name: str, encoded: Sequence[bytes]) -> bulk.Outcome:
        def insert() -> bulk.Outcome:
            self._preparation.create(name)  # type: ignore[union-attr] # `write` has looked
            collection = self._database[name].with_options(write_concern=DURABLE)
            return bulk.insert(collection, encoded, self._servers)

        return self._durably(insert)

    def _keep(self, letters: Sequence[DeadLetter]) -> int:
        def keep() -> int:
            self._preparation.create(LETTERS)  # type: ignore[union-attr] # `write` has looked
            return mongodb_letters.add(self._letters(), letters, self._servers)

        return self._durably(keep)

    def _durably(self, call: Callable[[], T]) -> T:
        """Run a call that writes, within the deadline of an insert."""
        with pymongo.timeout(float(self._config.timeout)):
            try:
                self._reach()
                return call()
            except PyMongoError as error:
                raise bulk.retryable(error, self._servers) from error

    # --- reading ---

    def _find(self, name: str, filters: dict[str, Any], query: Query) -> list[Document]:
        match = matches(query)
        _, nano = time_fields(query.signal)
        collection = self._database[name].with_options(codec_options=CODEC)

        def find() -> list[Document]:
            found: list[Document] = []
            with collection.find(
                filters,
                sort=sort(query),
                limit=query.limit if exact(query) else 0,
                batch_size=min(query.limit, 1000),
            ) as cursor:
                for stored in cursor:
                    if nano not in stored:
                        continue  # written by another program
                    document = shape.restore(stored)
                    if match(document):
                        found.append(document)
                        if len(found) == query.limit:
                            break
            return found

        return self._within(find)

    def _within(self, call: Callable[[], T]) -> T:
        """Run a call that reads, within the deadline of a question."""
        timeout_s = float(self._config.query_timeout)
        try:
            with pymongo.timeout(timeout_s):  # the server gets it as maxTimeMS, a little shorter
                self._reach()
                return call()
        except ExecutionTimeout as error:
            raise Retryable(
                f"the question took longer than {timeout_s:g} s: narrow it by an id, a service or "
                "a time range, or raise `query_timeout`"
            ) from error
        except PyMongoError as error:
            raise bulk.retryable(error, self._servers) from error

    def _names(self, query: Query) -> list[str]:
        """The collections that can have what a query asks for."""
        until, names = self._found
        if query.signal is Signal.LOGS and time.monotonic() >= until:
            # Also the collections of configurations that are not ours.
            there = self._database.list_collection_names(nameOnly=True)
            own = filter(OWN_NAME.fullmatch, sorted(there))
            names = tuple(dict.fromkeys((*self._routing.logs, *own)))
            self._found = (time.monotonic() + _NAMES_S, names)
        return collections_for(query, names)

    def _letters(self) -> Any:
        options = {"codec_options": CODEC, "write_concern": DURABLE}
        return self._database[LETTERS].with_options(**options)

    def _reach(self) -> None:
        """Choose a server. Inside a deadline the driver would look for one until it has passed."""
        if self._client is not None:
            with pymongo.timeout(REACH_S):
                _ = self._client.is_primary

    @property
    def _database(self) -> Any:
        if self._client is None:
            raise Retryable(f"{self.describe()} is closed")
        return self._client[self._config.database]
