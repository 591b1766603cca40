"""
Lines -> samples: which series a line belongs to, and its number.

A series is the sorted tuple of its labels. Where the aggregation around a range keeps only some
labels and adds (`sum by (x) (count_over_time(...))`), those are the series from the start: memory
follows the answer, not the lines. And where it keeps none, parsers that nobody needs are left out,
so that a line that is no JSON does not fail a count of lines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from collector.query.logql import tree, units
from collector.query.logql.errors import PipelineError
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.line import DETAILS, ERROR, Line
from collector.query.logql.evaluation.source import Source
from collector.query.logql.evaluation.stages import Step, label_test, pipeline
from collector.stores.base import Document

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""The labels of a series, sorted by name."""

ADDITIVE: Final = frozenset(
    {
        "rate",
        "count_over_time",
        "bytes_rate",
        "bytes_over_time",
        "sum_over_time",
    }
)
"""Range aggregations whose sum over series is the same aggregation over all their lines."""


@dataclass(slots=True, frozen=True)
class Sample:
    """One number of a series, at a time in nanoseconds."""

    time: int
    labels: Labels
    value: float


def grouped(labels: dict[str, str], grouping: tree.Grouping | None) -> Labels:
    """The labels of a series that a grouping leaves, sorted; all of them without one."""
    if grouping is None:
        return tuple(sorted(labels.items()))
    if grouping.without:
        gone = set(grouping.labels)
        return tuple(sorted((name, value) for name, value in labels.items() if name not in gone))
    return tuple(sorted((name, labels[name]) for name in set(grouping.labels) if name in labels))


class Samples:
    """
    The samples of one range aggregation.

    Args:
        aggregation: its tree.
        outer: the grouping of a `sum` directly around it.
        summed: whether there is a `sum` directly around it.
    """

    def __init__(
        self,
        aggregation: tree.RangeAggregation,
        *,
        outer: tree.Grouping | None = None,
        summed: bool = False,
    ) -> None:
        window = aggregation.window
        self._query = window.query
        self._unwrap = window.unwrap
        self._bytes = aggregation.op.startswith("bytes")
        self._grouping = aggregation.grouping
        if summed and aggregation.grouping is None:
            self._grouping = outer or tree.Grouping(without=False, labels=())
        by = self._grouping if self._grouping and not self._grouping.without else None
        self._kept = sorted(set(by.labels)) if by is not None else None
        nothing_kept = self._grouping == tree.Grouping(without=False, labels=())
        skip = nothing_kept and summed and self._unwrap is None and not _reads_labels(window.query)
        self._pipeline = pipeline(window.query, skip_parsers=skip)
        self._convert = _CONVERT[self._unwrap.convert if self._unwrap else ""]
        filters = self._unwrap.filters if self._unwrap else ()
        self._filters: tuple[Step, ...] = tuple(label_test(found) for found in filters)

    def read(self, source: Source, since: int, until: int, budget: Budget) -> Iterator[Sample]:
        """
        The samples of a time, oldest first.

        Args:
            source: where documents are.
            since: earliest time, exclusive.
            until: latest time, inclusive.
            budget: counts the documents.

        Raises:
            PipelineError: a line that a stage failed on is still there.
        """
        documents = source.documents(self._query, since + 1, until + 1, newest_first=False)
        for document in budget.reading(documents):
            sample = self._sample(document)
            if sample is not None:
                yield sample

    def _sample(self, document: Document) -> Sample | None:
        line = self._pipeline(document)
        if line is None:
            return None
        value: float = 1.0
        if self._unwrap is not None:
            text = line.get(self._unwrap.label)
            if not text:
                return None
            number = self._convert(text)
            if number is None:
                line.fail("SampleExtractionErr", f"{self._unwrap.label} is no number: {text[:80]}")
            if not all(test(line) for test in self._filters):
                return None
            if number is None and not line.failed:
                return None  # the mark was dropped, but there is still no number
            value = number or 0.0
        elif self._bytes:
            value = float(len(line.text.encode()))
        if line.failed:
            raise PipelineError(_refusal(line))
        return Sample(line.time, self._series(line), value)

    def _series(self, line: Line) -> Labels:
        """The labels of the series that a line belongs to."""
        unwrapped = self._unwrap.label if self._unwrap is not None else ""
        if self._kept is not None:
            found = ((name, line.get(name)) for name in self._kept if name != unwrapped)
            return tuple((name, value) for name, value in found if value is not None)
        labels = line.all()
        labels.pop(ERROR, None)
        labels.pop(unwrapped, None)
        return grouped(labels, self._grouping)


def _refusal(line: Line) -> str:
    error = line.get(ERROR) or ""
    details = line.get(DETAILS)
    because = f" ({details})" if details else ""
    service = line.get("service_name")
    return (
        f"pipeline error: '{error}'{because} for a series of service_name=\"{service}\" at "
        f'{line.time}; to leave such lines out, write | __error__="" behind the stage (or behind '
        "unwrap)"
    )


def _reads_labels(query: tree.LogQuery) -> bool:
    """Whether a stage needs labels that a parser could have found."""
    plain = (tree.LineFilter, tree.Drop, tree.Keep, tree.Decolorize, tree.Unpack)
    parsers = (tree.Json, tree.Logfmt, tree.Regexp, tree.Pattern)
    return any(not isinstance(stage, plain + parsers) for stage in query.stages)


def _seconds(text: str) -> float | None:
    found = units.duration(text)
    return None if found is None else found / 1e9


def _size(text: str) -> float | None:
    found = units.size(text)
    return None if found is None else float(found)


_CONVERT: Final[dict[str, Callable[[str], float | None]]] = {
    "": units.number,
    "duration": _seconds,
    "duration_seconds": _seconds,
    "bytes": _size,
}
