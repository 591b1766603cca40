"""
`compare({ selection }, top)`: which values are more frequent among selected spans than elsewhere.

Each span counts once per attribute in one of two groups, selection and baseline. The answer has,
per attribute, the `top` most frequent values of each group as series and one series with the total
of the group. Values of one attribute are kept up to a bound; what comes behind it is not counted
and reported as `__too_many_values__`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from collector.query.traceql import printer
from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.evaluate import condition
from collector.query.traceql.series import Intervals, Labels, Series
from collector.query.traceql.spansets import identity
from collector.query.traceql.tree import Attribute, Compare
from collector.query.traceql.values import INTRINSIC, Value, Word
from collector.query.traceql.view import Span
from telemetry.attributes import CONTEXT

MAX_VALUES: Final = 1000
"""Different values of one attribute in one group."""
MAX_CELLS: Final = 50_000
"""Intervals of all values together."""
MAX_TEXT: Final = 256
"""Characters of a value; longer ones are no labels."""

_INTRINSICS: Final = ("name", "kind", "status", "statusMessage", "rootName", "rootServiceName")
_ATTRIBUTE_OF: Final = {key: name for name, key in CONTEXT.items()}


class Comparison:
    """Takes the spans of a query with `compare`."""

    def __init__(self, compare: Compare, intervals: Intervals) -> None:
        self._compare = compare
        self._intervals = intervals
        self._selects = condition(compare.selection.expression)
        self._values: defaultdict[tuple[str, str], dict[object, tuple[Value, Counter[int]]]] = (
            defaultdict(dict)
        )
        self._totals: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        self._cut: set[tuple[str, str]] = set()
        self._cells = 0

    def add(self, span: Span) -> None:
        """One span that came out of the pipeline."""
        place = self._intervals.place(span.start)
        if place is None:
            return
        compare = self._compare
        inside = (
            not compare.end_unix_nano
            or compare.start_unix_nano <= span.start < compare.end_unix_nano
        )
        group = "selection" if inside and self._selects(span) else "baseline"
        for key, value in _labels_of(span):
            self._totals[group, key][place] += 1
            known = self._values[group, key]
            same = identity(value)
            entry = known.get(same)
            if entry is None:
                if len(known) >= MAX_VALUES:
                    self._cut.add((group, key))
                    continue
                entry = known[same] = (value, Counter())
            found = entry[1]
            if not found[place]:
                self._cells += 1
                if self._cells > MAX_CELLS:
                    raise LimitExceeded("compare() finds too many values here; narrow the time")
            found[place] += 1

    def series(self) -> list[Series]:
        """What became of all spans so far."""
        made = []
        for (group, key), known in self._values.items():
            ordered = sorted(known.values(), key=lambda entry: (-entry[1].total(), str(entry[0])))
            for value, counts in ordered[: self._compare.top]:
                made.append(self._one(group, key, value, counts))
            if (group, key) in self._cut:
                labels: Labels = (
                    ("__meta_error", "__too_many_values__"),
                    ("__meta_type", group),
                    (key, "nil"),
                )
                made.append(Series(labels, {}))
        for (group, key), counts in self._totals.items():
            made.append(self._one(f"{group}_total", key, "nil", counts))
        return made

    def _one(self, group: str, key: str, value: Value, counts: Counter[int]) -> Series:
        samples = {place: float(counts[place]) for place in range(self._intervals.count)}
        return Series((("__meta_type", group), (key, value)), samples)


def _labels_of(span: Span) -> Iterator[tuple[str, Value]]:
    """Every attribute and intrinsic of a span whose value can be a label."""
    for name in _INTRINSICS:
        value = INTRINSIC[name](span)
        if value not in (None, ""):
            yield name, value
    document = span.document
    for scope, found in (
        ("resource", document.get("resource", {})),
        ("span", document.get("attributes", {})),
        ("span", {_ATTRIBUTE_OF[key]: text for key, text in document.get("context", {}).items()}),
    ):
        for name, value in found.items():
            short = not isinstance(value, str) or len(value) <= MAX_TEXT
            if isinstance(value, str | bool | int | float | Word) and short:
                yield printer.attribute(Attribute(scope, name)), value
