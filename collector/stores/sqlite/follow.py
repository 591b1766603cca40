"""
New log records of the file: its rows are numbered as they are committed, by one writer.

The position is the number and the id of the last row that was looked at. The id is looked up again
each time, because numbers may change: VACUUM may renumber the rows, and a table that became empty
begins with 1 again.
"""

import re
import sqlite3
from binascii import unhexlify
from dataclasses import dataclass
from typing import Final

import msgspec

from collector.documents.build import Document, loads
from collector.stores.base import Followed, Query
from collector.stores.query_match import matches
from collector.stores.routing import TRAIL
from collector.stores.sqlite.reader import suspects_of
from collector.stores.sqlite.schema import LOGS

STEP: Final = 1000
"""Rows that one step looks at."""

STEP_BYTES: Final = 16 * 1024 * 1024
"""A step ends behind so much, too."""

PAUSE_S: Final = 0.5
"""How long to wait after a step that gave nothing."""

_POSITION: Final = re.compile(r"r:([0-9]{1,19})\.([0-9a-f]{24})?")
_GAP: Final = (
    "the last record is gone, and the rows were numbered again; records may be missing here"
)


@dataclass(slots=True)
class Place:
    """The last row that was looked at; no id when there was none."""

    row: int
    id: str

    def text(self) -> str:
        """As a position."""
        return f"r:{self.row}.{self.id}"


def read_position(text: str) -> Place | None:
    """
    The place that a position means, None for "from now on".

    Raises:
        ValueError: it is none of this store.
    """
    if not text:
        return None
    parts = _POSITION.fullmatch(text)
    if parts is None:
        raise ValueError("not a position of this store")
    return Place(int(parts[1]), parts[2] or "")


def step(
    connection: sqlite3.Connection, query: Query, place: Place | None
) -> tuple[Followed, Place]:
    """What is new behind a place, and where to go on; without a place, where the end is now."""
    table = TRAIL if query.collection == TRAIL else LOGS
    connection.execute("BEGIN")  # one view of the file for all that is asked here
    try:
        if place is None:
            place = _end(connection, table)
            return Followed(position=place.text()), place
        place, gap = _now(connection, table, place)
        rows: list[tuple[int, bytes, str]] = []
        size = 0
        for row in connection.execute(
            f"SELECT rowid, id, document FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?",  # noqa: S608 - constants
            (place.row, STEP),
        ):
            rows.append(row)
            size += len(row[2])
            if size >= STEP_BYTES:
                break
        wanted = None if query.collection in (None, table) else query.collection
        kept = rows
        if wanted is not None and rows:
            found = connection.execute(
                f"SELECT rowid FROM {table} WHERE rowid BETWEEN ? AND ? AND +collection = ?",  # noqa: S608 - constants
                (rows[0][0], rows[-1][0], wanted),
            )
            inside = {number for (number,) in found}
            kept = [row for row in rows if row[0] in inside]
    finally:
        connection.execute("ROLLBACK")
    if rows:
        place = Place(rows[-1][0], rows[-1][1].hex())
    match = matches(msgspec.structs.replace(query, after=None))
    suspects = suspects_of(query)
    logs: list[Document] = []
    for _, _, json in kept:
        if suspects(json):
            document = loads(json.encode())
            if match(document):
                logs.append(document)
    return Followed(logs=logs, position=place.text(), gap=gap), place


def _end(connection: sqlite3.Connection, table: str) -> Place:
    last = connection.execute(
        f"SELECT rowid, id FROM {table} ORDER BY rowid DESC LIMIT 1"  # noqa: S608 - constants
    ).fetchone()
    return Place(last[0], last[1].hex()) if last else Place(0, "")


def _now(connection: sqlite3.Connection, table: str, place: Place) -> tuple[Place, str]:
    """Where the row of a place is by now, and a gap when that cannot be said."""
    if not place.id:
        return place, ""
    _id = unhexlify(place.id)
    found = connection.execute(f"SELECT rowid FROM {table} WHERE id = ?", (_id,)).fetchone()  # noqa: S608 - constants
    if found:
        return Place(found[0], place.id), ""
    if _end(connection, table).row >= place.row:
        return place, ""  # deleted as the oldest; its number is still taken or behind
    # Fewer rows than there were: the table was emptied, and everything in it came after that.
    return Place(0, ""), _GAP
