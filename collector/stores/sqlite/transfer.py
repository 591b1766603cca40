"""
Walking through the collections of the file, fetching by id, and taking over what another store has.

A walk goes by arrival (`received_at`, then row), because that is what an index of each collection
has: a question by `_id` would read all log records once for each of their collections.
"""

import re
import sqlite3
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from typing import Any, Final

from collector.documents.build import Document, loads
from collector.stores.base import ID, DailyStatistic, Walked
from collector.stores.routing import LETTERS, METRICS, SPANS, STATISTICS, TRAIL
from collector.stores.sqlite.schema import COLUMNS, LOGS, Statement

STEP_BYTES: Final = 16 * 1024 * 1024
"""One step of a walk ends behind so much."""

_IDS: Final = 500
_POSITION: Final = re.compile(r"(-?[0-9]{1,19})\.([0-9]{1,19})")
_KEY: Final = ("day", "kind", "band", "model", "tenant")
_ROW: Final = tuple(DailyStatistic.__struct_fields__)
_RENEWED: Final = ", ".join(
    f"{column} = excluded.{column}" for column in _ROW if column not in _KEY
)

CARRY: Final = Statement(
    f"INSERT INTO {STATISTICS} ({', '.join(_ROW)}) VALUES ({', '.join('?' * len(_ROW))})"  # noqa: S608 - constants
    f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {_RENEWED} WHERE excluded.count >= count",
    len(_ROW),
)
"""Keeps a row of the statistics; of two, the one that counts more stays."""


def sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """How many documents each collection holds."""
    counts = dict(
        connection.execute(f"SELECT collection, count(*) FROM {LOGS} GROUP BY collection")  # noqa: S608 - constants
    )
    for table in (SPANS, METRICS, TRAIL, LETTERS, STATISTICS):
        (counts[table],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - constants
    return {name: counts[name] for name in sorted(counts) if counts[name]}


def walk(connection: sqlite3.Connection, collection: str, limit: int, after: str) -> Walked:
    """Documents of one collection by arrival, behind a position."""
    table, where, parameters = _place(collection)
    if after:
        parts = _POSITION.fullmatch(after)
        if parts is None:
            raise ValueError("after: not a position of this store")
        where += " AND (received_at, rowid) > (?, ?)"
        parameters += [int(parts[1]), int(parts[2])]
    found: list[Document] = []
    position: str | None = None
    size = 0
    cursor = connection.execute(
        f"SELECT received_at, rowid, document FROM {table} WHERE {where}"  # noqa: S608 - constants
        " ORDER BY received_at, rowid LIMIT ?",
        [*parameters, limit],
    )
    try:
        for received_at, row, json in cursor:
            size += len(json)
            found.append(loads(json.encode()))
            position = f"{received_at}.{row}"
            if size >= STEP_BYTES:
                return Walked(documents=found, position=position)
    finally:
        cursor.close()
    return Walked(documents=found, position=position if len(found) == limit else None)


def fetch(connection: sqlite3.Connection, collection: str, ids: Sequence[str]) -> list[Document]:
    """Documents of one collection by their ids."""
    table, where, parameters = _place(collection)
    known = [unhexlify(each) for each in ids if ID.fullmatch(each)]
    found: list[Document] = []
    for first in range(0, len(known), _IDS):
        some = known[first : first + _IDS]
        cursor = connection.execute(
            f"SELECT document FROM {table} WHERE id IN ({', '.join('?' * len(some))}) AND +{where}",  # noqa: S608 - constants
            [*some, *parameters],
        )
        found += [loads(json.encode()) for (json,) in cursor]
    return found


def statistics_values(statistics: Sequence[DailyStatistic]) -> Iterator[Any]:
    """The parameters of `CARRY`, of one row behind those of another."""
    for row in statistics:
        day, *others = (getattr(row, name) for name in _ROW)
        yield day.isoformat()
        yield from others


def _place(collection: str) -> tuple[str, str, list[Any]]:
    """The table of a collection, and a condition that it is that one."""
    if collection in COLUMNS and collection not in (LOGS, LETTERS):
        return collection, "1", []
    return LOGS, "collection = ?", [collection]
