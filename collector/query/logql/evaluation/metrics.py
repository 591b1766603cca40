"""
Metric queries: a tree -> series of numbers.

Each node of the tree becomes a generator with one vector for each evaluation time; a parent pulls
from its children step by step. So no node ever holds more than one time of its own, except range
aggregations, which hold their windows, and the answer. Ranges are read oldest first, each by a
cursor of its own.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from collector.query.logql import regex, tree
from collector.query.logql.errors import LimitError, PipelineError, QueryError
from collector.query.logql.evaluation import operations, vectors
from collector.query.logql.evaluation.budget import POINTS, Budget
from collector.query.logql.evaluation.samples import ADDITIVE, Labels, Samples
from collector.query.logql.evaluation.source import Source
from collector.query.logql.evaluation.windows import Times, Vector, windows
from collector.query.logql.template_functions import expanded

_POINT_BYTES: Final = 16
_SERIES_BYTES: Final = 1000


@dataclass(slots=True)
class Series:
    """
    One series of an answer.

    Args:
        labels: sorted by name.
        times: nanoseconds, in order.
        values: one for each time.
    """

    labels: dict[str, str]
    times: "array[int]" = field(default_factory=lambda: array("Q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


def evaluate_range(
    query: tree.Metric,
    source: Source,
    *,
    start: int,
    end: int,
    step: int,
    budget: Budget | None = None,
) -> list[Series]:
    """
    The series of a metric query over a time.

    Args:
        query: its tree.
        source: where documents are.
        start: first evaluation time in nanoseconds; moved down to a multiple of `step`.
        end: last evaluation time, inclusive; moved up to a multiple of `step`.
        step: between two evaluation times.
        budget: what the query may use.

    Raises:
        QueryError: the times make no sense, a stage failed, series cannot be matched.
        LimitError: the query needs more than its budget.
    """
    if step <= 0:
        raise QueryError("step: must be longer than 0")
    if end < start:
        raise QueryError("end: lies before start")
    first = start // step * step
    count = -(-end // step) - first // step + 1
    if count > POINTS:
        raise QueryError(
            f"step: {count} points for each series are more than {POINTS}; choose a larger step or a "
            "shorter time range"
        )
    return _series(query, source, Times(first, step, count), budget or Budget())


def evaluate_at(
    query: tree.Metric, source: Source, *, time: int, budget: Budget | None = None
) -> list[Series] | float:
    """
    The series of a metric query at one time, in the order of `sort`; a number for a number.

    Args:
        query: its tree.
        source: where documents are.
        time: nanoseconds.
        budget: what the query may use.

    Raises:
        QueryError: a stage failed, series cannot be matched.
        LimitError: the query needs more than its budget.
    """
    number = constant(query)
    if number is not None:
        return number
    return _series(query, source, Times(time, 1, 1), budget or Budget())


def constant(query: tree.Metric) -> float | None:
    """The value of an expression that consists of numbers only, else None."""
    if isinstance(query, tree.Scalar):
        return query.value
    if not isinstance(query, tree.Binary):
        return None
    left = constant(query.left)
    right = constant(query.right) if left is not None else None
    if left is None or right is None:
        return None
    return operations.numbers(query.op, left, right)


def _series(query: tree.Metric, source: Source, times: Times, budget: Budget) -> list[Series]:
    number = constant(query)
    found: dict[Labels, Series] = {}
    if number is not None:
        query = tree.Vector(number)
    for index, vector in enumerate(_Evaluation(source, times, budget).vectors(query)):
        time = times.at(index)
        for labels, value in vector.items():
            series = found.get(labels)
            if series is None:
                if len(found) >= budget.series:
                    raise LimitError(
                        f"maximum number of series ({budget.series}) reached for a single query; "
                        "group it, like sum by (service_name) (...), or narrow the selector down"
                    )
                budget.keep(_SERIES_BYTES + sum(2 * len(text) for _, text in labels))
                series = found[labels] = Series(dict(labels))
            budget.keep(_POINT_BYTES)
            series.times.append(time)
            series.values.append(value)
    return list(found.values())


class _Evaluation:
    """The generators of one query."""

    def __init__(self, source: Source, times: Times, budget: Budget) -> None:
        self._source = source
        self._times = times
        self._budget = budget

    def vectors(self, query: tree.Metric) -> Iterator[Vector]:
        """One vector for each evaluation time."""
        match query:
            case tree.Scalar() | tree.Vector():
                return self._constant(query.value)
            case tree.RangeAggregation():
                if query.op == "absent_over_time":
                    return self._absent(query)
                return self._range(query, Samples(query))
            case tree.VectorAggregation():
                return self._aggregation(query)
            case tree.LabelReplace():
                return self._label_replace(query)
            case tree.Binary():
                return self._binary(query)

    def _constant(self, value: float) -> Iterator[Vector]:
        for _ in range(self._times.count):
            yield {(): value}

    def _range(self, query: tree.RangeAggregation, samples: Samples) -> Iterator[Vector]:
        window, times = query.window, self._times
        since = times.start - window.offset - window.window
        until = times.at(times.count - 1) - window.offset
        found = samples.read(self._source, since, until, self._budget)
        return windows(query, found, times, self._budget)

    def _absent(self, query: tree.RangeAggregation) -> Iterator[Vector]:
        names = [matcher.name for matcher in query.window.query.matchers]
        labels = tuple(
            sorted(
                (matcher.name, matcher.value)
                for matcher in query.window.query.matchers
                if matcher.op == "=" and matcher.value and names.count(matcher.name) == 1
            )
        )
        # Which series were there does not matter, only whether there was one.
        for vector in self._range(query, Samples(query, summed=True)):
            yield {} if vector else {labels: 1.0}

    def _aggregation(self, query: tree.VectorAggregation) -> Iterator[Vector]:
        of = query.of
        if query.op == "sum" and isinstance(of, tree.RangeAggregation) and of.op in ADDITIVE:
            inner = self._range(of, Samples(of, outer=query.grouping, summed=True))
        else:
            inner = self.vectors(of)
        return map(vectors.aggregation(query), inner)

    def _label_replace(self, query: tree.LabelReplace) -> Iterator[Vector]:
        match = regex.compiled(query.expression).fullmatch

        def replaced(labels: Labels) -> Labels:
            fields = dict(labels)
            found = match(fields.get(query.source, ""))
            if found is None:
                return labels
            value = expanded(query.replacement, found)
            fields.pop(query.target, None)
            if value:
                fields[query.target] = value
            return tuple(sorted(fields.items()))

        name = vectors.memoised(replaced)
        for vector in self.vectors(query.of):
            result: Vector = {}
            for labels, value in vector.items():
                made = name(labels)
                if made in result:
                    raise PipelineError("label_replace makes one series of several")
                result[made] = value
            yield result

    def _binary(self, query: tree.Binary) -> Iterator[Vector]:
        left, right = constant(query.left), constant(query.right)
        if left is not None and right is not None:
            return self._constant(operations.numbers(query.op, left, right))
        if left is not None:
            change = operations.with_number(query, left, on_left=True)
            return map(change, self.vectors(query.right))
        if right is not None:
            change = operations.with_number(query, right, on_left=False)
            return map(change, self.vectors(query.left))
        return map(operations.between(query), self.vectors(query.left), self.vectors(query.right))
