"""
`/api/search`: traces that a query finds, newest first.

Candidates come newest first by the start of a matching span; the answer is ordered by the start of
the whole trace, which may be much earlier. So reading goes on until `limit` traces are known that
start behind every candidate to come: the answer is then exactly the newest ones. A trace is made
into its part of the answer as soon as it was evaluated, and its spans are let go.
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Final

from collector.query.tempo.candidates import Reader, weight
from collector.query.tempo.parameters import BadRequest, Range
from collector.query.tempo.values import KeyValue, any_value, harmonise, key_value
from collector.query.traceql import printer
from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.evaluate import satisfied
from collector.query.traceql.plan import plan
from collector.query.traceql.spansets import Spanset, pipeline
from collector.query.traceql.tree import (
    Aggregate,
    Attribute,
    Binary,
    By,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Query,
    ScalarFilter,
    Select,
    SpansetOperation,
    Stage,
    Unary,
    Wrapped,
)
from collector.query.traceql.values import Reader as ValueReader
from collector.query.traceql.values import reader
from collector.query.traceql.view import Span, Trace

ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Memory of one answer while it is made."""
NO_ROOT: Final = "<root span not yet received>"

_NEVER: Final = frozenset(
    {
        "duration",
        "traceDuration",
        "rootName",
        "rootServiceName",
        "trace:id",
        "span:id",
    }
)
"""Intrinsics that have fields of their own in the answer, or none."""

Shown = list[tuple[str, ValueReader]]


async def search(
    reading: Reader, query: Query, asked: Range, *, limit: int, spans: int
) -> dict[str, Any]:
    """
    The answer to a search.

    Args:
        reading: of this question.
        query: without a metrics function.
        asked: traces with a candidate span that starts in it are found.
        limit: the most traces.
        spans: the most spans in a spanset of the answer.

    Raises:
        BadRequest: the query is one for metrics.
        LimitExceeded: the answer would be too large.
    """
    if query.metrics is not None:
        raise BadRequest("this query computes metrics; ask /api/metrics/query_range, or search { }")
    found = _Found(query, limit, spans)
    known: set[str] = set()
    async with aclosing(reading.candidates(plan(query).scans, asked.start, asked.end)) as pages:
        async for page, front in pages:
            new = dict.fromkeys(span.document["trace_id"] for span in page)
            fresh = [trace_id for trace_id in new if trace_id not in known]
            known.update(fresh)
            await reading.whole(fresh, found.take)
            if found.complete(front):
                break
    return found.answer(reading)


class _Found:
    """The newest traces so far."""

    def __init__(self, query: Query, limit: int, spans: int) -> None:
        self._run = pipeline(query.stages)
        self._shown = list(shown(query))
        self._limit = limit
        self._spans = spans
        self._newest: list[tuple[int, int, int, dict[str, Any]]] = []
        self._bytes = 0

    def take(self, trace: Trace) -> None:
        """Evaluate a trace."""
        oldest = self._newest[0][0] if len(self._newest) == self._limit else -1
        if trace.start < oldest:
            return
        sets = self._run(trace)
        if not sets:
            return
        made = self._trace(trace, sets)
        size = weight(made)
        entry = (trace.start, -int(trace.id, 16), size, made)  # of equal starts the least id stays
        self._bytes += size
        if len(self._newest) < self._limit:
            heapq.heappush(self._newest, entry)
        else:
            self._bytes -= heapq.heappushpop(self._newest, entry)[2]
        if self._bytes > ANSWER_BYTES:
            raise LimitExceeded(
                f"the answer is larger than {ANSWER_BYTES} bytes; lower limit or spss"
            )

    def complete(self, front: int) -> bool:
        """Whether no candidate that starts at `front` or earlier can change the answer."""
        return len(self._newest) == self._limit and front < self._newest[0][0]

    def answer(self, reading: Reader) -> dict[str, Any]:
        """The body."""
        newest = sorted(self._newest, key=lambda entry: entry[:2], reverse=True)
        found = [made for _, _, _, made in newest]
        harmonise(_attributes(found))
        for made in found:
            made["spanSet"] = made["spanSets"][0]  # older data sources read this one
        return {
            "traces": found,
            "metrics": {
                "inspectedTraces": reading.traces,
                "completedJobs": 0 if reading.partial else 1,
                "totalJobs": 1,
            },
        }

    def _trace(self, trace: Trace, sets: list[Spanset]) -> dict[str, Any]:
        root = trace.root
        made: dict[str, Any] = {
            "traceID": trace.id,
            "rootServiceName": root.document["service"] if root else NO_ROOT,
            "startTimeUnixNano": str(trace.start),
            "durationMs": min(trace.duration // 1_000_000, 2**32 - 1),
            "spanSets": [self._set(each) for each in sets],
            "serviceStats": _services(trace),
        }
        if root:
            made["rootTraceName"] = root.document["name"]
        return made

    def _set(self, each: Spanset) -> dict[str, Any]:
        made: dict[str, Any] = {
            "spans": [self._span(span) for span in each.spans[: self._spans]],
            "matched": len(each.spans),
        }
        attributes = [
            key_value(key, encoded)
            for key, value in each.attributes.items()
            if (encoded := any_value("nil" if value is None else value)) is not None
        ]
        return {**made, "attributes": attributes} if attributes else made

    def _span(self, span: Span) -> dict[str, Any]:
        made: dict[str, Any] = {
            "spanID": span.id,
            "startTimeUnixNano": str(span.start),
            "durationNanos": str(span.duration),
        }
        attributes: dict[str, KeyValue] = {}
        for key, show in self._shown:
            encoded = any_value(show(span)) if key not in attributes else None
            if encoded is not None:
                attributes[key] = key_value(key, encoded)
        name = attributes.pop(_NAME, None)
        if name is not None:
            made["name"] = span.document["name"]
        return {**made, "attributes": [*attributes.values()]} if attributes else made


_NAME: Final = "\0name"  # no attribute: the span's own field


def _services(trace: Trace) -> dict[str, dict[str, int]]:
    spans = Counter(span.document["service"] for span in trace.spans)
    errors = Counter(
        span.document["service"] for span in trace.spans if span.document["status"] == "ERROR"
    )
    return {
        service: {
            "spanCount": count,
            **({"errorCount": errors[service]} if errors[service] else {}),
        }
        for service, count in spans.items()
    }


def _attributes(found: list[dict[str, Any]]) -> Iterator[KeyValue]:
    for trace in found:
        for each in trace["spanSets"]:
            yield from each.get("attributes", ())
            for span in each["spans"]:
                yield from span.get("attributes", ())


def shown(query: Query) -> Iterator[tuple[str, ValueReader]]:
    """What a query shows of each span: key of the answer, and how to read the value."""
    for stage in query.stages:
        yield from _of_stage(stage)


def _of_stage(stage: Stage) -> Iterator[tuple[str, ValueReader]]:
    match stage:
        case Filter():
            if stage.expression is not None:
                yield from _of(stage.expression)
        case SpansetOperation():
            yield from _of_stage(stage.left)
            yield from _of_stage(stage.right)
        case Wrapped():
            for inner in stage.stages:
                yield from _of_stage(inner)
        case By():
            yield from _of(stage.expression)
        case Select():
            for field in stage.fields:
                yield from _of(field)
        case ScalarFilter():
            yield from _of(stage.left)
            yield from _of(stage.right)


def _of(found: Expression) -> Iterator[tuple[str, ValueReader]]:
    match found:
        case Attribute() | Intrinsic():
            if (key := _key(found)) is not None:
                yield key, reader(found)
        case Unary():
            yield from _of(found.operand)
        case Aggregate() if found.expression is not None:
            yield from _of(found.expression)
        case Binary():
            sides = found.left, found.right
            fields = [side for side in sides if isinstance(side, Attribute | Intrinsic)]
            comparison = printer.BINARY[found.op] == printer.COMPARISON
            if comparison and len(fields) == 1 and any(isinstance(s, Literal) for s in sides):
                if (key := _key(fields[0])) is not None:
                    yield key, satisfied(found, fields[0])
            else:
                yield from _of(found.left)
                yield from _of(found.right)


def _key(field: Attribute | Intrinsic) -> str | None:
    """What an answer calls a field: its bare name; None for what it does not show."""
    if isinstance(field, Attribute):
        return field.name
    if field.plain == "name":
        return _NAME
    return None if field.plain in _NEVER else field.plain
