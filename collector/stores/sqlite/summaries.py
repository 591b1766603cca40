"""
The slowest spans and the groups of failures, worked out inside SQLite.

As on MongoDB, the index on durations holds only spans over a second: those are asked for first, and
the rest of the time range is sorted only when they do not fill the answer. Failures are counted by
SQL over the JSON; a partial index says which documents are failures at all.
"""

import sqlite3
from binascii import unhexlify
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from collector.documents.build import Document, loads
from collector.model import Signal
from collector.stores.answers import MESSAGE
from collector.stores.base import Failure, Query
from collector.stores.query_match import matches
from collector.stores.sqlite.reader import nanoseconds, narrowed, suspects_of
from collector.stores.sqlite.schema import SLOW_MS

_FIELDS: Final = {
    Signal.TRACES: (
        '$.attributes."error.type"',
        ("$.status_message", "$.name"),
        "$.trace_id",
    ),
    Signal.LOGS: (
        "$.exception.type",
        ("$.exception.message", "$.message", "$.event"),
        "$.trace.trace_id",
    ),
}


def slowest(
    connection: sqlite3.Connection, query: Query, after: tuple[float, str] | None
) -> list[Document]:
    """The spans that match, the longest first."""
    found: list[Document] = []
    match, suspects = matches(query), suspects_of(query)
    for sql, parameters in statements(query, after):
        cursor = connection.execute(sql, parameters)
        try:
            for (json,) in cursor:
                if suspects(json):
                    document = loads(json.encode())
                    if match(document):
                        found.append(document)
                        if len(found) == query.limit:
                            return found
        finally:
            cursor.close()
    return found


def statements(
    query: Query,
    after: tuple[float, str] | None,
    columns: str = "document",
    *,
    bounded: bool = True,
) -> Iterator[tuple[str, list[Any]]]:
    """
    What to ask one after the other: what has an index on its duration, then the rest.

    Args:
        query: the question.
        after: duration and id of the last span of the page before.
        columns: what is read.
        bounded: no more than the limit of the question.
    """
    if query.signal is not Signal.TRACES:
        return
    least = query.min_duration_ms or 0.0
    base = narrowed(_everywhere(query))
    condition = f"{base.where} AND" if base.where else " WHERE"
    parameters = list(base.parameters)
    if after is not None:
        condition += " (duration_ms, id) < (?, ?) AND"
        parameters += [after[0], unhexlify(after[1])]
    order = " ORDER BY duration_ms DESC, id DESC"
    bounded = bounded and base.exact
    limit = " LIMIT ?" if bounded else ""
    last = [query.limit] if bounded else []
    sql = f"SELECT {columns} FROM {base.table}{condition}"  # noqa: S608 - constants
    if after is None or after[0] > SLOW_MS:
        yield f"{sql} duration_ms > {SLOW_MS}{order}{limit}", parameters + last
    if least <= SLOW_MS:
        yield f"{sql} +duration_ms <= {SLOW_MS}{order}{limit}", parameters + last


def failures(connection: sqlite3.Connection, query: Query) -> list[Failure]:
    """What failed, counted by type, message and service; latest first."""
    if query.signal not in _FIELDS:
        return []
    base = narrowed(_everywhere(query))
    if not base.exact:
        raise ValueError("failures: a question with `text`, `where` or `context` is not answered")
    kind, messages, trace = _FIELDS[query.signal]
    message = ", ".join(map(_filled, messages))
    # The time in front of the trace id, as text that sorts as the time does: the last one wins.
    when = "CASE typeof(time) WHEN 'integer' THEN printf('%020d', time) ELSE 'x' || hex(time) || '.' END"
    sql = f"""
        SELECT type, message, service, count(*), min(time), max(time),
               coalesce(substr(max({when} || trace), 21), '')
        FROM (
            SELECT coalesce({_filled(kind)}, '') AS type,
                   substr(coalesce({message}, ''), 1, {MESSAGE}) AS message,
                   service, time, {_filled(trace)} AS trace
            FROM {base.table}{base.where}
        )
        GROUP BY type, message, service
        ORDER BY max(time) DESC, type, message, service LIMIT ?
    """  # noqa: S608 - constants
    rows = connection.execute(sql, [*base.parameters, query.limit]).fetchall()
    return [
        Failure(
            type=kind,
            message=message,
            service=service,
            count=count,
            first_unix_nano=nanoseconds(first),
            last_unix_nano=nanoseconds(last),
            trace_id=trace,
        )
        for kind, message, service, count, first, last, trace in rows
    ]


def _filled(path: str) -> str:
    """A field when it is a text with something in it; NULL otherwise."""
    value = f"json_extract(document, '{path}')"
    return f"CASE json_type(document, '{path}') WHEN 'text' THEN nullif({value}, '') END"


def _everywhere(query: Query) -> Query:
    return msgspec.structs.replace(query, after=None)
