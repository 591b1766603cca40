"""
Metrics functions: spans in, series out.

`accumulator` gives an object that is fed spans in any order and keeps one small number set per
series and interval; `series()` makes the answer of it. What is kept is bounded: at most
`MAX_SERIES` series are answered, and `LimitExceeded` is raised when labels or intervals would need
more than `MAX_CELLS` cells of memory.
"""

import math
from collections import defaultdict
from typing import Final, Protocol

from collector.query.traceql import printer
from collector.query.traceql.compare import Comparison
from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.series import (
    Exemplar,
    Intervals,
    Kept,
    Labels,
    Series,
    bucket,
    quantile,
    ranked,
    spread,
)
from collector.query.traceql.spansets import identity, single
from collector.query.traceql.tree import INTRINSICS, Compare, Intrinsic, Metrics, Query, Type
from collector.query.traceql.values import Reader, Value, family, reader
from collector.query.traceql.view import Span

MAX_SERIES: Final = 1000
"""Series of one answer; more are cut off, and the answer says so."""
MAX_CELLS: Final = 200_000
"""Intervals of all series together while a query runs, about 250 bytes each."""
MAX_SAMPLES: Final = 1_000_000
"""Numbers of one answer."""
MAX_EXEMPLARS: Final = 20_000
"""Exemplars of all series together while a query runs."""

_SECOND: Final = 1_000_000_000
_COUNTING: Final = ("rate", "count_over_time")
_BUCKETED: Final = ("quantile_over_time", "histogram_over_time")


class Accumulator(Protocol):
    """What takes the spans of a metrics query."""

    def add(self, span: Span) -> None:
        """One span that came out of the pipeline."""

    def series(self) -> list[Series]:
        """What became of all spans so far, before `topk` and `bottomk`."""


def accumulator(query: Query, intervals: Intervals, *, exemplars: int = 100) -> Accumulator:
    """
    What computes a query's metrics function.

    Args:
        query: one with `metrics`.
        intervals: of the answer.
        exemplars: the most of them in a series.

    Raises:
        ValueError: the query has no metrics function.
    """
    if isinstance(query.metrics, Compare):
        return Comparison(query.metrics, intervals)
    if query.metrics is None:
        raise ValueError(
            "this query searches traces; a metrics function such as | rate() is needed"
        )
    return _Grouped(query.metrics, intervals, exemplars)


def finished(query: Query, found: list[Series]) -> tuple[list[Series], bool]:
    """
    The series of an answer: ranked as the query wants, and not too many.

    Args:
        query: the query.
        found: of an accumulator.

    Returns:
        The series, and whether some were cut off.
    """
    for rank in query.ranks:
        found = ranked(found, rank.count, top=rank.function == "topk")
    return found[:MAX_SERIES], len(found) > MAX_SERIES


class _Grouped:
    """Every function but `compare`."""

    def __init__(self, metrics: Metrics, intervals: Intervals, exemplars: int) -> None:
        self._metrics = metrics
        self._intervals = intervals
        self._wanted = exemplars
        self._examples = -(-exemplars // intervals.count)
        self._exemplars = 0
        self._by = [(printer.expression(field), reader(field)) for field in metrics.by]
        self._measure = _measure(metrics)
        self._scale = _scale(metrics)
        self._groups: dict[object, tuple[Labels, dict[int, Kept], list[Exemplar]]] = {}
        self._cells = 0

    def add(self, span: Span) -> None:
        start = span.start
        place = self._intervals.place(start)
        if place is None:
            return
        number = self._measure(span)
        if number is None:
            return
        values = [(key, single(read(span))) for key, read in self._by]
        key = tuple(identity(value) for _, value in values)
        group = self._groups.get(key)
        if group is None:
            labels = tuple((name, "nil" if value is None else value) for name, value in values)
            group = self._groups[key] = (labels, {}, [])
            texts = (value for _, value in values if isinstance(value, str))
            self._count(4 + sum(map(len, texts)) // 100)
        _, cells, exemplars = group
        cell = cells.get(place)
        if cell is None:
            cell = cells[place] = Kept()
            self._count(1)
        self._take(cell, number)
        if cell.examples < self._examples and self._exemplars < MAX_EXEMPLARS:
            cell.examples += 1
            self._exemplars += 1
            value = None if self._metrics.function in _COUNTING else number / self._scale
            exemplars.append(Exemplar(start, span.document["trace_id"], value))

    def _take(self, cell: Kept, number: float) -> None:
        if self._metrics.function not in _BUCKETED:
            cell.add(number)
            return
        top = bucket(number)
        if top is not None:
            if cell.buckets is None:
                cell.buckets = defaultdict(int)
            if not cell.buckets[top]:
                self._count(1)
            cell.buckets[top] += 1

    def _count(self, cells: int) -> None:
        self._cells += cells
        if self._cells > MAX_CELLS:
            raise LimitExceeded(
                f"the series of this query have more than {MAX_CELLS} values; "
                "group by less, raise step, or narrow the time"
            )

    def series(self) -> list[Series]:
        made: list[Series] = []
        for labels, cells, exemplars in self._groups.values():
            shown = spread(exemplars, self._wanted)
            made += [
                Series(labels + extra, samples, shown) for extra, samples in self._samples(cells)
            ]
            if len(made) * self._intervals.count > MAX_SAMPLES:
                raise LimitExceeded(
                    f"the answer has more than {MAX_SAMPLES} numbers; group by less or raise step"
                )
        if not self._by and self._metrics.function not in _BUCKETED:
            for each in made:
                each.labels = (("__name__", self._metrics.function),)
        return made

    def _samples(self, cells: dict[int, Kept]) -> list[tuple[Labels, dict[int, float]]]:
        """The series of one group: labels of their own, and samples."""
        function, places = self._metrics.function, range(self._intervals.count)
        seconds = self._intervals.step / _SECOND
        match function:
            case "rate" | "count_over_time":
                unit = seconds if function == "rate" else 1
                counts = {place: cell.count / unit for place, cell in cells.items()}
                return [((), {place: counts.get(place, 0.0) for place in places})]
            case "quantile_over_time":
                buckets = {place: self._buckets(cell) for place, cell in cells.items()}
                return [
                    ((("p", wanted),), {p: quantile(wanted, buckets.get(p, ())) for p in places})
                    for wanted in self._metrics.quantiles
                ]
            case "histogram_over_time":
                tops = sorted({top for cell in cells.values() for top, _ in self._buckets(cell)})
                made: list[tuple[Labels, dict[int, float]]] = []
                for top in tops:
                    samples: dict[int, float] = dict.fromkeys(places, 0.0)
                    for place, cell in cells.items():
                        samples[place] = dict(self._buckets(cell)).get(top, 0)
                    made.append(((("__bucket", top),), samples))
                return made
        return [((), {place: self._single(cell) for place, cell in cells.items()})]

    def _buckets(self, cell: Kept) -> list[tuple[float, int]]:
        return sorted((top / self._scale, count) for top, count in (cell.buckets or {}).items())

    def _single(self, cell: Kept) -> float:
        match self._metrics.function:
            case "min_over_time":
                found = cell.least
            case "max_over_time":
                found = cell.most
            case "avg_over_time":
                found = cell.total / cell.count
            case _:
                found = cell.total
        return found / self._scale


def _measure(metrics: Metrics) -> Reader:
    """The number of a span, nil when it has none; a count has 1."""
    if metrics.measured is None:
        return lambda _: 1
    read = reader(metrics.measured)

    def measure(span: Span) -> Value:
        value = single(read(span))
        return value if family(value) == "number" and math.isfinite(value) else None

    return measure


def _scale(metrics: Metrics) -> float:
    """What divides a number before it is shown: durations are seconds."""
    measured = metrics.measured
    seconds = isinstance(measured, Intrinsic) and INTRINSICS[measured.name] is Type.DURATION
    return 1e9 if seconds else 1.0
