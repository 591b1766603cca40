"""Walking through whole collections, fetching by id, and taking over what another store has."""

import datetime
from collections.abc import Sequence
from typing import Any, Final

import bson
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from collector.documents.build import Document
from collector.stores.base import ID, DailyStatistic, Walked
from collector.stores.mongodb import bson as shape
from collector.stores.mongodb.client import CODEC
from collector.stores.mongodb.statistics import moment
from collector.stores.routing import (
    LETTERS,
    METRICS,
    SPANS,
    STATISTICS,
    TRAIL,
    is_log_collection,
)
from collector.stores.statistics import day_of

STEP_BYTES: Final = 16 * 1024 * 1024
"""One step of a walk ends behind so much."""

_FIRST: Final = ObjectId("0" * 24)
_RAW: Final = CODEC.with_options(document_class=RawBSONDocument)


def sizes(database: Any) -> dict[str, int]:
    """Roughly how many documents each collection of ours holds."""
    others = (SPANS, METRICS, TRAIL, LETTERS, STATISTICS)
    names = sorted(
        name
        for name in database.list_collection_names(nameOnly=True)
        if name in others or is_log_collection(name)
    )
    counts = {name: database[name].estimated_document_count() for name in names}
    return {name: count for name, count in counts.items() if count}


def walk(database: Any, collection: str, limit: int, after: str) -> Walked:
    """
    Documents of one collection in the order of `_id`, behind an `_id`.

    Documents of other programs, whose `_id` may be of another type, are left out.
    """
    if after and not ID.fullmatch(after):
        raise ValueError("after: not a position of this store")
    edge = {"$gt": ObjectId(after)} if after else {"$gte": _FIRST}
    found: list[Document] = []
    position: str | None = None
    size = 0
    stored = database.get_collection(collection, codec_options=_RAW)
    count = 0
    with stored.find({"_id": edge}, sort=[("_id", 1)], limit=limit) as cursor:
        for raw in cursor:
            count += 1
            size += len(raw.raw)
            position = str(raw["_id"])
            document = bson.decode(raw.raw, CODEC)
            if "time_unix_nano" in document or "start_unix_nano" in document:
                found.append(shape.restore(document))
            if size >= STEP_BYTES:
                return Walked(documents=found, position=position)
    return Walked(documents=found, position=position if count == limit else None)


def fetch(database: Any, collection: str, ids: Sequence[str]) -> list[Document]:
    """Documents of one collection by their ids."""
    known = [ObjectId(each) for each in ids if ID.fullmatch(each)]
    with database[collection].find({"_id": {"$in": known}}) as cursor:
        return [
            shape.restore(each)
            for each in cursor
            if "time_unix_nano" in each or "start_unix_nano" in each
        ]


def take_over(database: Any, statistics: Sequence[DailyStatistic]) -> None:
    """Keep rows of the statistics; of two, the one that counts more stays."""
    if statistics:
        database[STATISTICS].bulk_write([_row(each) for each in statistics], ordered=False)


def _row(row: DailyStatistic) -> UpdateOne:
    day: datetime.datetime = moment(day_of(row.day))
    names = ("day", "kind", "tenant", "model", "band")
    fields = {**{name: getattr(row, name) for name in row.__struct_fields__}, "day": day}
    key = {name: fields[name] for name in names}
    new = {"$literal": {"_id": key, **fields}}
    newer = {"$gte": [{"$literal": row.count}, "$count"]}
    return UpdateOne(
        {"_id": {"$eq": key}},
        [{"$replaceWith": {"$cond": [newer, new, "$$ROOT"]}}],
        upsert=True,
    )
