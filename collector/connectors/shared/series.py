"""
Sums and histograms in memory, and how they become OTLP metrics.

A `Table` is one metric: a bounded map from attributes to a series. When it is full, what has no
series of its own is counted in one with the attribute `otel.metric.overflow`, as the OpenTelemetry
SDKs do, so that totals stay right whatever names a client makes up.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from collector.model import Duration
from collector.otlp import attribute_text

BUCKETS: Final = tuple(
    Duration(millis / 1000)
    for millis in (2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000)
)
"""The OpenTelemetry Collector's bounds of durations."""
CUMULATIVE: Final = 2
DELTA: Final = 1
OVERFLOW: Final[tuple[tuple[str, Any], ...]] = (("otel.metric.overflow", True),)

Key = tuple[tuple[str, Any], ...]
"""The attributes of a series."""
Exemplar = tuple[float, int, bytes, bytes]
"""Value, time, trace id, span id."""


@dataclass(slots=True)
class Series:
    """One series: how often, how much in all, and how it is spread."""

    start: int
    last: int
    count: int = 0
    total: float = 0.0
    buckets: list[int] = field(default_factory=list)
    exemplars: deque[Exemplar] | None = None


class Table:
    """
    One metric.

    Args:
        bounds: of a histogram, None for a sum.
        limit: how many series there may be.
        exemplars: how many examples a series keeps between two flushes.
    """

    def __init__(
        self, bounds: Sequence[float] | None = None, limit: int = 1000, exemplars: int = 0
    ) -> None:
        self.bounds = bounds
        self.limit = limit
        self.exemplars = exemplars
        self.series: dict[Key, Series] = {}
        self.overflowed = 0
        """Values that were counted in the overflow series."""

    def add(self, key: Key, now: int, value: float = 1.0, example: Exemplar | None = None) -> None:
        """Count one value."""
        series = self.series.get(key)
        if series is None:
            if len(self.series) >= self.limit and key != OVERFLOW:
                self.overflowed += 1
                self.add(OVERFLOW, now, value, example)
                return
            series = self.series[key] = Series(now, now)
            if self.bounds is not None:
                series.buckets = [0] * (len(self.bounds) + 1)
            if self.exemplars:
                series.exemplars = deque(maxlen=self.exemplars)
        series.last = now
        series.count += 1
        series.total += value
        if self.bounds is not None:
            series.buckets[bisect_left(self.bounds, value)] += 1
        if example is not None and series.exemplars is not None:
            series.exemplars.append(example)

    def expire(self, before: int) -> None:
        """Forget series without news since then."""
        for key in [key for key, each in self.series.items() if each.last < before]:
            del self.series[key]

    def write(self, metric: Any, now: int, temporality: int) -> None:
        """Fill the data of a metric; the series start anew when the values are differences."""
        data = metric.sum if self.bounds is None else metric.histogram
        data.aggregation_temporality = temporality
        if self.bounds is None:
            data.is_monotonic = True
        for key, series in self.series.items():
            point = data.data_points.add(start_time_unix_nano=series.start, time_unix_nano=now)
            put(point.attributes, key)
            if self.bounds is None:
                point.as_int = series.count
            else:
                point.count = series.count
                point.sum = series.total
                point.explicit_bounds.extend(self.bounds)
                point.bucket_counts.extend(series.buckets)
            for value, time, trace_id, span_id in series.exemplars or ():
                point.exemplars.add(
                    as_double=value, time_unix_nano=time, trace_id=trace_id, span_id=span_id
                )
            if series.exemplars is not None:
                series.exemplars.clear()
        if temporality == DELTA:
            self.series.clear()


def put(attributes: Any, pairs: Sequence[tuple[str, Any]]) -> None:
    """Append attributes to a protobuf list."""
    for key, value in pairs:
        pair = attributes.add(key=key)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        else:
            pair.value.string_value = value


def plain(value: Any) -> Any:
    """An AnyValue as a plain scalar that can be part of a key; lists, maps and bytes as text."""
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        return getattr(value, kind)
    return attribute_text(value)[:1024]


def attributes_of(owner: Any) -> dict[str, Any]:
    """The attributes of a message as plain scalars; of a repeated key the last one counts."""
    return {pair.key: plain(pair.value) for pair in owner.attributes}


def pick(
    names: Sequence[tuple[str, str | None]], *owners: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Attributes by name, from the first owner that has them, else their default if there is one."""
    for name, default in names:
        value = next((owner[name] for owner in owners if name in owner), default)
        if value is not None:
            yield name, value
