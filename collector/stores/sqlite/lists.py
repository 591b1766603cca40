"""
Lists of traces, services, operations and metrics: how SQLite reads their rows.

Everything but the kind of a span, its parent and the description of a metric has a column. A walk
goes along the index on times, or on long durations, and ends as soon as a page is full.
"""

import sqlite3
from binascii import unhexlify
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from collector.documents.build import Document, text
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
from collector.stores.routing import METRICS, SPANS
from collector.stores.sqlite import summaries, transfer
from collector.stores.sqlite.reader import nanoseconds, narrowed
from collector.stores.sqlite.schema import time_value

T = TypeVar("T")

_KIND: Final = "coalesce(json_extract(document, '$.kind'), '')"
_ENTRY: Final = f"kind IN {ENTRIES}"


class Lists:
    """The part of the store that answers with lists."""

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

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
        work = partial(traces, query=query, longest=longest, after=after, most=most)
        return await self._ask(work)

    async def services(self, query: Query, *, most: int = MOST_COUNTED) -> Counted[ServiceCount]:
        """Spans or log records by service."""
        if not listable(query, Signal.TRACES, Signal.LOGS):
            return Counted([])
        return await self._ask(partial(services, query=query, most=most))

    async def operations(
        self, query: Query, *, kinds: Sequence[str] = (), most: int = MOST_COUNTED
    ) -> Counted[Operation]:
        """Spans by service, name and kind."""
        if not listable(query, Signal.TRACES):
            return Counted([])
        return await self._ask(partial(operations, query=query, most=most, kinds=kinds))

    async def metric_names(self, query: Query, *, most: int = MOST_COUNTED) -> Counted[MetricName]:
        """Metrics by name."""
        if not listable(query, Signal.METRICS):
            return Counted([])
        return await self._ask(partial(metric_names, query=query, most=most))


class Walk:
    """
    Reads the spans of a list of traces.

    Args:
        connection: to read with.
        query: the conditions on a span.
        longest: the longest first; the newest first otherwise.
        after: where the page begins.
    """

    def __init__(
        self, connection: sqlite3.Connection, query: Query, *, longest: bool, after: Place | None
    ) -> None:
        self._connection = connection
        self._query = msgspec.structs.replace(query, newest_first=True, after=None)
        self._longest = longest
        self._after = after

    def candidates(self) -> Iterator[tuple[Place, str]]:
        """In order, behind `after`."""
        key = "duration_ms" if self._longest else "time"
        for sql, parameters in self._statements(key):
            cursor = self._connection.execute(sql, parameters)
            try:
                for value, identity, trace_id in cursor:
                    place = value if self._longest else nanoseconds(value)
                    if trace_id is not None:
                        yield (place, identity.hex()), trace_id
            finally:
                cursor.close()

    def before(self, trace_id: str) -> bool:
        """Whether a matching span of the trace stands at `after` or before it."""
        if self._after is None:
            return False
        base = narrowed(msgspec.structs.replace(self._query, trace_ids=(trace_id,)))
        key, place = self._edge()
        sql = f"SELECT 1 FROM {base.table}{base.where} AND ({key}, id) >= (?, ?) LIMIT 1"  # noqa: S608 - constants
        return self._connection.execute(sql, [*base.parameters, *place]).fetchone() is not None

    def spans(self, trace_ids: Sequence[str], limit: int) -> list[SpanRow]:
        """By start and id."""
        rows = self._connection.execute(
            "SELECT id, trace_id, service, name, status,"  # noqa: S608 - constants
            " json_extract(document, '$.parent_span_id') IS NULL, time, duration_ms"
            f" FROM {SPANS} WHERE trace_id IN (SELECT value FROM json_each(?))"
            " ORDER BY +time, id LIMIT ?",
            [text(trace_ids), limit],
        )
        return [
            SpanRow(
                identity.hex(), trace_id, service, name or "", status or "UNSET", bool(root),
                nanoseconds(time), duration_ms or 0.0,
            )
            for identity, trace_id, service, name, status, root, time, duration_ms in rows
        ]  # fmt: skip

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """By id."""
        return transfer.fetch(self._connection, SPANS, ids)

    def _edge(self) -> tuple[str, list[Any]]:
        key, identity = self._after or (0, "")
        if self._longest:
            return "duration_ms", [key, unhexlify(identity)]
        return "time", [time_value(int(key)), unhexlify(identity)]

    def _statements(self, key: str) -> Iterator[tuple[str, list[Any]]]:
        columns = f"{key}, id, trace_id"
        if self._longest:
            yield from summaries.statements(self._query, self._after, columns, bounded=False)
            return
        after = None if self._after is None else (int(self._after[0]), self._after[1])
        query = msgspec.structs.replace(self._query, after=after)
        if after is not None:  # said as a time too: the index then begins where the page does
            until = query.until_unix_nano
            last = after[0] + 1 if until is None else min(until, after[0] + 1)
            query = msgspec.structs.replace(query, until_unix_nano=last)
        base = narrowed(query)
        sql = f"SELECT {columns} FROM {base.table}{base.where} ORDER BY time DESC, id DESC"  # noqa: S608 - constants
        yield sql, base.parameters


def traces(
    connection: sqlite3.Connection, query: Query, *, longest: bool, after: Place | None, most: int
) -> Traces:
    """One page of traces."""
    walk = Walk(connection, query, longest=longest, after=after)
    return page_of_traces(walk, query.limit, first=after is None, most=most)


def services(connection: sqlite3.Connection, query: Query, most: int) -> Counted[ServiceCount]:
    """Spans or log records by service."""
    spans = query.signal is Signal.TRACES
    kind, failed = (_KIND, "status = 'ERROR'") if spans else ("''", f"severity >= {FAILED}")
    inner, parameters = _newest(query, f"service, time, {kind} AS kind, {failed} AS failed", most)
    rows = connection.execute(
        f"SELECT service, count(*), sum({_ENTRY}), sum(failed), min(time), max(time)"  # noqa: S608 - constants
        f" FROM ({inner}) GROUP BY service",
        parameters,
    )
    return services_of(
        (
            ServiceCount(
                name=service,
                count=count,
                requests=requests,
                errors=errors,
                first_unix_nano=nanoseconds(first),
                last_unix_nano=nanoseconds(last),
            )
            for service, count, requests, errors, first, last in rows
        ),
        most,
    )


def operations(
    connection: sqlite3.Connection, query: Query, most: int, kinds: Sequence[str]
) -> Counted[Operation]:
    """Spans by service, name and kind."""
    columns = f"service, name, {_KIND} AS kind, status, duration_ms, time"
    inner, parameters = _newest(query, columns, most)
    rows = connection.execute(inner, parameters)
    return operations_of(
        (
            Timing(
                service, name or "", kind, status == "ERROR", duration_ms or 0.0,
                nanoseconds(time),
            )
            for service, name, kind, status, duration_ms, time in rows
        ),
        most,
        kinds,
    )  # fmt: skip


def metric_names(connection: sqlite3.Connection, query: Query, most: int) -> Counted[MetricName]:
    """Metrics by name."""
    inner, parameters = _newest(query, "name, service, time, rowid AS place", most)
    # Of a group with max() SQLite takes the other columns from the row that has it.
    rows = connection.execute(
        f"SELECT name, service, count(*), min(time), max(time), place FROM ({inner})"  # noqa: S608 - constants
        " GROUP BY name, service",
        parameters,
    ).fetchall()
    last = partial(_point, connection)
    return metrics_of(
        (
            MetricCount(name, service, count, nanoseconds(first), nanoseconds(newest), last(place))
            for name, service, count, first, newest, place in rows
        ),
        most,
    )


def _point(connection: sqlite3.Connection, place: int) -> Document:
    (json,) = connection.execute(
        f"SELECT document FROM {METRICS} WHERE rowid = ?",  # noqa: S608 - constants
        (place,),
    ).fetchone()
    found: Document = msgspec.json.decode(json)
    return found


def _newest(query: Query, columns: str, most: int) -> tuple[str, list[Any]]:
    """The newest documents that match."""
    base = narrowed(msgspec.structs.replace(query, after=None))
    sql = f"SELECT {columns} FROM {base.table}{base.where} ORDER BY time DESC, id DESC LIMIT ?"  # noqa: S608 - constants
    return sql, [*base.parameters, most]
