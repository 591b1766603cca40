"""
What the thread that writes does between commits: retention, size, free pages, statistics, texts.

Everything is done in small steps, each a transaction of its own, so that a commit never waits longer
than one of them takes. Deleting begins with the oldest arrivals and uses an index. Free pages are
used again by SQLite itself; only what is left over is given back to the disk, a little at a time.

Statistics: a dirty day is marked in the transaction that stores its facts, so nothing can come
between the two. Its rows are made again from the stored facts and its mark deleted in one
transaction. Of two rows the one that counts more stays: facts are only added, until retention
takes them, and then the day keeps its numbers.
"""

import datetime
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from collector.documents.build import text
from collector.stores.retention import FOREVER, kept_s
from collector.stores.routing import (
    AUDIT,
    LETTERS,
    LEVELS,
    METRICS,
    SPANS,
    STATISTICS,
    TRAIL,
    Routing,
)
from collector.stores.sqlite.schema import LOGS, time_value
from collector.stores.sqlite.search import Texts
from collector.stores.statistics import (
    BAND,
    DAY_NS,
    ERROR,
    FACTS,
    FALLBACK,
    MODEL,
    NO_FALLBACK,
    TENANT,
    DailyStatistic,
    Fact,
    date_of,
    pause_s,
)

SWEEP_S: Final = 60.0
"""How often retention and size are looked at."""

STEP_ROWS: Final = 500
"""Rows that one step deletes."""

STEP_PAGES: Final = 256
"""Pages that one step gives back to the disk."""

FREE_PAGES: Final = 1024
"""So many free pages are kept for what comes next: 8 MiB."""

LOW: Final = 0.95
"""When the file was too large, it is made smaller than the cap, to this part of it."""

TEXTS_LOOK_S: Final = 1.0
"""How often to look for messages that are not indexed yet."""

TEXTS_REST: Final = 4.0
"""Indexing rests so many times as long as it took: it has at most a fifth of the thread's time."""

_RETRY_S: Final = 10.0
_LAST_DAYS: Final = 3
_TABLES: Final = (SPANS, METRICS, TRAIL, LETTERS)

Place = tuple[str, str | None]
"""A table, and the collection in it when it is the one of log records."""


class Maintenance:
    """
    What is to be done, and when.

    Args:
        kept: seconds by collection; None deletes nothing at all.
        max_bytes: the size cap; 0 for none.
        routing: where facts are.
        count: counts what was deleted, by collection and reason, and what failed.
        full_text: whether there is to be an index of messages; None leaves it as it is.
        clock: seconds.
    """

    def __init__(
        self,
        kept: Mapping[str, int] | None,
        max_bytes: int,
        routing: Routing,
        count: Callable[..., None],
        *,
        full_text: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._max_bytes = max_bytes
        self._routing = routing
        self._count = count
        self._clock = clock
        self._sweep_at = clock()
        self._days_at = clock()
        self._texts_at = clock()
        self._texts = Texts(full_text)
        self._took_s = 0.0
        self._sweeping: Iterator[None] | None = None

    def wait_s(self) -> float:
        """Seconds until something is due."""
        if self._sweeping is not None:
            return 0.0
        return max(0.0, min(self._sweep_at, self._days_at, self._texts_at) - self._clock())

    def step(self, connection: sqlite3.Connection) -> None:
        """Do one small thing."""
        now = self._clock()
        if now >= self._days_at:
            more = self._one_day(connection)
            self._took_s += self._clock() - now
            if not more:
                self._days_at = now + pause_s(self._took_s)
                self._took_s = 0.0
            return
        if now >= self._texts_at:
            more = self._texts.step(connection)
            took_s = self._clock() - now
            self._texts_at = now + took_s + (took_s * TEXTS_REST if more else TEXTS_LOOK_S)
            return
        if self._sweeping is None and now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            if self._kept is not None:
                self._sweeping = self._sweep(connection, self._kept)
        if self._sweeping is not None:
            try:
                next(self._sweeping)
            except StopIteration:
                self._sweeping = None

    def finish(self, connection: sqlite3.Connection) -> None:
        """The last chance before the file is closed: the statistics of the last facts."""
        self._sweeping = None
        for _ in range(_LAST_DAYS):
            if not self._one_day(connection):
                break

    def failed(self, error: Exception) -> None:
        """A step failed, and its transaction was rolled back: pause."""
        self._sweeping = None
        self._sweep_at = self._days_at = self._texts_at = self._clock() + _RETRY_S
        reason: str = getattr(error, "sqlite_errorname", type(error).__name__)
        self._count("otelier_store_upkeep_failed", 1, reason=reason)

    # --- retention and size ---

    def _sweep(self, connection: sqlite3.Connection, kept: Mapping[str, int]) -> Iterator[None]:
        now_ms = time.time_ns() // 1_000_000
        for place in list(self._places(connection)):
            keep_s = kept_s(kept, place[1] or place[0])
            if keep_s == FOREVER:
                continue
            while True:
                while self._one_day(connection):  # count facts before they go
                    yield
                if not self._delete(connection, place, now_ms - keep_s * 1000, "retention"):
                    break
                yield
        if self._max_bytes and _used(connection) > self._max_bytes:
            while _used(connection) > self._max_bytes * LOW:
                oldest = self._oldest(connection)
                if oldest is None or not self._delete(connection, oldest, None, "size"):
                    break
                yield
        while _free(connection) > FREE_PAGES:
            before = _free(connection)
            connection.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()
            if _free(connection) >= before:
                break  # a file of an older version cannot give back pages
            yield

    def _places(self, connection: sqlite3.Connection) -> Iterator[Place]:
        for table in _TABLES:
            yield table, None
        name = ""
        while True:  # one look into the index for each collection
            sql = f"SELECT min(collection) FROM {LOGS} WHERE collection > ?"  # noqa: S608 - constants
            (found,) = connection.execute(sql, (name,)).fetchone()
            if found is None:
                return
            name = found
            yield LOGS, name

    def _oldest(self, connection: sqlite3.Connection) -> Place | None:
        """Where the oldest arrival is; audit records only when there is nothing else."""
        ages: list[tuple[bool, int, Place]] = []
        for place in self._places(connection):
            table, collection = place
            where, parameters = _where(collection)
            sql = f"SELECT min(received_at) FROM {table}{where}"  # noqa: S608 - constants
            (age,) = connection.execute(sql, parameters).fetchone()
            if age is not None:
                ages.append((collection == AUDIT, age, place))
        return min(ages, key=lambda each: each[:2])[2] if ages else None

    def _delete(
        self, connection: sqlite3.Connection, place: Place, before_ms: int | None, reason: str
    ) -> int:
        table, collection = place
        where, parameters = _where(collection, before_ms)
        oldest = f"{table}{where} ORDER BY received_at LIMIT ?"
        these, values = f"SELECT rowid FROM {oldest}", (*parameters, STEP_ROWS)  # noqa: S608 - constants
        connection.execute("BEGIN IMMEDIATE")
        if table == LOGS and self._texts.there(connection):
            sql = f"SELECT rowid, document FROM {oldest}"  # noqa: S608 - constants
            numbers = self._texts.forget(connection, connection.execute(sql, values))
            these, values = "SELECT value FROM json_each(?)", (text(numbers),)
        deleted = connection.execute(
            f"DELETE FROM {table} WHERE rowid IN ({these})",  # noqa: S608 - constants
            values,
        ).rowcount
        if table == LOGS:
            self._texts.settle(connection)
        connection.execute("COMMIT")
        if deleted:
            name = collection or table
            self._count("otelier_store_expired", deleted, collection=name, reason=reason)
        return deleted

    # --- statistics ---

    def _one_day(self, connection: sqlite3.Connection) -> bool:
        """Make the rows of one dirty day again; False when there is none."""
        found = connection.execute("SELECT day FROM dirty_days LIMIT 1").fetchone()
        if found is None:
            return False
        (day,) = found
        connection.execute("BEGIN IMMEDIATE")
        for fact in FACTS:
            sql, parameters = recount(fact, day, self._routing)
            connection.execute(sql, parameters)
        connection.execute("DELETE FROM dirty_days WHERE day = ?", (day,))
        connection.execute("COMMIT")
        return True


def _where(collection: str | None, before_ms: int | None = None) -> tuple[str, tuple[object, ...]]:
    conditions: list[str] = []
    parameters: list[object] = []
    if collection is not None:
        conditions.append("collection = ?")
        parameters.append(collection)
    if before_ms is not None:
        conditions.append("received_at < ?")
        parameters.append(before_ms)
    return f" WHERE {' AND '.join(conditions)}" if conditions else "", tuple(parameters)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _free(connection: sqlite3.Connection) -> int:
    return _pragma(connection, "freelist_count")


def _used(connection: sqlite3.Connection) -> int:
    """Bytes of the pages that hold something."""
    pages = _pragma(connection, "page_count") - _free(connection)
    return pages * _pragma(connection, "page_size")


def _text(*paths: str) -> str:
    """The first of some fields that is a text, else an empty one."""
    only = [
        f"CASE json_type(document, '{path}') WHEN 'text' THEN json_extract(document, '{path}') END"
        for path in paths
    ]
    return f"coalesce({', '.join([*only, repr('')])})"


def _number(path: str) -> str:
    """A field as a number; NULL when it is none."""
    return (
        f"CASE WHEN json_type(document, '{path}') IN ('integer', 'real')"
        f" THEN CAST(json_extract(document, '{path}') AS REAL) END"
    )


def _attribute(name: str) -> str:
    return f'$.attributes."{name}"'


_ROW: Final = tuple(DailyStatistic.__struct_fields__)
_KEY: Final = ("day", "kind", "band", "model", "tenant")


def recount(fact: Fact, day: int, routing: Routing) -> tuple[str, list[object]]:
    """The statement that makes the rows of a day, and its parameters."""
    name = routing.of_event(fact.event)
    places = tuple(LEVELS.values()) if name is None else (name,)
    renewed = ", ".join(f"{column} = excluded.{column}" for column in _ROW if column not in _KEY)
    sql = f"""
        INSERT INTO {STATISTICS} ({", ".join(_ROW)})
        SELECT ?, ?, band, model, tenant, count(*), sum(error), sum(fallback), count(score),
               total(score), min(score), max(score), count(duration), total(duration), max(duration)
        FROM (
            SELECT {_text(_attribute(BAND))} AS band,
                   {_text(*map(_attribute, MODEL))} AS model,
                   {_text(*(f"$.context.{key}" for key in TENANT))} AS tenant,
                   {_number(_attribute(fact.score))} AS score,
                   {_number(_attribute(fact.duration_s))} AS duration,
                   coalesce(json_type(document, '{_attribute(ERROR)}'), 'null') <> 'null' AS error,
                   {_text(_attribute(FALLBACK))} NOT IN ('', '{NO_FALLBACK}') AS fallback
            FROM {LOGS}
            WHERE name = ? AND time >= ? AND time < ?
                  AND collection IN ({", ".join("?" * len(places))})
        )
        WHERE true GROUP BY band, model, tenant
        ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET {renewed} WHERE excluded.count >= count
    """  # noqa: S608 - constants
    first, last = time_value(day * DAY_NS), time_value((day + 1) * DAY_NS)
    return sql, [date_of(day).isoformat(), fact.kind, fact.event, first, last, *places]


def read(
    connection: sqlite3.Connection, since: datetime.date, until: datetime.date
) -> list[DailyStatistic]:
    """The rows of some days."""
    found = connection.execute(
        f"SELECT {', '.join(_ROW)} FROM {STATISTICS} WHERE day BETWEEN ? AND ?"  # noqa: S608 - constants
        " ORDER BY day, kind, tenant, model, band",
        (since.isoformat(), until.isoformat()),
    )
    rows = []
    for day, *values in found:
        fields = dict(zip(_ROW[1:], values, strict=True))
        rows.append(DailyStatistic(day=datetime.date.fromisoformat(day), **fields))
    return rows
