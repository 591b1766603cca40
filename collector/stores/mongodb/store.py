"""
The MongoDB store: documents in collections that people query themselves.

The driver is pymongo's blocking client in a few threads, not its async one: encoding holds the GIL
for longer than a network call takes, so it has to leave the event loop anyway, and then one thread
does both; and a server that hangs can only hold a thread, whose wait has a deadline (`timeout`).
Shapes are in stores/mongodb/bson.py, filters in stores/mongodb/filter.py, the meaning of answers in
stores/mongodb/bulk.py, how small writes share a bulk in stores/mongodb/coalesce.py, collections and indexes in
stores/mongodb/indexes.py, statistics in stores/mongodb/statistics.py, dead letters in stores/mongodb/dead_letters.py.

A server that is down never delays the start: what looks for it then runs in the background.
Nothing that happens here is traced (suppressed instrumentation), or each batch would make another.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import date
from functools import partial
from typing import Any, Final, Self, TypeVar

import pymongo
from pymongo.errors import PyMongoError

from collector.documents.build import Document
from collector.errors import Permanent, Retryable, StartFailed
from collector.model import Batch, Host, Signal
from collector.stores.base import (
    DailyStatistic,
    DeadLetter,
    Failure,
    Followed,
    Query,
    Refused,
    StoreConsumer,
    Walked,
    Written,
)
from collector.stores.dead_letters import dead_letter
from collector.stores.mongodb import bulk
from collector.stores.mongodb import dead_letters as mongodb_letters
from collector.stores.mongodb import init as mongodb_init
from collector.stores.mongodb import statistics as mongodb_statistics
from collector.stores.mongodb import transfer as moving
from collector.stores.mongodb.client import (
    CODEC,
    DURABLE,
    Calls,
    client_of,
    servers,
    squeezed_badly,
)
from collector.stores.mongodb.coalesce import Coalescer
from collector.stores.mongodb.config import MongoDBConfig
from collector.stores.mongodb.encode import encode
from collector.stores.mongodb.indexes import REACH_S, Preparation
from collector.stores.mongodb.lists import Lists
from collector.stores.mongodb.reader import MAX_FOLLOWERS, READERS, Reading
from collector.stores.retention import table
from collector.stores.routing import LETTERS, STATISTICS, TRAIL, Routing
from collector.stores.statistics import days_of

WRITERS: Final = 8
"""Threads that encode and insert."""

MAX_WRITES: Final = 64
"""Calls of `write` that may wait or run; more is refused for now."""

T = TypeVar("T")


class MongoDB(Lists):
    """
    The store; see `base.Store` for what it promises.

    Args:
        config: of `exporters: mongodb:`.
        host: for counters and log.
        read_only: create no collection, no index, no document.
        tend: give what is there the retention of the configuration. Off for commands that only
            write some documents, and may not know the collector's configuration.
    """

    Config = MongoDBConfig

    def __init__(
        self, config: MongoDBConfig, host: Host, *, read_only: bool = False, tend: bool = True
    ) -> None:
        self._config = config
        self._tend = tend
        self._host = host
        self._read_only = read_only
        self._servers = servers(config.uri)
        self._coalescer = Coalescer(self.write, f"MongoDB at {self._servers} is too slow for them")
        self._consumer = StoreConsumer(host, self._coalescer)
        self._client: pymongo.MongoClient[dict[str, Any]] | None = None
        self._preparation: Preparation | None = None
        self._statistics: mongodb_statistics.Statistics | None = None
        self._routing = Routing(config.events)
        self._calls = Calls("mongodb-writer", WRITERS, f"{self.describe()} is closed")
        self._reading = Reading(config, self._servers, self._routing.logs)
        self._writes = 0

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
                self._config.uri, float(self._config.timeout), WRITERS + READERS + MAX_FOLLOWERS + 2
            )
        except Exception as error:  # its text may quote the URI
            raise StartFailed(
                f"the MongoDB driver refuses the `uri` for {self._servers} ({type(error).__name__}): "
                "check its options"
            ) from None
        if advice := squeezed_badly(self._config.uri):
            self._host.log.warning("MongoDB at %s: %s", self._servers, advice)
        self._reading.open(self._client)
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
        await self._reading.stop()
        await self._calls.stop()
        await self._coalescer.stop()
        if self._statistics is not None:
            await asyncio.to_thread(self._statistics.stop)
        if self._preparation is not None:
            self._preparation.stop()
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def __call__(self, batch: Batch) -> None:
        """Consume a batch as an exporter does."""
        await self._consumer(batch)

    async def write(
        self, signal: Signal, documents: Sequence[Document], *, collection: str | None = None
    ) -> Written:
        """Store documents; returns after a majority has them in its journal."""
        if self._preparation is None:
            raise Permanent(f"{self.describe()} is not open for writing")
        if self._calls.closing or self._client is None:
            raise Retryable(f"{self.describe()} is closed")
        if self._writes >= MAX_WRITES:
            raise Retryable(f"{self._writes} writes wait for MongoDB at {self._servers} already")
        self._writes += 1
        try:
            return await self._write(signal, documents, collection)
        finally:
            self._writes -= 1

    async def find(self, query: Query) -> list[Document]:
        """The documents that match, in order; logs are looked for in each collection and merged."""
        return await self._reading.find(query)

    async def slowest(self, query: Query, after: tuple[float, str] | None = None) -> list[Document]:
        """The spans that match, the longest first."""
        return await self._reading.slowest(query, after)

    async def failures(self, query: Query) -> list[Failure]:
        """What failed, counted by type, message and service; latest first."""
        return await self._reading.failures(query)

    def follow(self, query: Query, after: str = "") -> AsyncGenerator[Followed, None]:
        """New log records, from a change stream where the server has them."""
        return self._reading.follow(query, after)

    async def sizes(self) -> dict[str, int]:
        """Roughly how many documents each collection holds."""
        return await self._reading.sizes()

    async def walk(self, collection: str, *, limit: int, after: str = "") -> Walked:
        """Documents of one collection, in the order of `_id`."""
        return await self._reading.walk(collection, limit, after)

    async def fetch(self, collection: str, ids: Sequence[str]) -> list[Document]:
        """Documents of one collection by their ids."""
        return await self._reading.fetch(collection, ids)

    async def take_over(
        self, *, letters: Sequence[DeadLetter] = (), statistics: Sequence[DailyStatistic] = ()
    ) -> None:
        """Keep dead letters and statistics of another store."""
        if self._preparation is None:
            raise Permanent(f"{self.describe()} is not open for writing")
        refused = await self._calls.one(lambda: self._keep(letters)) if letters else 0
        if refused:
            raise Permanent(f"{self.describe()} refuses a dead letter; is there a validator?")
        if statistics:
            await self._calls.one(lambda: self._durably(lambda: self._carry(statistics)))

    async def dead_letters(self, *, limit: int, after: str = "") -> list[DeadLetter]:
        """Dead letters in the order of their ids."""
        return await self._reading.ask(lambda: mongodb_letters.read(self._letters(), limit, after))

    async def forget(self, ids: Sequence[str]) -> int:
        """Delete dead letters; how many there were."""
        if self._read_only:
            raise Permanent(f"{self.describe()} is not open for writing")
        return await self._reading.ask(lambda: mongodb_letters.forget(self._letters(), ids))

    async def daily_statistics(self, since: date, until: date) -> list[DailyStatistic]:
        """The statistics of some days."""
        return await self._reading.ask(
            lambda: mongodb_statistics.read(self._reading.database, since, until)
        )

    async def init(self, *, dry_run: bool = False) -> list[mongodb_init.Difference]:
        """What the database lacks; unless it is a dry run, that is made, and what remains is returned."""
        kept = table(self._config.retention)

        def run() -> list[mongodb_init.Difference]:
            if not dry_run:
                mongodb_init.apply(self._database, kept, self._routing.logs)
            return mongodb_init.differences(self._database, kept, self._routing.logs)

        return await self._reading.unbounded(run)

    def sharding(self) -> str:
        """The commands that shard the collections."""
        kept = table(self._config.retention)
        return mongodb_init.sharding(self._config.database, kept, self._routing.logs)

    def _statistics_failed(self, loop: asyncio.AbstractEventLoop) -> Callable[[str], None]:
        def count(reason: str) -> None:
            labels = {"exporter": self._host.id, "reason": reason}
            add = partial(self._host.stats.add, "otelier_store_statistics_failed", 1, **labels)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the counters with it
                loop.call_soon_threadsafe(add)

        return count

    # --- writing ---

    async def _write(
        self, signal: Signal, documents: Sequence[Document], collection: str | None
    ) -> Written:
        found = await self._calls.one(partial(encode, signal, documents, self._routing, collection))
        facts = signal is Signal.LOGS and collection != TRAIL
        days = days_of(documents) if facts else set()
        await self._mark(days)
        chunks = [
            (name, chunk)
            for name, positions in found.groups.items()
            for chunk in bulk.chunks(positions, found.encoded)
        ]
        trails = list(bulk.chunks(range(len(found.trails)), found.trails))
        outcomes = await self._calls.all(
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
                dead_letter(
                    signal, collection or self._place(signal, documents[at]), documents[at], reason
                )
                for at, reason in found.refused
            ]
            lost = await self._calls.one(lambda: self._keep(letters))
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
            await self._calls.one(lambda: self._durably(mark))

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

    def _carry(self, statistics: Sequence[DailyStatistic]) -> None:
        self._preparation.create(STATISTICS)  # type: ignore[union-attr] # `take_over` has looked
        moving.take_over(self._database.with_options(write_concern=DURABLE), statistics)

    def _durably(self, call: Callable[[], T]) -> T:
        """Run a call that writes, within the deadline of an insert."""
        with pymongo.timeout(float(self._config.timeout)):
            try:
                self._reach()
                return call()
            except PyMongoError as error:
                raise bulk.retryable(error, self._servers) from error

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
