"""
Range aggregations: samples in the order of time -> one vector for each evaluation time.

A sample is inside the windows of consecutive evaluation times, from the first that is not before it
to the last whose window still reaches back to it. Samples that are inside now and leave the window
together are never apart again, so they are merged into one cell as they come: a window holds
one cell for each step that it covers, however many lines there are. Only quantiles and counters
keep the numbers themselves.
"""

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from collector.query.logql import tree
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.samples import Labels, Sample

Vector = dict[Labels, float]

_SERIES_BYTES: Final = 400
_LABEL_BYTES: Final = 120
_CELL_BYTES: Final = 350
_NUMBER_BYTES: Final = 24
_NEEDS_NUMBERS: Final = frozenset({"quantile_over_time", "rate_counter"})


class Times:
    """
    The evaluation times of a query.

    Args:
        start: of the first, nanoseconds.
        step: between two, nanoseconds.
        count: how many.
    """

    __slots__ = ("count", "start", "step")

    def __init__(self, start: int, step: int, count: int) -> None:
        self.start = start
        self.step = step
        self.count = count

    def at(self, index: int) -> int:
        """The time of one."""
        return self.start + index * self.step


class _Cell:
    """The samples of a series that leave the window together, merged."""

    __slots__ = (
        "count",
        "first",
        "last",
        "leaves",
        "m2",
        "max",
        "mean",
        "min",
        "numbers",
        "sum",
        "times",
    )

    def __init__(self, leaves: int, *, keeps: bool) -> None:
        self.leaves = leaves
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf
        self.first = math.nan
        self.last = math.nan
        self.mean = 0.0
        self.m2 = 0.0
        self.numbers: array[float] | None = array("d") if keeps else None
        self.times: array[int] | None = array("Q") if keeps else None

    def add(self, time: int, value: float) -> None:
        if not self.count:
            self.first = value
        self.count += 1
        self.sum += value
        self.last = value
        if value < self.min or math.isnan(self.min):
            self.min = value
        if value > self.max or math.isnan(self.max):
            self.max = value
        delta = value - self.mean
        self.mean += delta / self.count
        self.m2 += delta * (value - self.mean)
        if self.numbers is not None and self.times is not None:
            self.numbers.append(value)
            self.times.append(time)


Cells = deque[_Cell]


def windows(
    aggregation: tree.RangeAggregation,
    samples: Iterator[Sample],
    times: Times,
    budget: Budget,
) -> Iterator[Vector]:
    """
    The vector of a range aggregation at each evaluation time, in order.

    Args:
        aggregation: its tree.
        samples: of the whole time, oldest first.
        times: when it is evaluated.
        budget: counts the memory of the windows.

    Raises:
        LimitError: the windows hold too much.
    """
    window = aggregation.window
    measure = _measure(aggregation)
    keeps = aggregation.op in _NEEDS_NUMBERS
    series: dict[Labels, Cells] = {}
    pending: Sample | None = next(samples, None)
    for index in range(times.count):
        if index % 100 == 0:
            budget.check()
        end = times.at(index) - window.offset
        while pending is not None and pending.time <= end:
            reach = pending.time + window.window + window.offset - times.start
            leaves = -(-reach // times.step)
            if leaves > index:
                _add(series, pending, leaves, keeps=keeps, budget=budget)
            pending = next(samples, None)
        vector: Vector = {}
        for labels in list(series):
            cells = series[labels]
            while cells and cells[0].leaves <= index:
                gone = cells.popleft()
                budget.keep(-_size(gone))
            if cells:
                vector[labels] = measure(cells, end)
            else:
                del series[labels]
                budget.keep(-_series_size(labels))
        yield vector


def _add(
    series: dict[Labels, Cells],
    sample: Sample,
    leaves: int,
    *,
    keeps: bool,
    budget: Budget,
) -> None:
    cells = series.get(sample.labels)
    if cells is None:
        cells = series[sample.labels] = deque()
        budget.keep(_series_size(sample.labels))
    if not cells or cells[-1].leaves != leaves:
        cells.append(_Cell(leaves, keeps=keeps))
        budget.keep(_CELL_BYTES)
    cells[-1].add(sample.time, sample.value)
    if keeps:
        budget.keep(_NUMBER_BYTES)


def _series_size(labels: Labels) -> int:
    return _SERIES_BYTES + sum(_LABEL_BYTES + len(value) for _, value in labels)


def _size(cell: _Cell) -> int:
    return _CELL_BYTES + (_NUMBER_BYTES * cell.count if cell.numbers is not None else 0)


def _measure(aggregation: tree.RangeAggregation) -> Callable[[Cells, int], float]:
    """What a window of cells is worth."""
    op = aggregation.op
    seconds = aggregation.window.window / 1e9
    if op in ("rate", "bytes_rate"):
        return lambda cells, _: sum(cell.sum for cell in cells) / seconds
    if op == "rate_counter":
        window = aggregation.window.window
        return lambda cells, end: _counter_rate(cells, end, window)
    if op == "quantile_over_time":
        quantile = aggregation.parameter or 0.0
        return lambda cells, _: _quantile(quantile, cells)
    return _MEASURES[op]


def _variance(cells: Cells) -> float:
    """The population variance, merged cell by cell."""
    count, mean, m2 = 0, 0.0, 0.0
    for cell in cells:
        total = count + cell.count
        delta = cell.mean - mean
        mean += delta * cell.count / total
        m2 += cell.m2 + delta * delta * count * cell.count / total
        count = total
    return m2 / count


def _average(cells: Cells) -> float:
    return sum(cell.sum for cell in cells) / sum(cell.count for cell in cells)


_MEASURES: Final[dict[str, Callable[[Cells, int], float]]] = {
    "count_over_time": lambda cells, _: float(sum(cell.count for cell in cells)),
    "bytes_over_time": lambda cells, _: sum(cell.sum for cell in cells),
    "sum_over_time": lambda cells, _: sum(cell.sum for cell in cells),
    "avg_over_time": lambda cells, _: _average(cells),
    "min_over_time": lambda cells, _: min(cell.min for cell in cells),
    "max_over_time": lambda cells, _: max(cell.max for cell in cells),
    "first_over_time": lambda cells, _: cells[0].first,
    "last_over_time": lambda cells, _: cells[-1].last,
    "stdvar_over_time": lambda cells, _: _variance(cells),
    "stddev_over_time": lambda cells, _: math.sqrt(_variance(cells)),
    "absent_over_time": lambda _cells, _end: 1.0,
}


def _quantile(quantile: float, cells: Cells) -> float:
    """Between the two nearest of the sorted numbers, in proportion."""
    if math.isnan(quantile):
        return math.nan
    if quantile < 0:
        return -math.inf
    if quantile > 1:
        return math.inf
    numbers = sorted(number for cell in cells for number in cell.numbers or ())
    rank = quantile * (len(numbers) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(numbers) - 1)
    weight = rank - low
    return numbers[low] * (1 - weight) + numbers[high] * weight


def _counter_rate(cells: Cells, end: int, window: int) -> float:
    """The rate of a counter that may start again at 0, extrapolated to the edges as in PromQL."""
    times = [time for cell in cells for time in cell.times or ()]
    numbers = [number for cell in cells for number in cell.numbers or ()]
    if len(numbers) < 2:
        return 0.0
    total = numbers[-1] - numbers[0]
    for before, after in pairwise(numbers):
        if after < before:
            total += before
    sampled = (times[-1] - times[0]) / 1e9
    if sampled <= 0:
        return 0.0
    to_start = (times[0] - (end - window)) / 1e9
    to_end = (end - times[-1]) / 1e9
    average = sampled / (len(numbers) - 1)
    if total > 0 and numbers[0] >= 0:
        to_start = min(to_start, sampled * numbers[0] / total)
    near = average * 1.1
    reach = sampled
    reach += to_start if to_start < near else average / 2
    reach += to_end if to_end < near else average / 2
    return total * (reach / sampled) / (window / 1e9)
