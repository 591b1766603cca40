"""
Daily statistics in MongoDB: an aggregation over a dirty day that replaces its rows.

`ledger` holds a mark for each dirty day, a new one for each write of facts: before the insert, so
that a crash in between leaves it, and after the insert, before anything is acknowledged. The day
is made again from what is stored, and its mark deleted only if it is still the one that was read.

Facts are never changed, only added, so of two rows the one that counts more is the newer one, and
it wins. Two collectors that make the same day again, or one that was asleep in the middle of it,
cannot write an old row over a new one, and a day whose facts begin to go keeps its rows. That needs
no transaction, so it works on a standalone server, and no lease, so a collector that dies leaves
nothing to wait for.
"""

import datetime
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pymongo
from bson.objectid import ObjectId
from opentelemetry.instrumentation.utils import suppress_instrumentation
from pymongo.database import Database
from pymongo.errors import PyMongoError

from collector.stores.mongodb.indexes import LEDGER, REACH_S
from collector.stores.routing import LEVELS, STATISTICS, Routing
from collector.stores.statistics import (
    BAND,
    ERROR,
    FACTS,
    FALLBACK,
    MODEL,
    NO_FALLBACK,
    TENANT,
    DailyStatistic,
    Fact,
    date_of,
    day_of,
    pause_s,
)

RECOUNT_S: Final = 120.0
"""How long the aggregation over one day may take."""


def moment(day: int) -> datetime.datetime:
    """The beginning of a day counted from 1970."""
    return datetime.datetime.combine(date_of(day), datetime.time(), datetime.UTC)


def _text(paths: Iterable[str]) -> dict[str, Any]:
    """The first of some fields that is a text, else an empty one."""
    only = [{"$cond": [{"$eq": [{"$type": path}, "string"]}, path, None]} for path in paths]
    return {"$ifNull": [*only, ""]}


def _number(path: str) -> dict[str, Any]:
    """A field as a number; null when it is none, or not finite."""
    finite = [{"$isNumber": path}, {"$gte": [path, -1e300]}, {"$lte": [path, 1e300]}]
    return {"$cond": [{"$and": finite}, {"$toDouble": path}, None]}


def pipeline(fact: Fact, day: int, more: Iterable[str]) -> list[dict[str, Any]]:
    """
    The aggregation that makes the rows of a day.

    Args:
        fact: what is counted.
        day: counted from 1970.
        more: collections that hold facts besides the one that is asked.
    """
    match = {
        "$match": {"event": fact.event, "timestamp": {"$gte": moment(day), "$lt": moment(day + 1)}}
    }
    newer = {"$gte": ["$$new.count", "$count"]}
    present = {"$cond": [{"$ne": ["$score", None]}, 1, 0]}
    return [
        match,
        *({"$unionWith": {"coll": name, "pipeline": [match]}} for name in more),
        {
            "$project": {
                "band": _text([f"$attributes.{BAND}"]),
                "model": _text([f"$attributes.{name}" for name in MODEL]),
                "tenant": _text([f"$context.{key}" for key in TENANT]),
                "score": _number(f"$attributes.{fact.score}"),
                "duration": _number(f"$attributes.{fact.duration_s}"),
                "error": {"$cond": [{"$gt": [f"$attributes.{ERROR}", None]}, 1, 0]},
                "fallback": {
                    "$cond": [
                        {"$in": [_text([f"$attributes.{FALLBACK}"]), ["", NO_FALLBACK]]},
                        0,
                        1,
                    ]
                },
            }
        },
        {
            "$group": {
                "_id": {
                    "day": {"$literal": moment(day)},
                    "kind": {"$literal": fact.kind},
                    "tenant": "$tenant",
                    "model": "$model",
                    "band": "$band",
                },
                "count": {"$sum": 1},
                "errors": {"$sum": "$error"},
                "fallbacks": {"$sum": "$fallback"},
                "scores": {"$sum": present},
                "score_sum": {"$sum": "$score"},
                "score_min": {"$min": "$score"},
                "score_max": {"$max": "$score"},
                "durations": {"$sum": {"$cond": [{"$ne": ["$duration", None]}, 1, 0]}},
                "duration_s_sum": {"$sum": "$duration"},
                "duration_s_max": {"$max": "$duration"},
            }
        },
        {"$replaceWith": {"$mergeObjects": ["$_id", "$$ROOT"]}},
        {
            "$merge": {
                "into": STATISTICS,
                "on": "_id",
                "whenMatched": [{"$replaceWith": {"$cond": [newer, "$$new", "$$ROOT"]}}],
                "whenNotMatched": "insert",
            }
        },
    ]


def places(routing: Routing, event: str) -> tuple[str, ...]:
    """The collections that facts of an event are in."""
    name = routing.of_event(event)
    return tuple(LEVELS.values()) if name is None else (name,)


class Statistics:
    """
    Marks days and makes dirty ones again, in a thread of its own.

    Args:
        database: with the write concern that counts.
        routing: where facts are.
        create: makes a collection, as `Preparation.create`.
        count: counts what went wrong, by reason.
    """

    def __init__(
        self,
        database: Database[Any],
        routing: Routing,
        create: Callable[[str], None],
        count: Callable[[str], None],
    ) -> None:
        self._database = database
        self._routing = routing
        self._create = create
        self._count = count
        self._stopped = threading.Event()
        self._marked = False
        self._thread = threading.Thread(target=self._run, name="mongodb-statistics", daemon=True)
        self._thread.start()

    def mark(self, days: Iterable[int]) -> None:
        """
        Say that facts of these days are about to be stored, or were.

        Raises:
            PyMongoError: the server cannot be reached.
        """
        self._create(LEDGER)
        for day in days:
            self._database[LEDGER].update_one(
                {"_id": day}, {"$set": {"mark": ObjectId()}}, upsert=True
            )
        self._marked = True

    def stop(self) -> None:
        """Make the days again that were marked here, if that is quick, and end."""
        self._stopped.set()
        self._thread.join(REACH_S * 2)

    def _run(self) -> None:
        with suppress_instrumentation():
            took_s = 0.0
            while not self._stopped.wait(pause_s(took_s) * random.uniform(0.5, 1.0)):
                began = time.monotonic()
                self._pass(RECOUNT_S)
                took_s = time.monotonic() - began
            if self._marked:
                self._pass(REACH_S)

    def _pass(self, timeout_s: float) -> None:
        try:
            with pymongo.timeout(REACH_S):
                marks = list(self._database[LEDGER].find({}))
            self._marked = False
            for mark in marks:
                with pymongo.timeout(timeout_s):
                    self._again(mark)
        except PyMongoError as error:
            # The marks stay, and the next pass tries again.
            self._marked = True
            self._count(type(error).__name__)

    def _again(self, mark: Mapping[str, Any]) -> None:
        day = mark["_id"]
        self._create(STATISTICS)
        for fact in FACTS:
            first, *others = places(self._routing, fact.event)
            self._database[first].aggregate(pipeline(fact, day, others))
        # A mark that changed in between stays, for the next pass.
        self._database[LEDGER].delete_one({"_id": day, "mark": mark["mark"]})


def read(
    database: Database[Any], since: datetime.date, until: datetime.date
) -> list[DailyStatistic]:
    """The rows of some days."""
    found = database[STATISTICS].find(
        {"day": {"$gte": moment(day_of(since)), "$lte": moment(day_of(until))}}
    )
    rows = []
    for row in found:
        fields = {name: row[name] for name in DailyStatistic.__struct_fields__ if name in row}
        fields["day"] = row["day"].date()
        for name in ("score_sum", "duration_s_sum"):
            fields[name] = float(fields[name])
        rows.append(DailyStatistic(**fields))
    return sorted(rows, key=lambda row: (row.day, row.kind, row.tenant, row.model, row.band))
