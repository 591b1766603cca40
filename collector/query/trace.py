"""
`trace`: what happened to an id.

The traces in which the id occurs are collected, each is fetched whole, and its spans are laid out as
a tree with their log records. The store is seen only through its contract, so MongoDB, SQLite and a
test double give equal answers, and the HTTP port and the command line send the same bytes.

A tree is a list of rows in reading order, each with its depth: a chain of ten thousand nested
spans is then a long list and not a recursion. Everything fetched is bounded; what was cut off is
said in `Answer.cut`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from collector.model import Signal
from collector.query.ids import KINDS, forms
from collector.query.searched import PAGE, Searched, time_range_of
from collector.stores.base import Document, Query, Store, event_time


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one answer may hold."""

    traces: int = 50
    spans: int = 10_000
    logs: int = 10_000


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One span of a trace, in reading order.

    Args:
        depth: 0 for a root, one more than its parent's otherwise.
        orphan: it names a parent that is not stored, or that is its own descendant.
        span: the document.
        logs: its log records, oldest first.
    """

    depth: int = 0
    orphan: bool = False
    span: Document
    logs: list[Document] = []


class Trace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One whole trace.

    Args:
        trace_id: 32 lower-case hex digits.
        start_unix_nano: the earliest start of a span, or the earliest log record without spans.
        duration_ms: from there to the latest end.
        services: in order of appearance.
        context: each key of the documents' `context`, with its values in order of appearance.
        span_count: spans in `rows`.
        error_count: those with status ERROR, or with `error.type`, which says the same.
        log_count: log records, under a span or not.
        rows: the spans as a tree.
        logs: log records whose span is not stored.
    """

    trace_id: str
    start_unix_nano: int
    duration_ms: float
    services: list[str]
    context: dict[str, list[str]]
    span_count: int
    error_count: int
    log_count: int
    rows: list[Row] = []
    logs: list[Document] = []


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What is known about one id.

    Args:
        id: the id as it was asked for.
        traces: those in which the id occurs, earliest first.
        logs: log records that carry the id and belong to no trace.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where and what was looked for.
    """

    id: str
    traces: list[Trace] = []
    logs: list[Document] = []
    cut: list[str] = []
    searched: Searched

    @property
    def found(self) -> bool:
        """Whether anything is known."""
        return bool(self.traces or self.logs)


async def trace(store: Store, text: str, limits: Limits | None = None) -> Answer:
    """
    Everything about one id; `Answer.found` is False when nothing is known.

    Args:
        store: where to look.
        text: a trace id in any spelling, or any id of `telemetry.attributes.LOOKUP`.
        limits: how much to fetch at most.
    """
    limits = limits or Limits()
    ids = forms(text)
    spans = _Collected(store, Signal.TRACES, limits.spans)
    logs = _Collected(store, Signal.LOGS, limits.logs)
    for form in ids:
        await asyncio.gather(
            spans.add(Query(signal=Signal.TRACES, id=form)),
            logs.add(Query(signal=Signal.LOGS, id=form)),
        )
    named = dict.fromkeys(filter(None, map(_trace_id, (*spans.in_order(), *logs.in_order()))))
    chosen = list(named)[: limits.traces]
    # Asked for by its own id, a trace is complete already; of the others only some documents carry
    # the id, so they are fetched whole.
    if rest := tuple(found for found in chosen if found not in ids):
        await asyncio.gather(
            spans.add(Query(signal=Signal.TRACES, trace_ids=rest)),
            logs.add(Query(signal=Signal.LOGS, trace_ids=rest)),
        )

    grouped: dict[str, tuple[list[Document], list[Document]]] = {key: ([], []) for key in chosen}
    loose = []
    for span in spans.in_order():
        if span["trace_id"] in grouped:
            grouped[span["trace_id"]][0].append(span)
    for log in logs.in_order():
        home = _trace_id(log)
        if home is None:
            loose.append(log)
        elif home in grouped:
            grouped[home][1].append(log)
    traces = [assemble(key, *found) for key, found in grouped.items() if any(found)]
    traces.sort(key=lambda found: (found.start_unix_nano, found.trace_id))
    cut = []
    if len(named) > len(chosen):
        cut.append(f"the id occurs in more than {limits.traces} traces; the first are shown")
    if spans.cut:
        cut.append(f"more than {limits.spans} spans; the earliest are shown")
    if logs.cut:
        cut.append(f"more than {limits.logs} log records; the earliest are shown")
    searched = Searched(store=store.describe(), ids=ids, kinds=list(KINDS))
    if not traces and not loose:
        searched = msgspec.structs.replace(
            searched,
            spans=await time_range_of(store, Signal.TRACES),
            logs=await time_range_of(store, Signal.LOGS),
        )
    return Answer(id=text, traces=traces, logs=loose, cut=cut, searched=searched)


def assemble(trace_id: str, spans: Sequence[Document], logs: Sequence[Document]) -> Trace:
    """
    One trace from its documents.

    Args:
        trace_id: its id.
        spans: its spans, in order of time.
        logs: its log records, in order of time.
    """
    by_span: defaultdict[str, list[Document]] = defaultdict(list)
    for log in logs:
        by_span[log["trace"].get("span_id", "")].append(log)
    rows = _rows(spans, by_span)
    start = min(
        (event_time(Signal.TRACES, span) for span in spans),
        default=event_time(Signal.LOGS, logs[0]) if logs else 0,
    )
    if spans:
        end = max(max(span["end_unix_nano"], event_time(Signal.TRACES, span)) for span in spans)
    else:
        end = event_time(Signal.LOGS, logs[-1]) if logs else 0
    known = {span["span_id"] for span in spans}
    context: dict[str, list[str]] = {}
    services: list[str] = []
    for document in (*(row.span for row in rows), *logs):
        _remember(services, document["service"])
        for key, value in document.get("context", {}).items():
            _remember(context.setdefault(key, []), value)
    return Trace(
        trace_id=trace_id,
        start_unix_nano=start,
        duration_ms=(end - start) / 1e6,
        services=services,
        context=context,
        span_count=len(spans),
        error_count=sum(
            span["status"] == "ERROR" or "error.type" in span.get("attributes", {})
            for span in spans
        ),
        log_count=len(logs),
        rows=rows,
        logs=[log for log in logs if log["trace"].get("span_id", "") not in known],
    )


def _rows(spans: Sequence[Document], logs: dict[str, list[Document]]) -> list[Row]:
    """The tree in reading order; nothing is lost, whatever the parents say."""
    place: dict[str, int] = {}
    for index, span in enumerate(spans):
        place.setdefault(span["span_id"], index)
    children: defaultdict[int, list[int]] = defaultdict(list)
    roots = []
    for index, span in enumerate(spans):
        parent = place.get(span.get("parent_span_id", ""))
        if parent is None or parent == index:
            roots.append(index)
        else:
            children[parent].append(index)
    rows = []
    seen: set[int] = set()
    # Spans that are each other's ancestors hang under no root: the earliest becomes one.
    for root in (*roots, *range(len(spans))):
        waiting = [(root, 0)]
        while waiting:
            index, depth = waiting.pop()
            if index in seen:
                continue
            seen.add(index)
            span = spans[index]
            rows.append(
                Row(
                    depth=depth,
                    orphan=depth == 0 and bool(span.get("parent_span_id")),
                    span=span,
                    logs=logs.get(span["span_id"], []) if place[span["span_id"]] == index else [],
                )
            )
            waiting.extend((child, depth + 1) for child in reversed(children[index]))
    return rows


class _Collected:
    """Documents of one signal without repeats, up to a bound."""

    def __init__(self, store: Store, signal: Signal, bound: int) -> None:
        self._store = store
        self._signal = signal
        self._bound = bound
        self._by_id: dict[str, Document] = {}

    async def add(self, query: Query) -> None:
        """Fetch what matches, earliest first, until the bound."""
        after = None
        left = self._bound + 1  # one more than we keep tells whether there is more
        while left:
            limit = min(PAGE, left)
            page = await self._store.find(msgspec.structs.replace(query, limit=limit, after=after))
            self._by_id.update((document["_id"], document) for document in page)
            if len(page) < limit:
                return
            left -= limit
            after = (event_time(self._signal, page[-1]), page[-1]["_id"])

    @property
    def cut(self) -> bool:
        """Whether more was there than the bound allows."""
        return len(self._by_id) > self._bound

    def in_order(self) -> list[Document]:
        """What was fetched, by time, at most as many as the bound allows."""
        ordered = sorted(
            self._by_id.values(),
            key=lambda document: (event_time(self._signal, document), document["_id"]),
        )
        return ordered[: self._bound]


def _trace_id(document: Document) -> str | None:
    """The trace that a span or a log record belongs to."""
    found: Any = document.get("trace_id") or document.get("trace", {}).get("trace_id")
    return found or None


def _remember(values: list[str], value: str) -> None:
    if value not in values:
        values.append(value)
