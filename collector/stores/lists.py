"""
What a store answers to questions about many traces at once: traces, services, operations, metrics.

A store only says how its rows are read, in order and within bounds; what the rows mean is worked
out here, so that every store gives equal answers. A trace stands in a list where its first matching
span stands (the newest, or the longest). So a page can be made without reading the pages before it:
a trace belongs to them when one of its matching spans comes before the page.

Counting reads the newest documents of the time range, `MOST_COUNTED` at most, and says from which
time on it has counted when that is not all of them.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from collector.documents.build import Document

MOST_COUNTED: Final = 100_000
"""Documents that one count reads, the newest of the time range."""

MOST_WALKED: Final = 200_000
"""Matching spans that one page of traces looks at."""

MOST_SPANS: Final = 10_000
"""Spans of one trace that are read for a list."""

ENTRIES: Final = ("SERVER", "CONSUMER")
"""The kinds of spans that begin the work on a request or task."""

FAILED: Final = 17
"""The severity from which a log record is about a failure."""

T = TypeVar("T")
Place = tuple[float, str]
"""Event time in ns or `duration_ms`, and `_id`, of a span in a list."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one service has in a trace."""

    name: str
    spans: int
    errors: int = 0


class Matched(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The span that puts a trace at its place in a list; the fields as documents have them."""

    span_id: str
    service: str
    name: str
    status: str
    start_unix_nano: int
    duration_ms: float


class ListedTrace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A trace in a list.

    Args:
        trace_id: of the trace.
        service, name, status: of the root span; of the earliest one when no root is stored.
        root: whether the root span is stored.
        start_unix_nano, end_unix_nano: of the whole trace, as far as it is stored.
        duration_ms: from the one to the other.
        spans: how many are stored.
        errors: how many of them have status ERROR.
        more_spans: the trace has more than these; only its earliest were read.
        services: where its spans are from, most spans first.
        matched: the span that puts the trace at this place of the list.
    """

    trace_id: str
    service: str
    name: str
    status: str
    root: bool = False
    start_unix_nano: int
    end_unix_nano: int
    duration_ms: float
    spans: int
    errors: int = 0
    more_spans: bool = False
    services: list[Part]
    matched: Matched


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """
    A page of traces.

    Args:
        traces: in order.
        behind: where the next page begins; None when there is none.
        cut: the page ended early, because too many spans were looked at.
    """

    traces: list[ListedTrace] = []
    behind: Place | None = None
    cut: bool = False


class ServiceCount(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one service has sent.

    Args:
        name: of the service.
        count: spans or log records.
        requests: spans of kind SERVER or CONSUMER.
        errors: spans with status ERROR, log records of level ERROR and above.
        first_unix_nano, last_unix_nano: the times of the first and the last of them.
    """

    name: str
    count: int
    requests: int = 0
    errors: int = 0
    first_unix_nano: int
    last_unix_nano: int


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Spans of one service, name and kind.

    Args:
        service, name, kind: what they have in common; the kind is empty when they have none.
        count: how many.
        errors: how many of them have status ERROR.
        p50_ms, p95_ms, p99_ms, max_ms: their durations, by nearest rank.
        last_unix_nano: when the last of them started.
    """

    service: str
    name: str
    kind: str = ""
    count: int
    errors: int = 0
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    last_unix_nano: int


class MetricName(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A metric, as its last point describes it.

    Args:
        name, type, unit, description, monotonic, temporality: as documents have them.
        services: who sends it, by name.
        points: how many.
        last_unix_nano: when the last of them was measured.
    """

    name: str
    type: str = ""
    unit: str = ""
    description: str = ""
    monotonic: bool = False
    temporality: str = ""
    services: list[str] = []
    points: int
    last_unix_nano: int


@dataclass(slots=True, frozen=True)
class Counted(Generic[T]):
    """
    What was counted.

    Args:
        rows: in the order of their names.
        from_unix_nano: nothing before this was counted; None when everything was.
    """

    rows: list[T]
    from_unix_nano: int | None = None


class SpanRow(NamedTuple):
    """What a list needs of a span."""

    id: str
    trace_id: str
    service: str
    name: str
    status: str
    root: bool
    start_unix_nano: int
    duration_ms: float


class TraceSource(Protocol):
    """How a store reads the spans of a list of traces."""

    def candidates(self) -> Iterator[tuple[Place, str]]:
        """Places and trace ids of the spans that match, in order, behind where the page begins."""

    def before(self, trace_id: str) -> bool:
        """Whether the trace has a matching span before the page."""

    def spans(self, trace_ids: Sequence[str], limit: int) -> list[SpanRow]:
        """The spans of some traces by start and `_id`, at most so many."""

    def documents(self, ids: Sequence[str]) -> list[Document]:
        """Spans by their `_id`."""


def page_of_traces(
    source: TraceSource, limit: int, *, first: bool, most: int = MOST_WALKED
) -> Traces:
    """
    One page of a list of traces.

    Args:
        source: reads.
        limit: traces of a page.
        first: whether nothing comes before this page.
        most: spans to look at.
    """
    places: dict[str, Place] = {}
    known: set[str] = set()
    last: Place | None = None
    cut = more = False
    for walked, (place, trace_id) in enumerate(source.candidates(), 1):
        if trace_id not in known and (first or not source.before(trace_id)):
            if len(places) == limit:
                more = True
                break
            places[trace_id] = place
        known.add(trace_id)
        last = place
        if walked >= most:
            cut = True
            break
    matched = {found["_id"]: found for found in source.documents([i for _, i in places.values()])}
    traces = []
    for trace_id, spans, complete in _whole(source, list(places)):
        if (document := matched.get(places[trace_id][1])) is not None and spans:
            traces.append(_listed(trace_id, spans, document, complete=complete))
    position = {trace_id: at for at, trace_id in enumerate(places)}
    traces.sort(key=lambda trace: position[trace.trace_id])
    return Traces(traces=traces, behind=last if more or cut else None, cut=cut)


def _whole(
    source: TraceSource, trace_ids: Sequence[str]
) -> Iterator[tuple[str, list[SpanRow], bool]]:
    """The spans of each trace, and whether these are all; few at a time when there are many."""
    if not trace_ids:
        return
    found = source.spans(trace_ids, MOST_SPANS + 1)
    if len(found) > MOST_SPANS and len(trace_ids) > 1:
        half = len(trace_ids) // 2
        yield from _whole(source, trace_ids[:half])
        yield from _whole(source, trace_ids[half:])
        return
    by_trace: dict[str, list[SpanRow]] = {trace_id: [] for trace_id in trace_ids}
    for row in found[:MOST_SPANS]:
        by_trace[row.trace_id].append(row)
    for trace_id, spans in by_trace.items():
        yield trace_id, spans, len(found) <= MOST_SPANS


def _listed(
    trace_id: str, spans: Sequence[SpanRow], matched: Document, *, complete: bool
) -> ListedTrace:
    root = next((span for span in spans if span.root), spans[0])
    parts: dict[str, list[int]] = {}
    for span in spans:
        counts = parts.setdefault(span.service, [0, 0])
        counts[0] += 1
        counts[1] += span.status == "ERROR"
    start = spans[0].start_unix_nano
    end = max(span.start_unix_nano + round(span.duration_ms * 1e6) for span in spans)
    return ListedTrace(
        trace_id=trace_id,
        service=root.service,
        name=root.name,
        status=root.status,
        root=root.root,
        start_unix_nano=start,
        end_unix_nano=end,
        duration_ms=(end - start) / 1e6,
        spans=len(spans),
        errors=sum(errors for _, errors in parts.values()),
        more_spans=not complete,
        services=[
            Part(name=name, spans=count, errors=errors)
            for name, (count, errors) in sorted(
                parts.items(), key=lambda part: (-part[1][0], part[0])
            )
        ],
        matched=Matched(**{field: matched[field] for field in Matched.__struct_fields__}),
    )


@dataclass(slots=True)
class _Group:
    """Spans of one service, name and kind while they are counted."""

    durations: "array[float]" = field(default_factory=lambda: array("d"))
    errors: int = 0
    last: int = 0


class Timing(NamedTuple):
    """What the count of operations needs of a span."""

    service: str
    name: str
    kind: str
    failed: bool
    duration_ms: float
    start_unix_nano: int


def operations_of(rows: Iterable[Timing], most: int, kinds: Sequence[str]) -> Counted[Operation]:
    """
    Spans counted by service, name and kind.

    Args:
        rows: the newest spans, the newest first.
        most: how many were asked for.
        kinds: those that count; all when empty.
    """
    groups: dict[tuple[str, str, str], _Group] = {}
    total, oldest = 0, 0
    for service, name, kind, failed, duration_ms, start in rows:
        total, oldest = total + 1, start
        if kinds and kind not in kinds:
            continue
        group = groups.setdefault((service, name, kind), _Group())
        group.durations.append(duration_ms)
        group.errors += failed
        group.last = max(group.last, start)
    return Counted(
        [_operation(key, groups[key]) for key in sorted(groups)],
        oldest if total >= most else None,
    )


def _operation(key: tuple[str, str, str], group: _Group) -> Operation:
    durations = sorted(group.durations)

    def rank(percent: int) -> float:
        return durations[-(-percent * len(durations) // 100) - 1]  # rounded up

    return Operation(
        service=key[0], name=key[1], kind=key[2], count=len(durations), errors=group.errors,
        p50_ms=rank(50), p95_ms=rank(95), p99_ms=rank(99), max_ms=durations[-1],
        last_unix_nano=group.last,
    )  # fmt: skip


def services_of(rows: Iterable[ServiceCount], most: int) -> Counted[ServiceCount]:
    """
    Counts by service, each service once.

    Args:
        rows: counts, perhaps several of a service.
        most: how many documents were asked for.
    """
    found: dict[str, ServiceCount] = {}
    for row in rows:
        old = found.get(row.name)
        found[row.name] = row if old is None else ServiceCount(
            name=row.name,
            count=old.count + row.count,
            requests=old.requests + row.requests,
            errors=old.errors + row.errors,
            first_unix_nano=min(old.first_unix_nano, row.first_unix_nano),
            last_unix_nano=max(old.last_unix_nano, row.last_unix_nano),
        )  # fmt: skip
    counts = [found[name] for name in sorted(found)]
    cut = sum(row.count for row in counts) >= most
    return Counted(counts, min(row.first_unix_nano for row in counts) if counts and cut else None)


class MetricCount(NamedTuple):
    """Points of one metric from one service, and the last of them."""

    name: str
    service: str
    points: int
    first_unix_nano: int
    last_unix_nano: int
    last: Document


def metrics_of(rows: Iterable[MetricCount], most: int) -> Counted[MetricName]:
    """
    Metrics by name.

    Args:
        rows: counts by name and service.
        most: how many points were asked for.
    """
    groups: dict[str, list[MetricCount]] = {}
    for row in rows:
        groups.setdefault(row.name, []).append(row)
    found = []
    for name in sorted(groups):
        last = max(groups[name], key=lambda row: (row.last_unix_nano, row.service))
        found.append(
            MetricName(
                name=name,
                type=last.last.get("type", ""),
                unit=last.last.get("unit", ""),
                description=last.last.get("description", ""),
                monotonic=last.last.get("monotonic", False),
                temporality=last.last.get("temporality", ""),
                services=sorted({row.service for row in groups[name]}),
                points=sum(row.points for row in groups[name]),
                last_unix_nano=last.last_unix_nano,
            )
        )
    every = [row for some in groups.values() for row in some]
    cut = bool(every) and sum(row.points for row in every) >= most
    return Counted(found, min(row.first_unix_nano for row in every) if cut else None)
