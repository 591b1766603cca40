"""
What is in the SQLite file: tables, indexes, the way from an older version, and how to open it.

Log records are one table with a column for their collection, so a question over all of them is one
walk; spans, metric points and the trail have tables of their own. Every table has an index by
arrival, because retention deletes the oldest in small steps.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from collector.errors import StartFailed
from collector.model import Signal
from collector.stores.routing import LETTERS, METRICS, SPANS, STATISTICS, TRAIL
from collector.stores.statistics import DAY_NS, EVENTS
from telemetry.attributes import LOOKUP

LOGS: Final = "logs"

SCHEMA: Final = 2
"""`user_version` of the file; a newer one is refused, an older one is brought up to date."""

APPLICATION: Final = 0x6F74656C  # "otel", says `file`

TABLES: Final = {Signal.TRACES: SPANS, Signal.LOGS: LOGS, Signal.METRICS: METRICS}

_IDS: Final = {"trace_id": "TEXT", **dict.fromkeys(LOOKUP, "TEXT")}
_RECORD: Final = {
    "id": "BLOB NOT NULL UNIQUE",
    **_IDS,
    "service": "TEXT NOT NULL",
    "name": "TEXT",
    "severity": "INTEGER NOT NULL",
    "time": "NOT NULL",
    "received_at": "INTEGER NOT NULL",
}
COLUMNS: Final[dict[str, dict[str, str]]] = {
    SPANS: {
        "id": "BLOB NOT NULL UNIQUE",
        **_IDS,
        "service": "TEXT NOT NULL",
        "name": "TEXT",
        "status": "TEXT",
        "time": "NOT NULL",
        "duration_ms": "REAL",
        "received_at": "INTEGER NOT NULL",
        "document": "TEXT NOT NULL",
    },
    LOGS: {
        **_RECORD,
        "collection": "TEXT NOT NULL DEFAULT 'info_logs'",
        "document": "TEXT NOT NULL",
    },
    METRICS: {
        "id": "BLOB NOT NULL UNIQUE",
        "service": "TEXT NOT NULL",
        "name": "TEXT NOT NULL",
        "time": "NOT NULL",
        "received_at": "INTEGER NOT NULL",
        "document": "TEXT NOT NULL",
    },
    TRAIL: {**_RECORD, "document": "TEXT NOT NULL"},
    LETTERS: {
        "id": "BLOB NOT NULL UNIQUE",
        "received_at": "INTEGER NOT NULL",
        "signal": "TEXT NOT NULL",
        "collection": "TEXT NOT NULL",
        "reason": "TEXT NOT NULL",
        "document_id": "TEXT NOT NULL",
        "format": "TEXT NOT NULL",
        "data": "BLOB NOT NULL",
    },
}
"""What each table holds: the columns that questions filter on, then the document as JSON."""

ABSENT: Final = 0
"""Stands for a text that is absent: the sqlite3 module is slow at None."""

MANY: Final = (1000, 250, 50, 5)
"""Rows that one statement takes, so that a thread waits for the GIL once for all of them."""


class Statement(NamedTuple):
    """
    What is run for each row.

    Args:
        text: for one row.
        width: its parameters.
        many: parameters and text for many rows at once, the largest first.
    """

    text: str
    width: int
    many: tuple[tuple[int, str], ...] = ()


def _insert(table: str, rows: int = 1) -> str:
    """
    Rows whose id is there already change nothing.

    Absent texts become NULL in the one loop over all rows. A function would do (`nullif`), but SQLite
    expects that any function may fail in mid-statement and then keeps a journal of it; so does an
    INSERT that would undo itself alone. Here the caller that sees an error rolls back the transaction.
    """
    columns = COLUMNS[table]
    values = [
        f"CASE column{at} WHEN {ABSENT} THEN NULL ELSE column{at} END"
        if kind == "TEXT"
        else f"column{at}"
        for at, kind in enumerate(columns.values(), 1)
    ]
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT OR FAIL INTO {table} ({', '.join(columns)})"  # noqa: S608 - constants
        f" SELECT {', '.join(values)} FROM (VALUES {', '.join([row] * rows)}) WHERE true"
        " ON CONFLICT (id) DO NOTHING"
    )


INSERT: Final = {
    table: Statement(
        _insert(table),
        len(columns),
        tuple((rows * len(columns), _insert(table, rows)) for rows in MANY),
    )
    for table, columns in COLUMNS.items()
}
MARK: Final = Statement("INSERT INTO dirty_days (day) VALUES (?) ON CONFLICT DO NOTHING", 1)
FORGET: Final = Statement(f"DELETE FROM {LETTERS} WHERE id = ?", 1)  # noqa: S608 - constants


def time_value(unix_nano: int) -> int | bytes:
    """
    A time as SQLite orders it.

    OTLP times are unsigned: what a signed integer cannot hold becomes a blob, which sorts behind
    every integer, and among blobs by value.
    """
    return unix_nano if unix_nano < 1 << 63 else unix_nano.to_bytes(9)


def _table(table: str) -> Iterator[str]:
    columns = COLUMNS[table]
    yield f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})"
    yield from _lookups(table)
    yield from _arrival(table)


def _lookups(table: str) -> Iterator[str]:
    if "time" in COLUMNS[table]:
        yield f"CREATE INDEX {table}_time ON {table} (time)"
    for column in _IDS:
        if column in COLUMNS[table]:
            yield (
                f"CREATE INDEX {table}_{column} ON {table} ({column}) WHERE {column} IS NOT NULL"
            )


FAILED: Final = 17
"""The severity from which a log record is about a failure."""

FAILURES: Final = {
    LOGS: f"severity >= {FAILED}",
    TRAIL: f"severity >= {FAILED}",
    SPANS: "status = 'ERROR'",
}
"""What the partial indexes on failures hold, in the words that a question must use."""

SLOW_MS: Final = 1000
"""Spans that take longer are in an index of their durations."""

_LATER: Final = (
    f"CREATE INDEX IF NOT EXISTS {LOGS}_failures ON {LOGS} (time) WHERE {FAILURES[LOGS]}",
    f"CREATE INDEX IF NOT EXISTS {SPANS}_failures ON {SPANS} (time) WHERE {FAILURES[SPANS]}",
    f"CREATE INDEX IF NOT EXISTS {SPANS}_slow ON {SPANS} (duration_ms) WHERE duration_ms > {SLOW_MS}",
)
"""Small indexes that no answer depends on: made where they are missing, in a file of any version."""


def _arrival(table: str) -> Iterator[str]:
    if table == LOGS:
        yield f"CREATE INDEX {LOGS}_arrival ON {LOGS} (collection, received_at)"
        yield f"CREATE INDEX {LOGS}_event ON {LOGS} (name, time) WHERE name IS NOT NULL"
    else:
        yield f"CREATE INDEX {table}_arrival ON {table} (received_at)"


def _days() -> Iterator[str]:
    yield "CREATE TABLE dirty_days (day INTEGER PRIMARY KEY)"
    yield (
        f"CREATE TABLE {STATISTICS} (day TEXT NOT NULL, kind TEXT NOT NULL, band TEXT NOT NULL,"
        " model TEXT NOT NULL, tenant TEXT NOT NULL, count INTEGER NOT NULL, errors INTEGER NOT NULL,"
        " fallbacks INTEGER NOT NULL, scores INTEGER NOT NULL, score_sum REAL NOT NULL,"
        " score_min REAL, score_max REAL, durations INTEGER NOT NULL, duration_s_sum REAL NOT NULL,"
        " duration_s_max REAL, PRIMARY KEY (day, kind, band, model, tenant)) WITHOUT ROWID"
    )


def _schema() -> Iterator[str]:
    for table in COLUMNS:
        yield from _table(table)
    yield from _days()


def _from_1() -> Iterator[str]:
    """What makes version 2 of version 1; `route` is a function of ours."""
    yield f"ALTER TABLE {LOGS} ADD COLUMN collection TEXT NOT NULL DEFAULT 'info_logs'"
    yield f"UPDATE {LOGS} SET collection = route(document)"  # noqa: S608 - constants
    for table in (SPANS, LOGS, METRICS):
        yield from _arrival(table)
    for table in (TRAIL, LETTERS):
        yield from _table(table)
    yield from _days()
    events = ", ".join(f"'{event}'" for event in sorted(EVENTS))
    yield (
        f"INSERT INTO dirty_days SELECT DISTINCT time / {DAY_NS} FROM {LOGS}"  # noqa: S608 - constants
        f" WHERE name IN ({events}) AND typeof(time) = 'integer'"
    )


def version(connection: sqlite3.Connection, path: Path) -> int:
    """
    The version of our schema in the file, 0 when it is still empty.

    Raises:
        StartFailed: another program made it, or it is newer than this program.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    found: int
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == 0 and found == 0 and tables == 0:
        return 0
    if application != APPLICATION:
        raise StartFailed(f"{path} is a SQLite file of another program; set `path` to another file")
    if found > SCHEMA:
        raise StartFailed(
            f"{path} has schema version {found} and this program knows {SCHEMA}: "
            "start the newer version that wrote it, or set `path` to another file"
        )
    return found


def connect(path: Path, route: Callable[[str], str]) -> sqlite3.Connection:
    """
    A connection that may write; makes file and schema, and brings an older one up to date.

    Args:
        path: of the file.
        route: the collection of a log record, given as JSON.
    """
    connection = sqlite3.connect(
        path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    try:
        found = version(connection, path)
        if not found:
            connection.execute("PRAGMA page_size = 8192")  # a span is about 1 KB
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Mostly the writer moves the log into the file before, behind an answer (stores/sqlite/writer.py).
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA secure_delete = FAST")  # some builds write zeros else
        if found < SCHEMA:
            connection.create_function("route", 1, route, deterministic=True)
            connection.execute("BEGIN IMMEDIATE")
            for statement in _from_1() if found else _schema():
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        for statement in _LATER:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that can only read, also while another process writes."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=5.0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=32,
    )
    connection.execute("PRAGMA query_only = ON")
    return connection
