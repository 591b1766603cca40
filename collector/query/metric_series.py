"""
`metrics/series`: the values of one metric over time, grouped by attributes, in steps.

Points of one series (same resource, scope and attributes) are put in order first, because a
cumulative counter only means something beside its point before: within each step a counter becomes
its increase, resets included, a histogram what was recorded, a gauge its last value. Then the series
of a group are joined. The newest `MOST_POINTS` points are read, page by page; what is kept of each is
small.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import msgspec

from collector.model import Signal
from collector.query.parameters import BadParameter, age_s, limit, read_pairs, time_range
from collector.query.searched import Searched
from collector.stores.base import Document, Query, Store, dumps

DEFAULT_LIMIT: Final = 50
MOST: Final = 500
"""Series of one answer."""
MOST_POINTS: Final = 100_000
"""Points that one answer is made of, the newest of the range."""
MOST_STEPS: Final = 1_000
STEPS: Final = 60
"""Steps of a range, or a few less, unless `step` is given."""

PARAMETERS: Final[dict[str, str]] = {
    "name": "The name of the metric.",
    "since": "Measured at or after: an age (15m, 1h, 7d) or an ISO 8601 time; 1h unless given.",
    "until": "Measured before: an age or a time, as for since.",
    "service": "The service equals this.",
    "where": "key=value, repeatable, as for log records.",
    "group_by": "Attributes or resource attributes that tell series apart, with commas between them; "
    "service is the service. All attributes and the service unless given.",
    "step": "How far apart the values are, like 10s or 1m; a 60th of the range unless given.",
    "limit": "How many series, those with the most points; 50 unless given.",
}
"""Every parameter of the question about values of a metric, with its help."""

_PAGE: Final = 2_000
_NICE_S: Final = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400)
_RECORDED: Final = ("histogram", "exponential_histogram", "summary")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: `query` for the store, and how values are put together."""

    query: Query
    since_unix_nano: int
    until_unix_nano: int
    step_s: float
    group_by: tuple[str, ...]
    limit: int


class Point(msgspec.Struct, kw_only=True, omit_defaults=True):
    """
    One step of a series.

    Args:
        time_unix_nano: when the step begins.
        value: see `Values.values`.
        count: how many were recorded; histograms and summaries only.
        p50, p95, p99: of what was recorded; histograms with buckets of their own only.
    """

    time_unix_nano: int
    value: float
    count: int | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A group of series: what they have in common, and its steps that have data."""

    labels: dict[str, Any]
    points: list[Point]


class Values(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The values of a metric.

    Args:
        name, type, unit, description: of the metric, as its last point says.
        step_s: how far apart values are, in seconds.
        since_unix_nano, until_unix_nano: the time range.
        values: what a value is: "last" (of gauges, the mean of a group; of sums that may fall, the
            sum of a group), "increase" (within the step) or "mean" (of what was recorded).
        series: those with the most points first.
        cut: what is missing because a limit was reached, one sentence each.
        searched: where was looked.
    """

    name: str
    type: str = ""
    unit: str = ""
    description: str = ""
    step_s: float
    since_unix_nano: int
    until_unix_nano: int
    values: str = ""
    series: list[Series] = []
    cut: list[str] = []
    searched: Searched


def question(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Question:
    """
    What (name, value) pairs ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    given, where = read_pairs(pairs, PARAMETERS)
    if "name" not in given:
        raise BadParameter("name", "write the name of a metric; GET /api/v1/metrics lists them")
    begin, end = time_range(given, now_unix_nano, "1h")
    since, until = begin or 0, now_unix_nano + 1 if end is None else end
    seconds = (until - since) / 1e9
    step_s = age_s(given, "step", _step(seconds))
    if step_s < 1:
        raise BadParameter("step", "write 1s or more")
    if seconds / step_s > MOST_STEPS:
        raise BadParameter("step", f"more than {MOST_STEPS} steps; write a longer one")
    names = [name.strip() for name in given.get("group_by", "").split(",")]
    if "group_by" in given and not all(names):
        raise BadParameter("group_by", "write names with commas between them")
    return Question(
        query=Query(
            signal=Signal.METRICS,
            name=given["name"],
            service=given.get("service"),
            where=tuple(where),
            since_unix_nano=since,
            until_unix_nano=until,
            newest_first=True,
        ),
        since_unix_nano=since,
        until_unix_nano=until,
        step_s=step_s,
        group_by=tuple(dict.fromkeys(filter(None, names))),
        limit=limit(given, DEFAULT_LIMIT, min(MOST, max_rows)),
    )


def _step(seconds: float) -> float:
    wanted = int(seconds) / STEPS
    days = math.ceil(wanted / 86_400) * 86_400
    return float(next((each for each in _NICE_S if each >= wanted), days))


async def series(store: Store, asked: Question) -> Values:
    """The values of a metric."""
    groups = _Groups(asked)
    query, read = asked.query, 0
    while True:
        page = await store.find(msgspec.structs.replace(query, limit=_PAGE))
        await asyncio.to_thread(groups.take, page)
        read += len(page)
        if len(page) < _PAGE or read >= MOST_POINTS:
            break
        last = page[-1]["time_unix_nano"]
        query = msgspec.structs.replace(
            query, until_unix_nano=last + 1, after=(last, page[-1]["_id"])
        )
    return await asyncio.to_thread(groups.answer, store.describe(), complete=len(page) < _PAGE)


@dataclass(slots=True, frozen=True)
class _Sample:
    """What is kept of a point."""

    time: int
    start: int
    value: float
    count: int = 0
    buckets: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()

    def since(self, before: "_Sample") -> "_Sample":
        """What came on top of a cumulative point; all of it when the counter began anew."""
        falls = (
            self.count < before.count if self.count or before.count else self.value < before.value
        )
        if falls or self.start > before.start or self.bounds != before.bounds:
            return self
        buckets = tuple(a - b for a, b in zip(self.buckets, before.buckets, strict=False))
        return _Sample(
            self.time, self.start, self.value - before.value, self.count - before.count,
            buckets, self.bounds,
        )  # fmt: skip


class _Groups:
    """The series by the group that they belong to."""

    def __init__(self, asked: Question) -> None:
        self._asked = asked
        self._newest: Document = {}
        self._labels: dict[bytes, dict[str, Any]] = {}
        self._samples: dict[bytes, dict[bytes, list[_Sample]]] = {}

    def take(self, page: Sequence[Document]) -> None:
        """Keep what is needed of some points, the newest first."""
        if page and not self._newest:
            self._newest = page[0]
        for point in page:
            if point.get("type") != self._newest.get("type"):
                continue  # the metric was another one then
            sample = _sample(point)
            if sample is None:
                continue
            labels = _labels(point, self._asked.group_by)
            group = dumps(labels, ordered=True)
            self._labels.setdefault(group, labels)
            one = [point.get(part) for part in ("service", "resource", "scope", "attributes")]
            own = self._samples.setdefault(group, {})
            own.setdefault(dumps(one, ordered=True), []).append(sample)

    def answer(self, where: str, *, complete: bool) -> Values:
        """The series of every group."""
        asked, newest = self._asked, self._newest
        kind = newest.get("type", "")
        delta = newest.get("temporality") == "delta"
        rises = bool(newest.get("monotonic")) or delta
        values = "mean" if kind in _RECORDED else "increase" if kind == "sum" and rises else "last"
        found = []
        for group, each in self._samples.items():
            steps: dict[int, list[_Sample]] = {}
            for samples in each.values():
                for start, sample in self._stepped(samples, values, delta=delta):
                    steps.setdefault(start, []).append(sample)
            points = [_joined(at, steps[at], values, kind) for at in sorted(steps)]
            if points:
                found.append(Series(labels=self._labels[group], points=points))
        found.sort(key=lambda one: (-len(one.points), dumps(one.labels, ordered=True)))
        cut = []
        if not complete:
            cut.append(f"the newest {MOST_POINTS} points were read; shorten the time range")
        if len(found) > asked.limit:
            cut.append(f"{len(found)} series; those with the most points are shown, use group_by")
        return Values(
            name=asked.query.name or "",
            type=kind,
            unit=newest.get("unit", ""),
            description=newest.get("description", ""),
            step_s=asked.step_s,
            since_unix_nano=asked.since_unix_nano,
            until_unix_nano=asked.until_unix_nano,
            values=values if newest else "",
            series=found[: asked.limit],
            cut=cut,
            searched=Searched(store=where),
        )

    def _stepped(
        self, samples: list[_Sample], values: str, *, delta: bool
    ) -> Iterable[tuple[int, _Sample]]:
        """One series as one sample for each step."""
        samples.sort(key=lambda sample: sample.time)
        if values != "last" and not delta:
            samples = self._differences(samples)
        step = int(self._asked.step_s * 1e9)
        for start, some in groupby(samples, key=lambda sample: sample.time // step * step):
            within = list(some)
            yield start, within[-1] if values == "last" else _sum(within)

    def _differences(self, samples: Sequence[_Sample]) -> list[_Sample]:
        """What each cumulative point adds; the first one only counts when it began in the range."""
        found = []
        for at, sample in enumerate(samples):
            if at:
                found.append(sample.since(samples[at - 1]))
            elif sample.start >= self._asked.since_unix_nano:
                found.append(sample)
        return found


def _sample(point: Document) -> _Sample | None:
    """What is kept of a point; None for one without a value that can be drawn."""
    time, start = point["time_unix_nano"], point.get("start_unix_nano", 0)
    if point.get("type") in _RECORDED:
        total, count = point.get("sum", 0.0), point.get("count", 0)
        if not math.isfinite(total):
            return None
        return _Sample(
            time, start, total, count,
            tuple(point.get("bucket_counts", ())), tuple(point.get("explicit_bounds", ())),
        )  # fmt: skip
    value = point.get("value")
    return None if value is None or not math.isfinite(value) else _Sample(time, start, value)


def _labels(point: Document, group_by: Sequence[str]) -> dict[str, Any]:
    attributes, resource = point.get("attributes", {}), point.get("resource", {})
    if not group_by:
        return {"service": point["service"], **attributes}
    found = {}
    for name in group_by:
        if name == "service":
            found[name] = point["service"]
        elif name in attributes or name in resource:
            found[name] = attributes.get(name, resource.get(name))
    return found


def _sum(samples: Sequence[_Sample]) -> _Sample:
    """Samples that add up; buckets only when all have the same."""
    last = samples[-1]
    buckets: tuple[int, ...] = ()
    if all(each.bounds == last.bounds for each in samples):
        buckets = tuple(map(sum, zip(*(each.buckets for each in samples), strict=False)))
    return _Sample(
        last.time, last.start, sum(each.value for each in samples),
        sum(each.count for each in samples), buckets, last.bounds if buckets else (),
    )  # fmt: skip


def _joined(at: int, samples: Sequence[_Sample], values: str, kind: str) -> Point:
    """One step of a group of series."""
    total = _sum(samples)
    if values != "mean":
        mean = values == "last" and kind == "gauge"
        return Point(time_unix_nano=at, value=total.value / (len(samples) if mean else 1))
    point = Point(
        time_unix_nano=at,
        value=total.value / total.count if total.count else 0.0,
        count=total.count,
    )
    if total.bounds and sum(total.buckets) > 0:
        point.p50, point.p95, point.p99 = (
            _quantile(total.buckets, total.bounds, share) for share in (0.5, 0.95, 0.99)
        )
    return point


def _quantile(buckets: Sequence[int], bounds: Sequence[float], share: float) -> float:
    """A quantile from buckets: linear within one; in the last, which has no end, its beginning."""
    rank, below = share * sum(buckets), 0
    for at, count in enumerate(buckets):
        if count and below + count >= rank:
            if at >= len(bounds):
                break
            low = bounds[at - 1] if at else min(0.0, bounds[0])
            return low + (bounds[at] - low) * (rank - below) / count
        below += count
    return bounds[-1]
