"""Vector aggregations: the series of one evaluation time -> fewer series."""

import math
from collections.abc import Callable
from typing import Final

from collector.query.logql import tree
from collector.query.logql.evaluation.samples import Labels, grouped
from collector.query.logql.evaluation.windows import Vector

Change = Callable[[Vector], Vector]
_MEMORY: Final = 10_000


def memoised(key: Callable[[Labels], Labels]) -> Callable[[Labels], Labels]:
    """The same function of a series' labels, remembered: series come again at each step."""
    known: dict[Labels, Labels] = {}

    def remembered(labels: Labels) -> Labels:
        found = known.get(labels)
        if found is None:
            if len(known) >= _MEMORY:
                known.clear()
            found = known[labels] = key(labels)
        return found

    return remembered


def aggregation(found: tree.VectorAggregation) -> Change:
    """What an aggregation makes of the series of one time."""
    if found.op in ("sort", "sort_desc"):
        return lambda vector: dict(ranked(vector, largest=found.op == "sort_desc"))
    grouping = found.grouping or tree.Grouping(without=False, labels=())
    key = memoised(lambda labels: grouped(dict(labels), grouping))
    if found.parameter is not None:
        count, largest = found.parameter, found.op != "bottomk"

        def choose(vector: Vector) -> Vector:
            groups: dict[Labels, Vector] = {}
            for labels, value in vector.items():
                groups.setdefault(key(labels), {})[labels] = value
            return {
                labels: value
                for group in groups.values()
                for labels, value in ranked(group, largest=largest)[:count]
            }

        return choose
    measure = _MEASURES[found.op]

    def gather(vector: Vector) -> Vector:
        values: dict[Labels, list[float]] = {}
        for labels, value in vector.items():
            values.setdefault(key(labels), []).append(value)
        return {labels: measure(numbers) for labels, numbers in values.items()}

    return gather


def ranked(vector: Vector, *, largest: bool) -> list[tuple[Labels, float]]:
    """The series by value, NaN last, ties by labels."""

    def place(item: tuple[Labels, float]) -> tuple[bool, float, Labels]:
        labels, value = item
        return (
            math.isnan(value),
            0.0 if math.isnan(value) else (-value if largest else value),
            labels,
        )

    return sorted(vector.items(), key=place)


def _variance(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


_MEASURES: Final[dict[str, Callable[[list[float]], float]]] = {
    "sum": sum,
    "avg": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
    "count": lambda values: float(len(values)),
    "stdvar": _variance,
    "stddev": lambda values: math.sqrt(_variance(values)),
}
