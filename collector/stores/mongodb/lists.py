"""
Lists of traces, services, operations and metrics: how MongoDB reads their rows.

A walk goes along the index on times, or on long durations, reads a few fields and ends as soon as a
page is full. Counts by service and metric are made by the server; durations come here, because exact
percentiles need them all.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from bson.objectid import ObjectId

from collector.documents.build import Document
from collector.model import Signal
from collector.stores.base import Query, listable
from collector.stores.lists import (
    ENTRIES,
    FAILED,
    MOST_COUNTED,
    MOST_WALKED,
    Counted,
    MetricCount,
    MetricName,
    Operation,
    Place,
    ServiceCount,
    SpanRow,
    Timing,
    Traces,
    metrics_of,
    operations_of,
    page_of_traces,
    services_of,
)
from collector.stores.mongodb import summaries, transfer
from collector.stores.mongodb.bson import nanoseconds
from collector.stores.mongodb.filter import Filter, filter_of, sort, time_fields
from collector.stores.mongodb.summaries import ORDER, integer
from collector.stores.query_match import LEAST
from collector.stores.routing import METRICS, SPANS

if TYPE_CHECKING:
    from collector.stores.mongodb.reader import Reading

_BATCH: Final = 5_000
_FAILED_LEVELS: Final = [level for level, number in LEAST.items() if number >= FAILED]


class Lists:
    """The part of the store that answers with lists."""

    _reading: "Reading"

    async def traces(
        self,
        query: Query,
        *,
        longest: bool = False,
        after: Place | None = None,
        most: int = MOST_WALKED,
    ) -> Traces:
        """Traces with a span that matches."""
        if not listable(query, Signal.TRACES):
            return Traces()
        return await self._reading.ask(
            lambda: traces(self._reading.database, query, longest=longest, after=after, most=most)
        )

    async def services(self, query: Query, *, most: int = MOST_COUNTED) -> Counted[ServiceCount]:
        """Spans or log records by service."""
        if not listable(query, Signal.TRACES, Signal.LOGS):
            return Counted([])
        asked = self._reading
        return await asked.ask(lambda: services(asked.database, asked.names(query), query, most))

    async def operations(
        self, query: Query, *, kinds: Sequence[str] = (), most: int = MOST_COUNTED
    ) -> Counted[Operation]:
        """Spans by service, name and kind."""
        if not listable(query, Signal.TRACES):
            return Counted([])
        return await self._reading.ask(
            lambda: operations(self._reading.database, query, most, kinds)
        )

    async def metric_names(self, query: Query, *, most: int = MOST_COUNTED) -> Counted[MetricName]:
        """Metrics by name."""
        if not listable(query, Signal.METRICS):
            return Counted([])
        return await self._reading.ask(lambda: metric_names(self._reading.database, query, most))


class Walk:
    """
    Reads the spans of a list of traces.

    Args:
        database: to read from.
        query: the conditions on a span.
        longest: the longest first; the newest first otherwise.
        after: where the page begins.
    """

    def __init__(self, database: Any, query: Query, *, longest: bool, after: Place | None) -> None:
        self._spans = database[SPANS]
        self._database = database
        self._query = msgspec.structs.replace(query, newest_first=True, after=None)
        self._longest = longest
        self._after = after

    def candidates(self) -> Iterator[tuple[Place, str]]:
        """In order, behind `after`."""
        key = "duration_ms" if self._longest else "start_unix_nano"
        order = ORDER if self._longest else dict(sort(self._query))
        for filters in self._filters():
            steps = [{"$match": filters}, {"$sort": order}, {"$project": {"trace_id": 1, key: 1}}]
            with self._spans.aggregate(steps, batchSize=500, allowDiskUse=True) as cursor:
                for found in cursor:
                    if key in found and "trace_id" in found:
                        place = found[key] if self._longest else integer(found[key])
                        yield (place, str(found["_id"])), found["trace_id"]

    def before(self, trace_id: str) -> bool:
        """Whether a matching span of the trace stands at `after` or before it."""
        if self._after is None:
            return False
        rest = filter_of(msgspec.structs.replace(self._query, trace_ids=(trace_id,)))
        at, identity = self._after
        field = "duration_ms" if self._longest else "start_unix_nano"
        value = at if self._longest else nanoseconds(int(at))
        edge = {
            "$or": [
                {field: {"$gt": value}},
                {field: {"$eq": value}, "_id": {"$gte": ObjectId(identity)}},
            ]
        }
        return self._spans.find_one({"$and": [rest or {}, edge]}, {"_id": 1}) is not None

    def spans(self, trace_ids: Sequence[str], limit: int) -> list[SpanRow]:
        """By start and id."""
        fields = (
            "trace_id", "service", "name", "status", "parent_span_id", "start_unix_nano",
            "duration_ms",
        )  # fmt: skip
        steps = [
            {
                "$match": {
                    "trace_id": {"$in": list(trace_ids)},
                    "start_unix_nano": {"$exists": True},
                }
            },
            {"$project": dict.fromkeys(fields, 1)},
            {"$sort": {"start_unix_nano": 1, "_id": 1}},
            {"$limit": limit},
        ]
        with self._spans.aggregate(steps, batchSize=_BATCH, allowDiskUse=True) as cursor:
            return [
                SpanRow(
                    str(found["_id"]), found["trace_id"], found["service"], found.get("name", ""),
                    found.get("status", "UNSET"), "parent_span_id" not in found,
                    integer(found["start_unix_nano"]), found.get("duration_ms", 0.0),
                )
                for found in cursor
            ]  # fmt: skip

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """By id."""
        return transfer.fetch(self._database, SPANS, ids)

    def _filters(self) -> Iterator[Filter]:
        if self._longest:
            yield from summaries.bands(self._query, self._after)
            return
        after = None if self._after is None else (int(self._after[0]), self._after[1])
        filters = filter_of(msgspec.structs.replace(self._query, after=after))
        if filters is not None:
            yield filters


def traces(database: Any, query: Query, *, longest: bool, after: Place | None, most: int) -> Traces:
    """One page of traces."""
    walk = Walk(database, query, longest=longest, after=after)
    return page_of_traces(walk, query.limit, first=after is None, most=most)


def services(database: Any, names: Sequence[str], query: Query, most: int) -> Counted[ServiceCount]:
    """Spans or log records by service; of log records so many in each collection."""
    _, nano = time_fields(query.signal)
    if query.signal is Signal.TRACES:
        failed: Any = {"$eq": ["$status", "ERROR"]}
    else:
        numberless = {"$in": ["$level", _FAILED_LEVELS]}
        number = {"$gte": ["$severity_number", FAILED]}
        failed = {"$cond": [{"$gt": ["$severity_number", None]}, number, numberless]}
    group = {
        "_id": "$service",
        "count": {"$sum": 1},
        "requests": {"$sum": {"$cond": [{"$in": ["$kind", list(ENTRIES)]}, 1, 0]}},
        "errors": {"$sum": {"$cond": [failed, 1, 0]}},
        "first": {"$min": f"${nano}"},
        "last": {"$max": f"${nano}"},
    }
    found: list[ServiceCount] = []
    steps = [*_newest(query, most), {"$group": group}]
    for name in names if filter_of(query) is not None else ():
        with database[name].aggregate(steps, allowDiskUse=True) as cursor:
            found += [
                ServiceCount(
                    name=row["_id"],
                    count=row["count"],
                    requests=row["requests"],
                    errors=row["errors"],
                    first_unix_nano=integer(row["first"]),
                    last_unix_nano=integer(row["last"]),
                )
                for row in cursor
            ]
    return services_of(found, most)


def operations(database: Any, query: Query, most: int, kinds: Sequence[str]) -> Counted[Operation]:
    """Spans by service, name and kind."""
    fields = ("service", "name", "kind", "status", "duration_ms", "start_unix_nano")
    if filter_of(query) is None:
        return Counted([])
    steps = [*_newest(query, most), {"$project": {"_id": 0, **dict.fromkeys(fields, 1)}}]
    with database[SPANS].aggregate(steps, batchSize=_BATCH, allowDiskUse=True) as cursor:
        return operations_of(
            (
                Timing(
                    found["service"], found.get("name", ""), found.get("kind", ""),
                    found.get("status") == "ERROR", found.get("duration_ms", 0.0),
                    integer(found["start_unix_nano"]),
                )
                for found in cursor
            ),
            most,
            kinds,
        )  # fmt: skip


def metric_names(database: Any, query: Query, most: int) -> Counted[MetricName]:
    """Metrics by name."""
    fields = ("type", "unit", "description", "monotonic", "temporality")
    group = {
        "_id": {"name": "$name", "service": "$service"},
        "count": {"$sum": 1},
        "first": {"$min": "$time_unix_nano"},
        "last": {"$max": "$time_unix_nano"},
        **{field: {"$first": f"${field}"} for field in fields},  # they come newest first
    }
    if filter_of(query) is None:
        return Counted([])
    steps = [*_newest(query, most), {"$group": group}]
    with database[METRICS].aggregate(steps, allowDiskUse=True) as cursor:
        return metrics_of(
            (
                MetricCount(
                    row["_id"]["name"], row["_id"]["service"], row["count"],
                    integer(row["first"]), integer(row["last"]),
                    {field: row[field] for field in fields if row[field] is not None},
                )
                for row in cursor
            ),
            most,
        )  # fmt: skip


def _newest(query: Query, most: int) -> list[dict[str, Any]]:
    """The newest documents that match."""
    newest = msgspec.structs.replace(query, newest_first=True, after=None)
    _, nano = time_fields(query.signal)
    filters = filter_of(newest) or {}
    return [
        {"$match": {"$and": [filters, {nano: {"$exists": True}}]}},
        {"$sort": dict(sort(newest))},
        {"$limit": most},
    ]
