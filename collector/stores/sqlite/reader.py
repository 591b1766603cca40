"""
Reading the SQLite file: connections that can only read, and a `Query` as SQL.

Ids are found by index whatever the planner thinks: the candidates are collected from the indexes
first, and ordered afterwards. Conditions without a column (`where`, `text`, other context keys)
are looked for in the JSON text, which is much faster than parsing it; what remains is parsed and
asked exactly (`base.matches`).
"""

import asyncio
import re
import sqlite3
import threading
import time
from binascii import unhexlify
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from collector.documents.build import Document, loads, moment, text
from collector.errors import Retryable
from collector.model import Signal
from collector.stores.base import Query
from collector.stores.dead_letters import DeadLetter
from collector.stores.query_match import matches, places
from collector.stores.routing import LETTERS, TRAIL
from collector.stores.sqlite import search
from collector.stores.sqlite import writer as file
from collector.stores.sqlite.schema import (
    COLUMNS,
    FAILED,
    FAILURES,
    TABLES,
    connect_read_only,
    time_value,
)
from telemetry.attributes import LOOKUP

READERS: Final = 4
"""Questions that are answered at the same time."""

MAX_QUESTIONS: Final = 64
"""Questions that may wait or run; more is refused for now."""

_PROGRESS_STEPS: Final = 10_000
T = TypeVar("T")


class Readers:
    """Read-only connections, one per thread."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._questions = 0
        self._closing = False

    async def run(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Answer one question in one of the threads."""
        if self._questions >= MAX_QUESTIONS:
            raise Retryable(f"{self._questions} questions wait already")
        self._questions += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._answer, question)
        finally:
            self._questions -= 1

    async def stop(self) -> None:
        """End the questions, close the connections."""
        self._closing = True
        await asyncio.to_thread(self._pool.shutdown)
        for connection in self._connections:
            connection.close()

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._closing:
            raise Retryable(f"{self._path} is closed")
        deadline = time.monotonic() + self._timeout_s
        try:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = connect_read_only(self._path)
                self._connections.append(connection)
            connection.set_progress_handler(
                lambda: self._closing or time.monotonic() > deadline, _PROGRESS_STEPS
            )
            return question(connection)
        except sqlite3.Error as error:
            if self._closing:
                raise Retryable(f"{self._path} is closed") from error
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise Retryable(
                    f"the question took longer than {self._timeout_s:g} s: narrow it by an id, a "
                    "service or a time range, or raise `query_timeout`"
                ) from error
            raise Retryable(file.advice(self._path, error)) from error


def select(connection: sqlite3.Connection, query: Query) -> list[Document]:
    """The documents that match, in order."""
    if not query.text or query.signal is not Signal.LOGS or query.collection == TRAIL:
        return _select(connection, query, None)
    connection.execute("BEGIN")  # index and records are those of one moment
    try:
        return _select(connection, query, search.condition(connection, query.text))
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _select(connection: sqlite3.Connection, query: Query, match_text: str | None) -> list[Document]:
    sql, parameters = statement(query, match_text)
    suspects = suspects_of(query)
    match = matches(query)
    found: list[Document] = []
    cursor = connection.execute(sql, parameters)
    try:
        for (json,) in cursor:
            if suspects(json):
                document = loads(json.encode())
                if match(document):
                    found.append(document)
                    if len(found) == query.limit:
                        break
    finally:
        cursor.close()
    return found


def statement(query: Query, match_text: str | None = None) -> tuple[str, list[Any]]:
    """
    The SELECT for a query, and its parameters.

    It finds too much where a condition has no column, never too little.

    Args:
        query: the question.
        match_text: what the index of messages is asked for (`search.condition`).
    """
    found = narrowed(query, match_text)
    # `+time` keeps the planner from walking the index of times when an id says where to look.
    direction = "DESC" if query.newest_first else "ASC"
    order = f" ORDER BY {'+' if found.by_id else ''}time {direction}, id {direction}"
    limit = ""
    if found.exact:
        limit = " LIMIT ?"
        found.parameters.append(query.limit)
    return f"SELECT document FROM {found.table}{found.where}{order}{limit}", found.parameters  # noqa: S608 - constants


@dataclass(slots=True)
class Narrowed:
    """
    The conditions of a query in SQL.

    Args:
        table: where to look.
        where: ` WHERE ...`, or an empty text.
        parameters: of it.
        by_id: whether an id says where to look.
        exact: whether SQL says all that the query does.
    """

    table: str
    where: str
    parameters: list[Any]
    by_id: bool
    exact: bool


def narrowed(query: Query, match_text: str | None = None) -> Narrowed:
    """
    What SQL can say about a query.

    Identifiers come from the schema only; everything of the user's is a bound parameter.
    """
    signal = query.signal
    table = TABLES[signal]
    if query.collection == TRAIL and signal is Signal.LOGS:
        table = TRAIL
    columns = COLUMNS[table]
    conditions: list[str] = []
    parameters: list[Any] = []

    def add(condition: str, *values: Any) -> None:
        conditions.append(condition)
        parameters.extend(values)

    def compare(column: str, operator: str, value: Any) -> None:
        if value is not None:
            # A signal without the column has no document that could match.
            if column in columns:
                add(f"{column} {operator} ?", value)
            else:
                add("0")

    if query.collection not in (None, table):
        compare("collection", "=", query.collection)
    exact = not (query.where or query.text is not None)
    by_id = query.id is not None or bool(query.trace_ids or query.task_ids)
    if query.id is not None:
        indexed = [column for column in ("trace_id", *LOOKUP) if column in columns]
        selects = [f"SELECT rowid FROM {table} WHERE {column} = ?" for column in indexed]  # noqa: S608 - constants
        add(
            f"rowid IN ({' UNION ALL '.join(selects)})" if selects else "0",
            *[query.id] * len(indexed),
        )
    for column, wanted in (
        ("trace_id", query.trace_ids),
        ("task_id", query.task_ids),
        ("name", query.names),
    ):
        if wanted and column in columns:
            add(f"{column} IN (SELECT value FROM json_each(?))", text(wanted))  # noqa: S608 - constants
        elif wanted:
            add("0")
    if query.roots:
        none = "json_extract(document, '$.parent_span_id') IS NULL"
        add(none if signal is Signal.TRACES else "0")
    for key, value in query.context.items():
        if key in LOOKUP:
            by_id = True
            compare(key, "=", value)
        else:
            exact = False
    compare("service", "=", query.service)
    compare("name", "=", query.name)
    compare("status", "=", query.status)
    compare("severity", ">=", _int64(query.min_severity))
    if query.min_severity == FAILED and "severity" in columns:
        add(FAILURES[table])  # said as the index says it
    if query.status == "ERROR" and "status" in columns:
        add(FAILURES[table])
    compare("duration_ms", ">=", query.min_duration_ms)
    compare("time", ">=", _time(query.since_unix_nano))
    compare("time", "<", _time(query.until_unix_nano))
    if query.text is not None and signal is not Signal.LOGS:
        add("0")
    if query.after is not None:
        add(
            f"(time, id) {'<' if query.newest_first else '>'} (?, ?)",
            _time(query.after[0]),
            unhexlify(query.after[1]),
        )
    if match_text is not None and not by_id:
        by_id = True
        add(search.CANDIDATES, match_text)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Narrowed(table, where, parameters, by_id, exact)


def _int64(value: int | None) -> int | None:
    return None if value is None else max(-(1 << 63), min(value, (1 << 63) - 1))


def _time(unix_nano: int | None) -> int | bytes | None:
    return None if unix_nano is None else time_value(max(-1, min(unix_nano, 1 << 64)))


def nanoseconds(value: int | bytes) -> int:
    """The time that `time_value` made."""
    return value if isinstance(value, int) else int.from_bytes(value)


def suspects_of(query: Query) -> Callable[[str], bool]:
    """A quick look at the JSON text of a document: False when it cannot match."""
    groups: list[tuple[str, ...]] = []
    for key, value in query.context.items():
        if key not in LOOKUP:
            groups.append((f"{text(key)}:{text(value)}",))
    for key, value in query.where:
        # What could be the text of a number or a word of JSON stands there unquoted.
        number = re.fullmatch(r"[-+.0-9eE]+|true|false|NaN|-?Infinity", value)
        quoted = "" if number else text(value)
        groups.append(tuple(f"{text(name)}:{quoted}" for _, name in places(key)))
    # The message has the same escapes inside the document's JSON as it has alone.
    pattern = re.escape(text(query.text)[1:-1]) if query.text else ""
    contains = re.compile(pattern, re.IGNORECASE).search if pattern else None

    def suspects(json: str) -> bool:
        for group in groups:
            if not any(needle in json for needle in group):
                return False
        return contains is None or contains(json) is not None

    return suspects


def letters(connection: sqlite3.Connection, limit: int, after: str) -> list[DeadLetter]:
    """Dead letters in the order of their ids, behind `after`."""
    columns = tuple(COLUMNS[LETTERS])
    found = connection.execute(
        f"SELECT {', '.join(columns)} FROM {LETTERS} WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants
        (unhexlify(after), limit),
    )
    answer = []
    for row in found:
        fields = dict(zip(columns, row, strict=True))
        fields["id"] = fields["id"].hex()
        fields["signal"] = Signal(fields["signal"])
        fields["received_at"] = moment(fields["received_at"] * 1_000_000)
        answer.append(DeadLetter(**fields))
    return answer
