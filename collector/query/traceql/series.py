"""
Numbers over time: intervals, what is kept of each, and series of them.

An interval is what lies behind one multiple of the step and up to the next; it is called after its
right end. What is kept of an interval is small and independent of how many spans fall into it
(`Kept`), and only intervals with spans are kept at all. Quantiles come from power-of-two buckets
with exponential interpolation, so that they agree with the histogram of the same spans.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.values import Value

MAX_INTERVALS: Final = 11_000
"""Intervals of one query."""

_SECOND: Final = 1_000_000_000
_STEPS: Final = tuple(seconds * _SECOND for seconds in (3600, 300, 60, 15, 5, 1))


@dataclass(slots=True, frozen=True)
class Intervals:
    """
    The intervals of a query over time; all times in nanoseconds.

    Args:
        first: right end of the first interval.
        step: length of each.
        count: how many.
    """

    first: int
    step: int
    count: int

    @property
    def after(self) -> int:
        """Where the first interval begins; a span that starts then is not in it."""
        return self.first - self.step

    @property
    def last(self) -> int:
        """Where the last interval ends; a span that starts then is in it."""
        return self.first + (self.count - 1) * self.step

    def place(self, start: int) -> int | None:
        """In which interval a span counts that starts then, None for none."""
        place = -(-(start - self.first) // self.step)
        return place if 0 <= place < self.count else None

    def end(self, place: int) -> int:
        """The right end of an interval."""
        return self.first + place * self.step


def default_step(start: int, end: int) -> int:
    """The step for a range without one: 1/240 of it, rounded down to something round."""
    part = (end - start) // 240
    for unit in _STEPS:
        if part >= unit:
            return part - part % unit
    return _SECOND if end - start >= 60 * _SECOND else max(50_000_000, part - part % 50_000_000)


def over_range(start: int, end: int, step: int) -> Intervals:
    """
    The intervals of a range: its ends go to multiples of the step, with one interval in front.

    Args:
        start: of the range.
        end: of the range.
        step: length of an interval, more than 0.

    Raises:
        LimitExceeded: there are more than `MAX_INTERVALS`.
    """
    first = start // step * step
    count = -(-end // step) - first // step + 1
    if count > MAX_INTERVALS:
        raise LimitExceeded(
            f"{count} steps in this range are more than {MAX_INTERVALS}; raise step"
        )
    return Intervals(first, step, count)


def instant(start: int, end: int) -> Intervals:
    """The one interval of a query for a single number."""
    return Intervals(end, end - start, 1)


def bucket(value: float) -> float | None:
    """The power of two that a value counts under, None for values that do not count (below 2)."""
    if not 2 <= value < 2.0**1000:
        return None
    fraction, exponent = math.frexp(value)
    return 2.0 ** (exponent - 1 if fraction == 0.5 else exponent)


def quantile(wanted: float, buckets: Sequence[tuple[float, int]]) -> float:
    """
    A quantile of what was counted in buckets.

    Args:
        wanted: from 0 to 1.
        buckets: (upper end, count), ascending, no count 0.

    Returns:
        The upper end of a bucket when it is hit exactly, else a value between two of them; 0 when
        nothing was counted.
    """
    total = sum(count for _, count in buckets)
    if not total:
        return 0.0
    rank = max(1, math.ceil(wanted * total))
    below = 0
    for place, (top, count) in enumerate(buckets):
        if below + count == rank:
            return top
        if below + count > rank:
            high = math.log2(top)
            low = math.log2(buckets[place - 1][0]) if place else high - 1
            return float(2 ** (low + (high - low) * (rank - below) / count))
        below += count
    return buckets[-1][0]


@dataclass(slots=True)
class Kept:
    """What is kept of the spans of one interval."""

    count: int = 0
    examples: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    buckets: defaultdict[float, int] | None = None

    def add(self, value: float) -> None:
        """One span's number."""
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)


@dataclass(slots=True, frozen=True)
class Exemplar:
    """One span as an example: when it started, its trace, its number (None for a count)."""

    start: int
    trace_id: str
    value: float | None


Labels = tuple[tuple[str, Value], ...]


@dataclass(slots=True)
class Series:
    """
    One series of an answer.

    Args:
        labels: in order; a value that is absent is "nil".
        samples: number by place of the interval; no sample where an interval has none.
        exemplars: some of its spans.
    """

    labels: Labels
    samples: dict[int, float]
    exemplars: list[Exemplar] = field(default_factory=list)


def spread(found: list[Exemplar], most: int) -> list[Exemplar]:
    """At most so many exemplars, spread evenly over the time."""
    if len(found) <= most:
        return found
    ordered = sorted(found, key=lambda exemplar: exemplar.start)
    return [ordered[place * len(ordered) // most] for place in range(most)]


def ranked(series: list[Series], count: int, *, top: bool) -> list[Series]:
    """In each interval only the `count` largest (or smallest) samples, and no empty series."""
    places = {place for each in series for place in each.samples}
    kept: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for place in places:
        here = [
            (each.samples[place], number)
            for number, each in enumerate(series)
            if place in each.samples and not math.isnan(each.samples[place])
        ]
        here.sort(key=lambda pair: (-pair[0] if top else pair[0], pair[1]))
        for value, number in here[:count]:
            kept[number][place] = value
    return [
        Series(each.labels, kept[number], each.exemplars)
        for number, each in enumerate(series)
        if kept.get(number)
    ]
