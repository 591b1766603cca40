"""
Questions to one MongoDB: bounded in number, each with a deadline, merged over its collections.

`find` asks each collection that can have what is asked for with a plan and a limit of its own; the
answers are merged here. What it finds by an id is few, so that is one command for all of them.
Summaries are in stores/mongodb/summaries.py, following in stores/mongodb/change_stream.py, moving in
stores/mongodb/transfer.py.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pymongo
from pymongo.errors import ExecutionTimeout, PyMongoError

from collector.documents.build import Document
from collector.errors import Retryable
from collector.model import Signal
from collector.stores.base import (
    Failure,
    Followed,
    Query,
    Walked,
    encodable,
    event_time,
)
from collector.stores.mongodb import bson as shape
from collector.stores.mongodb import bulk, summaries
from collector.stores.mongodb import change_stream as following
from collector.stores.mongodb import transfer as moving
from collector.stores.mongodb.client import CODEC, Calls
from collector.stores.mongodb.config import MongoDBConfig
from collector.stores.mongodb.encode import collections_for, in_order
from collector.stores.mongodb.filter import exact, filter_of, sort, time_fields
from collector.stores.mongodb.indexes import REACH_S
from collector.stores.query_match import matches
from collector.stores.routing import OWN_NAME

READERS: Final = 16
"""Threads that answer questions; one over all logs takes one for each of their collections."""

MAX_QUESTIONS: Final = 64
"""Questions that may wait or run; more is refused for now."""

MAX_FOLLOWERS: Final = 16
"""How many may follow new records at once, each with a thread of its own."""

_NAMES_S: Final = 60.0
T = TypeVar("T")


class Reading:
    """
    What asks.

    Args:
        config: of the store.
        servers: for messages.
        logs: the collections of log records that the configuration knows.
    """

    def __init__(self, config: MongoDBConfig, servers: str, logs: tuple[str, ...]) -> None:
        self._config = config
        self._servers = servers
        self._logs = logs
        self._found: tuple[float, tuple[str, ...]] = (0.0, logs)
        self._closed = f"MongoDB at {servers}, database {config.database} is closed"
        self._client: pymongo.MongoClient[dict[str, Any]] | None = None
        self._calls = Calls("mongodb-reader", READERS, self._closed)
        self._questions = 0
        self._followers: set[Calls] = set()

    def open(self, client: "pymongo.MongoClient[dict[str, Any]]") -> None:
        """Ask with this client from now on."""
        self._client = client

    async def stop(self) -> None:
        """Let running questions end, refuse those that wait."""
        await self._calls.stop()
        for follower in list(self._followers):
            await follower.stop()
        self._client = None

    @property
    def database(self) -> Any:
        """The database, its documents as the store reads them."""
        self._check()
        return self._client.get_database(  # type: ignore[union-attr] # `_check` has looked
            self._config.database, codec_options=CODEC
        )

    # --- questions ---

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to one blocking question, within its deadline."""
        with self._place():
            return await self._one(question)

    async def unbounded(self, question: Callable[[], T]) -> T:
        """The same, as long as it takes: building indexes on a large collection is slow."""

        def run() -> T:
            try:
                self._reach()
                return question()
            except PyMongoError as error:
                raise bulk.retryable(error, self._servers) from error

        return await self._calls.one(run)

    async def find(self, query: Query) -> list[Document]:
        """The documents that match, in order; logs are looked for in each collection and merged."""
        filters = filter_of(query) if encodable(query) else None
        self._check()
        if filters is None:
            return []
        with self._place():
            return await self._merged(filters, query)

    async def slowest(self, query: Query, after: tuple[float, str] | None) -> list[Document]:
        """The spans that match, the longest first."""
        if not encodable(query):
            return []
        return await self.ask(lambda: summaries.slowest(self.database, query, after))

    async def failures(self, query: Query) -> list[Failure]:
        """What failed, counted by type, message and service."""
        if not encodable(query):
            return []
        return await self.ask(lambda: summaries.failures(self.database, self.names(query), query))

    async def sizes(self) -> dict[str, int]:
        """Roughly how many documents each collection holds."""
        return await self.ask(lambda: moving.sizes(self.database))

    async def walk(self, collection: str, limit: int, after: str) -> Walked:
        """Documents of one collection, by `_id`."""
        return await self.ask(lambda: moving.walk(self.database, collection, limit, after))

    async def fetch(self, collection: str, ids: Sequence[str]) -> list[Document]:
        """Documents of one collection by their ids."""
        return await self.ask(lambda: moving.fetch(self.database, collection, ids))

    async def follow(self, query: Query, after: str) -> AsyncGenerator[Followed, None]:
        """New log records, step by step; each step is one blocking call in a thread of its own."""
        self._check()
        if len(self._followers) >= MAX_FOLLOWERS:
            raise Retryable(f"{MAX_FOLLOWERS} follow the log records of this store already")
        source = following.Following(lambda: self.database, self.names, query, after)
        calls = Calls("mongodb-follower", 1, self._closed)
        self._followers.add(calls)

        def end() -> None:
            source.close()
            self._followers.discard(calls)

        try:
            while True:
                step = await calls.one(lambda: self._within(source.step))
                yield step
                if not step.logs:
                    await asyncio.sleep(source.pause_s)
        finally:
            # Nothing is awaited here: the follower may be cancelled right now.
            calls.abandon(end)

    # --- how ---

    def _check(self) -> None:
        if self._calls.closing or self._client is None:
            raise Retryable(self._closed)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Bound how many questions wait."""
        self._check()
        if self._questions >= MAX_QUESTIONS:
            raise Retryable(f"{self._questions} questions wait already")
        self._questions += 1
        try:
            yield
        finally:
            self._questions -= 1

    async def _one(self, question: Callable[[], T]) -> T:
        return await self._calls.one(partial(self._within, question))

    async def _merged(self, filters: dict[str, Any], query: Query) -> list[Document]:
        """Ask every collection that can have what is asked for, and merge."""
        names = await self._one(lambda: self.names(query))
        found: list[Document] = []
        while True:
            calls = [partial(self._find, [name], filters, query) for name in names]
            if exact(query) and (query.id is not None or query.trace_ids or query.task_ids):
                # Few documents, by an index: one command for all collections costs less than the
                # way there and back of each.
                calls = [partial(self._find, names, filters, query)]
            answers = await self._calls.all(calls)
            found += itertools.islice(in_order(answers, query), query.limit - len(found))
            # One record in two collections (the routes were changed, then it was sent again) is one;
            # what the repeats took of the limit is asked for again.
            full = any(len(answer) == query.limit for answer in answers)
            if len(found) == query.limit or not full or not found:
                return found
            last = (event_time(query.signal, found[-1]), found[-1]["_id"])
            query = msgspec.structs.replace(query, after=last)
            filters = filter_of(query) or {}

    def _find(self, names: Sequence[str], filters: dict[str, Any], query: Query) -> list[Document]:
        """What collections have, in order, as one command; of a repeated document one."""
        match = matches(query)
        _, nano = time_fields(query.signal)
        limit = query.limit if exact(query) else 0
        if not names:
            return []
        first, *others = (self.database[name] for name in names)
        steps: list[dict[str, Any]] = [{"$match": filters}, {"$sort": dict(sort(query))}]
        steps += [{"$limit": limit}] if limit else []
        union = [{"$unionWith": {"coll": each.name, "pipeline": steps}} for each in others]
        # Each collection has its own plan and limit; then what is left is put in order.
        pipeline = [*steps, *union, *(steps[1:] if union else [])]

        def find() -> list[Document]:
            found: list[Document] = []
            with first.aggregate(pipeline, batchSize=min(query.limit, 1000)) as cursor:
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

    def names(self, query: Query) -> list[str]:
        """The collections that can have what a query asks for."""
        until, names = self._found
        if query.signal is Signal.LOGS and time.monotonic() >= until:
            # Also the collections of configurations that are not ours.
            there = self.database.list_collection_names(nameOnly=True)
            own = filter(OWN_NAME.fullmatch, sorted(there))
            names = tuple(dict.fromkeys((*self._logs, *own)))
            self._found = (time.monotonic() + _NAMES_S, names)
        return collections_for(query, names)

    def _reach(self) -> None:
        """Choose a server. Inside a deadline the driver would look for one until it has passed."""
        if self._client is not None:
            with pymongo.timeout(REACH_S):
                _ = self._client.is_primary
