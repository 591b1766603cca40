"""
Collections and indexes, made when a collection is first written to.

The collection itself is made before the first insert, because its compression cannot be changed
later. Indexes are built by a thread of its own in the background: building them on a large
collection takes long, and neither the start nor the data waits for it. A daemon, because a build
that hangs must not keep the process from ending; the server finishes what it has begun.

Few indexes, each with a reason: one per question that `find` or a person must answer at once. A
partial index costs nothing for documents without the field. Retention runs on `received_at`, the
collector's clock, because a client's clock can be wrong by years; another number in the
configuration changes the index that is there (`collMod`). An index or a view of another program is
reported and left alone.
"""

import logging
import queue
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pymongo
from opentelemetry.instrumentation.utils import suppress_instrumentation
from pymongo import DESCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from collector.stores.retention import kept_s
from collector.stores.routing import (
    AUDIT,
    LETTERS,
    LEVELS,
    METRICS,
    SPANS,
    STATISTICS,
    TRAIL,
    is_log_collection,
)
from telemetry.attributes import LOOKUP

VIEW: Final = "logs"
"""One view over all log records, for people."""

LEDGER: Final = "ledger"
"""Which days of the statistics are to be made again."""

SLOW_MS: Final = 1000
"""Spans that take longer are in an index of their durations."""

_RICH: Final = (LEVELS["ERROR"], LEVELS["CRITICAL"], AUDIT, SPANS)
_TTL: Final = "received_at"
_OPTIONS_CONFLICT: Final = 85
_BEING_BUILT: Final = frozenset({27, 12586, 12587})
"""Codes of `collMod` for an index that is being built at this moment."""
PASSING: Final = frozenset(
    {6, 7, 50, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}
)
"""Codes of a server that stops, starts, or loses an election."""
_EXISTS: Final = 48
_VIEW_S: Final = 10.0
REACH_S: Final = 3.0
"""How long to look for a server that takes writes; an election takes about two seconds."""
_FIRST_DELAY_S: Final = 1.0
_LAST_DELAY_S: Final = 30.0


def indexes(name: str, keep_s: int) -> list[IndexModel]:
    """
    The indexes of a collection.

    Args:
        name: of the collection.
        keep_s: how long its documents are kept, in seconds.
    """
    if name == LEDGER:
        return []
    if name == STATISTICS:
        return [IndexModel([("day", DESCENDING)])]
    arrival = IndexModel([(_TTL, 1)], expireAfterSeconds=keep_s)
    if name == LETTERS:
        return [arrival, _partial([("part_of", 1)], {"part_of": {"$exists": True}})]
    date, nano = ("start", "start_unix_nano") if name == SPANS else ("timestamp", "time_unix_nano")
    newest = (date, DESCENDING)
    found = [arrival, IndexModel([newest, (nano, DESCENDING), ("_id", DESCENDING)])]
    if name == METRICS:
        return [*found, IndexModel([("name", 1), newest])]
    trace_id = "trace_id" if name == SPANS else "trace.trace_id"
    found += [_present(field) for field in (trace_id, *(f"context.{key}" for key in LOOKUP))]
    found.append(_present("context.organization_id", newest))
    if name in _RICH:
        found.append(IndexModel([("service", 1), newest]))
    if name == SPANS:
        found.append(_partial([("duration_ms", DESCENDING)], {"duration_ms": {"$gt": SLOW_MS}}))
        errors = [("status", 1), ("service", 1), newest]
        return [*found, _partial(errors, {"status": "ERROR"})]
    if name in LEVELS.values():
        # With all that a question sorts by: several events are merged in order, without a sort.
        found.append(_present("event", newest, (nano, DESCENDING), ("_id", DESCENDING)))
    elif name != TRAIL:
        found.append(_present("event", newest))
    timed = "trace.execution_time_ms"
    timing = _partial([(timed, DESCENDING)], {timed: {"$exists": True}})
    return [*found, _present("context.conversation_id", newest), timing]


def _present(field: str, *more: tuple[str, int]) -> IndexModel:
    """An index on a field, of the documents that have it."""
    return _partial([(field, 1), *more], {field: {"$exists": True}})


def _partial(keys: Sequence[tuple[str, int]], only: dict[str, Any]) -> IndexModel:
    return IndexModel(keys, partialFilterExpression=only)


class Preparation:
    """
    Makes collections, indexes and the view once per process.

    Args:
        database: where.
        where: the server, for messages.
        log: gets one line when indexes have to wait or are refused.
        kept: seconds by collection.
        logs: the collections that the view joins.
        tend: change the retention of what is there, and our view.
    """

    def __init__(
        self,
        database: Database[Any],
        where: str,
        log: logging.Logger,
        *,
        kept: Mapping[str, int],
        logs: Sequence[str],
        tend: bool = True,
    ) -> None:
        self._database = database
        self._where = where
        self._log = log
        self._kept = kept
        self._logs = logs
        self._tend = tend
        self._created: set[str] = set()
        self._built: set[str] = set()
        self._view_made = not tend
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="mongodb-indexes", daemon=True).start()

    def create(self, name: str) -> None:
        """
        Make a collection, compressed with zstd where the server can, unless it is there.

        Raises:
            PyMongoError: the server cannot be reached.
        """
        if name in self._created:
            return
        engine = {"wiredTiger": {"configString": "block_compressor=zstd"}}
        try:
            self._database.create_collection(name, check_exists=False, storageEngine=engine)
        except OperationFailure as error:
            if error.code in PASSING:
                raise
            # It exists, or the server has no such option, or we may not: an insert makes it then.
        if name not in self._created:
            self._created.add(name)
            self._queue.put(name)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped.set()
        self._queue.put(None)

    def _run(self) -> None:
        with suppress_instrumentation():
            if self._tend:
                self._adapt()
            while (name := self._queue.get()) is not None:
                if name not in self._built:
                    self._built.add(name)
                    self._build(name)
                if name in self._logs and not self._view_made:
                    self._make_view()

    def _adapt(self) -> None:
        """Look once at what is there: its retention may have another number by now."""
        delay_s = _FIRST_DELAY_S
        while not self._stopped.is_set():
            try:
                with pymongo.timeout(REACH_S):
                    names = self._database.list_collection_names(nameOnly=True)
            except OperationFailure as error:
                if error.code not in PASSING:
                    return  # we may not look: `create` does the rest
            except PyMongoError:
                pass  # the write says that the server is away
            else:
                ours = {*self._kept, *self._logs}
                for name in sorted(ours.intersection(names)):
                    self._queue.put(name)
                return
            if self._created:
                return  # a writer got through
            self._stopped.wait(random.uniform(0, delay_s))
            delay_s = min(delay_s * 2, _LAST_DELAY_S)

    def _build(self, name: str) -> None:
        """Build the indexes of one collection, for as long as it takes."""
        delay_s = _FIRST_DELAY_S
        waiting = indexes(name, kept_s(self._kept, name))
        while waiting and not self._stopped.is_set():
            try:
                self._database[name].create_indexes(waiting)
            except OperationFailure as error:
                if error.code not in PASSING:
                    waiting = self._one_by_one(name, waiting)
                    continue
            except PyMongoError as error:
                if delay_s == _FIRST_DELAY_S and not self._stopped.is_set():
                    self._log.warning(
                        "Indexes of %s wait for MongoDB at %s: %s",
                        name,
                        self._where,
                        type(error).__name__,
                    )
            else:
                return
            self._stopped.wait(random.uniform(0, delay_s))
            delay_s = min(delay_s * 2, _LAST_DELAY_S)

    def _one_by_one(self, name: str, waiting: Sequence[IndexModel]) -> list[IndexModel]:
        """One of them is in the way: make the others; those that have to wait are returned."""
        left = []
        for index in waiting:
            try:
                self._database[name].create_indexes([index])
            except OperationFailure as error:
                if error.code in PASSING:
                    left.append(index)
                elif error.code == _OPTIONS_CONFLICT and _is_arrival(index):
                    if not self._changed(name, index):
                        left.append(index)
                else:
                    self._refused(name, index, error)
            except PyMongoError:
                left.append(index)
        return left

    def _changed(self, name: str, index: IndexModel) -> bool:
        """Give the index of arrival times that is there the retention of the configuration."""
        if not self._tend:
            return True
        keep_s = index.document["expireAfterSeconds"]
        wanted = {"keyPattern": {_TTL: 1}, "expireAfterSeconds": keep_s}
        try:
            answer = self._database.command("collMod", name, index=wanted)
        except OperationFailure as error:
            if error.code in PASSING | _BEING_BUILT:
                return False
            self._refused(name, index, error)
            return True
        except PyMongoError:
            return False
        self._log.info(
            "Documents of %s are kept for %s s from now on (%s before)",
            name,
            keep_s,
            answer.get("expireAfterSeconds_old", "without end"),
        )
        return True

    def _refused(self, name: str, index: IndexModel, error: OperationFailure) -> None:
        self._log.warning(
            "MongoDB at %s refuses the index %s of %s (code %s): data is stored without it; drop "
            "the index that is in its way, or grant createIndex",
            self._where,
            index.document["name"],
            name,
            error.code,
        )

    def _make_view(self) -> None:
        """Make the view, or give ours the collections of the configuration."""
        view = view_of(self._logs)
        self._view_made = True
        try:
            with pymongo.timeout(_VIEW_S):
                there = list(self._database.list_collections(filter={"name": VIEW}))
                if not there:
                    self._database.command("create", VIEW, **view)
                elif not is_ours(there[0]):
                    self._log.warning(
                        "MongoDB at %s has a collection or view %s of another program: the view "
                        "over all log records is not made",
                        self._where,
                        VIEW,
                    )
                elif there[0]["options"] != view:
                    self._database.command("collMod", VIEW, **view)
        except OperationFailure as error:
            self._view_made = error.code not in PASSING
            if self._view_made and error.code != _EXISTS:
                self._log.warning(
                    "MongoDB at %s refuses the view %s (code %s): questions are answered without "
                    "it; grant createCollection, collMod and listCollections",
                    self._where,
                    VIEW,
                    error.code,
                )
        except PyMongoError:
            self._view_made = False  # with the next collection


def _is_arrival(index: IndexModel) -> bool:
    return dict(index.document["key"]) == {_TTL: 1}


def view_of(logs: Sequence[str]) -> dict[str, Any]:
    """The options of the view over some collections."""
    first, *others = logs
    return {"viewOn": first, "pipeline": [{"$unionWith": {"coll": name}} for name in others]}


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether a view only joins collections of log records."""
    options = found.get("options", {})
    names = [options.get("viewOn", "")]
    for stage in options.get("pipeline", ()):
        inner = stage.get("$unionWith", {})
        names.append(inner.get("coll", "") if isinstance(inner, dict) else inner)
    return found.get("type") == "view" and all(is_log_collection(name) for name in names)
