"""
The slowest spans and the groups of failures, worked out by the server.

The index on durations holds only spans over a second, because most spans are short and no question looks
for them. So the spans over a second are asked for first, by that index; only when they do not fill
the answer, those below are sorted, of the time range that was asked for.

Failures are counted by the server; only one small row per type, message and service comes back.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from bson.objectid import ObjectId

from collector.documents.build import Document
from collector.model import Signal
from collector.stores.answers import MESSAGE
from collector.stores.base import Failure, Query
from collector.stores.mongodb import bson as shape
from collector.stores.mongodb.filter import Filter, exact, filter_of, time_fields
from collector.stores.mongodb.indexes import SLOW_MS
from collector.stores.query_match import matches
from collector.stores.routing import SPANS

ORDER: Final = {"duration_ms": -1, "_id": -1}


def slowest(database: Any, query: Query, after: tuple[float, str] | None) -> list[Document]:
    """The spans that match, the longest first."""
    found: list[Document] = []
    match = matches(query)
    for filters in bands(query, after):
        steps: list[dict[str, Any]] = [{"$match": filters}, {"$sort": ORDER}]
        steps += [{"$limit": query.limit - len(found)}] if exact(query) else []
        with database[SPANS].aggregate(steps, batchSize=min(query.limit, 1000)) as cursor:
            for stored in cursor:
                if "start_unix_nano" not in stored:
                    continue  # written by another program
                document = shape.restore(stored)
                if match(document):
                    found.append(document)
                    if len(found) == query.limit:
                        return found
    return found


def bands(query: Query, after: tuple[float, str] | None) -> Iterator[Filter]:
    """The filters to ask one after the other: what has an index on its duration, then the rest."""
    most = float("inf") if after is None else after[0]
    least = query.min_duration_ms or 0.0
    rest = filter_of(msgspec.structs.replace(query, min_duration_ms=None, after=None))
    if rest is None or query.signal is not Signal.TRACES:
        return
    conditions: list[Filter] = [rest] if rest else []
    if after is not None:
        beyond = {"duration_ms": {"$eq": most}, "_id": {"$lt": ObjectId(after[1])}}
        conditions.append({"$or": [{"duration_ms": {"$lt": most}}, beyond]})
    if most > SLOW_MS:
        ranges = [{"$gt": SLOW_MS}, {"$gte": least}, {"$lte": most}]
        yield {"$and": [*({"duration_ms": each} for each in ranges), *conditions]}
    if least <= SLOW_MS:
        ranges = [{"$gte": least}, {"$lte": min(most, SLOW_MS)}]
        yield {"$and": [*({"duration_ms": each} for each in ranges), *conditions]}


def failures(database: Any, names: Sequence[str], query: Query) -> list[Failure]:
    """What failed, counted by type, message and service; latest first."""
    filters = filter_of(query)
    if filters is None or not names or query.signal is Signal.METRICS:
        return []
    if not exact(query):
        raise ValueError("failures: a question with `text` or `where` is not answered")
    first, *others = names
    with database[first].aggregate(
        grouping(query, filters, others), batchSize=1000, allowDiskUse=True
    ) as cursor:
        return [
            Failure(
                type=row["_id"]["type"],
                message=row["_id"]["message"],
                service=row["_id"]["service"],
                count=row["count"],
                first_unix_nano=integer(row["first"]),
                last_unix_nano=integer(row["last"]),
                trace_id=(row["trace"] or {}).get("id", ""),
            )
            for row in cursor
        ]


def grouping(query: Query, filters: Filter, others: Sequence[str]) -> list[dict[str, Any]]:
    """The pipeline that counts; every branch has its own `$match`, and so its own index."""
    _, nano = time_fields(query.signal)
    messages: tuple[str, ...]
    if query.signal is Signal.TRACES:
        kind, messages, trace = "$attributes.error.type", ("$status_message", "$name"), "$trace_id"
    else:
        kind, trace = "$exception.type", "$trace.trace_id"
        messages = ("$exception.message", "$message", "$event")
    steps: list[dict[str, Any]] = [
        {"$match": {"$and": [filters, {nano: {"$exists": True}}]}},
        {
            "$project": {
                "_id": 0,
                "type": _first_text([kind]),
                "message": {"$substrCP": [_first_text(messages), 0, MESSAGE]},
                "service": _first_text(["$service"]),
                "time": f"${nano}",
                "trace": _first_text([trace]),
            }
        },
    ]
    return [
        *steps,
        *({"$unionWith": {"coll": name, "pipeline": steps}} for name in others),
        {
            "$group": {
                "_id": {"type": "$type", "message": "$message", "service": "$service"},
                "count": {"$sum": 1},
                "first": {"$min": "$time"},
                "last": {"$max": "$time"},
                "trace": {
                    "$max": {
                        "$cond": [
                            {"$ne": ["$trace", ""]},
                            {"time": "$time", "id": "$trace"},
                            None,
                        ]
                    }
                },
            }
        },
        {"$sort": {"last": -1, "_id": 1}},
        {"$limit": query.limit},
    ]


def _first_text(paths: Sequence[str]) -> Any:
    """The first of some fields that is a text with something in it, else an empty one."""
    only = [
        {
            "$cond": [
                {"$and": [{"$eq": [{"$type": path}, "string"]}, {"$ne": [path, ""]}]},
                path,
                None,
            ]
        }
        for path in paths
    ]
    return {"$ifNull": [*only, ""]}


def integer(value: Any) -> int:
    """A time, which is a Decimal128 behind the year 2262."""
    return int(value.to_decimal()) if hasattr(value, "to_decimal") else int(value)
