"""
What a series of Prometheus holds, and how a point of OTLP changes it.

Cumulative points replace what was there; differences are added to it, because Prometheus knows
totals only. Exponential histograms become classic ones: their buckets are kept as (scale, index ->
count), merged by halving the finer scale, and written with the bounds that the scale means.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from collector.self_metrics.exposition import Exemplar, Labels, Sample
from collector.self_metrics.exposition import number as shortest

DELTA: Final = 1
MOST_BUCKETS: Final = 160
"""Buckets of an exponential histogram that are written; a wider one is made coarser."""
NO_VALUE: Final = 1
"""The flag of a point that says that the series has ended."""


@dataclass(slots=True)
class Value:
    """A series of any type."""

    time: int = 0
    value: float = 0
    count: int = 0
    sum: float | None = None
    bounds: tuple[float, ...] = ()
    counts: list[int] = field(default_factory=list)
    quantiles: dict[str, float] = field(default_factory=dict)
    scale: int = 0
    zero: int = 0
    threshold: float = 0.0
    positive: dict[int, int] = field(default_factory=dict)
    negative: dict[int, int] = field(default_factory=dict)
    exemplars: list[Exemplar] = field(default_factory=list)

    def take(self, kind: str, point: Any, *, delta: bool) -> None:
        """A newer point: it replaces what is here, or is added to it."""
        self.time = max(self.time, point.time_unix_nano)
        if kind == "summary":
            self.count, self.sum = point.count, point.sum
            self.quantiles = {shortest(each.quantile): each.value for each in point.quantile_values}
            return
        self.exemplars = [exemplar(each) for each in point.exemplars] or self.exemplars
        if kind in ("sum", "gauge"):
            number = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
            self.value = self.value + number if delta else number
            return
        total = point.sum if point.HasField("sum") else None
        if not delta:
            self.count, self.sum = 0, 0.0 if total is not None else None
            self.counts, self.bounds = [], ()
            self.zero, self.positive, self.negative = 0, {}, {}
        elif self.count == 0:
            self.sum = 0.0
        self.count += point.count
        self.sum = None if self.sum is None or total is None else self.sum + total
        if kind == "histogram":
            self._add_classic(point)
        else:
            self._add_exponential(point)

    def _add_classic(self, point: Any) -> None:
        bounds, counts = tuple(point.explicit_bounds), list(point.bucket_counts)
        if (bounds, len(counts)) != (self.bounds, len(self.counts)):
            if self.counts:  # other bounds: what came before cannot be shown in them
                self.count, self.sum = point.count, point.sum if point.HasField("sum") else None
            self.bounds, self.counts = bounds, counts
            return
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]

    def _add_exponential(self, point: Any) -> None:
        if not self.positive and not self.negative:
            self.scale = point.scale
        scale = min(self.scale, point.scale)
        sides = ((self.positive, point.positive), (self.negative, point.negative))
        for buckets, found in sides:
            coarser(buckets, self.scale - scale)
            for place, number in enumerate(found.bucket_counts):
                if number:
                    index = (found.offset + place) >> (point.scale - scale)
                    buckets[index] = buckets.get(index, 0) + number
        self.scale = scale
        self.zero += point.zero_count
        self.threshold = max(self.threshold, point.zero_threshold)
        while width(self.positive) + width(self.negative) > MOST_BUCKETS:
            for buckets, _ in sides:
                coarser(buckets, 1)
            self.scale -= 1

    def samples(self, kind: str, labels: Labels, time_s: float | None) -> Iterator[Sample]:
        """The lines of this series."""
        if kind in ("sum", "gauge"):
            example = self.exemplars[-1] if self.exemplars else None
            yield Sample(labels, self.value, "", time_s, example)
            return
        if kind == "summary":
            for quantile, value in self.quantiles.items():
                yield Sample((*labels, ("quantile", quantile)), value, "", time_s)
        else:
            yield from self._buckets(kind, labels, time_s)
        if self.sum is not None:
            yield Sample(labels, self.sum, "_sum", time_s)
        yield Sample(labels, self.count, "_count", time_s)

    def _buckets(self, kind: str, labels: Labels, time_s: float | None) -> Iterator[Sample]:
        if kind == "histogram":
            pairs = list(zip(self.bounds, self.counts, strict=False))
        else:
            pairs = list(self._exponential())
        below, before = 0, -math.inf
        for bound, number in pairs:
            below += number
            if not before < bound < math.inf:
                continue  # bounds that do not grow cannot be kept apart; the next one has its values
            labels_here = (*labels, ("le", shortest(bound)))
            yield Sample(labels_here, below, "_bucket", time_s, self._in(before, bound))
            before = bound
        last = self._in(before, math.inf)
        yield Sample((*labels, ("le", "+Inf")), self.count, "_bucket", time_s, last)

    def _exponential(self) -> Iterator[tuple[float, int]]:
        """Upper bounds and counts, growing."""
        for index in sorted(self.negative, reverse=True):
            yield -power(self.scale, index), self.negative[index]
        if self.zero or self.negative:
            yield self.threshold, self.zero
        for index in sorted(self.positive):
            yield power(self.scale, index + 1), self.positive[index]

    def _in(self, low: float, high: float) -> Exemplar | None:
        """The latest exemplar of a bucket."""
        found = (each for each in reversed(self.exemplars) if low < each.value <= high)
        return next(found, None)


def coarser(buckets: dict[int, int], steps: int) -> None:
    """Halve the resolution so many times."""
    if steps <= 0:
        return
    merged: dict[int, int] = {}
    for index, number in buckets.items():
        merged[index >> steps] = merged.get(index >> steps, 0) + number
    buckets.clear()
    buckets.update(merged)


def width(buckets: dict[int, int]) -> int:
    """How many buckets there are from the first to the last."""
    return max(buckets) - min(buckets) + 1 if buckets else 0


def power(scale: int, index: int) -> float:
    """The lower bound of a bucket: 2 to the power of index / 2^scale."""
    try:
        return math.pow(2.0, math.ldexp(float(index), -scale))
    except OverflowError:
        return math.inf if index > 0 else 0.0


def exemplar(found: Any) -> Exemplar:
    """An exemplar with the ids of its trace."""
    number = found.as_int if found.WhichOneof("value") == "as_int" else found.as_double
    labels = []
    if found.trace_id:
        labels.append(("trace_id", found.trace_id.hex()))
    if found.span_id:
        labels.append(("span_id", found.span_id.hex()))
    return Exemplar(labels, number, found.time_unix_nano / 1e9 if found.time_unix_nano else None)
