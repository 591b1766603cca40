"""
What of a query a store can take over, and what has to be looked at for the rest.

A `Scan` is conditions that a store knows, plus a test of one span. Every trace that a search finds
has a span that passes one of the plan's scans, and every span that a metrics query counts passes
one of them: that is all that a plan promises, and it makes the answer of the query over what the
scans find equal to its answer over everything. Of several filters that are all necessary the one
with the strongest conditions is scanned for.

Conditions on attributes stay here although stores have `Query.where`: a condition on an array is
true when any element satisfies it, and `where` never finds arrays. Only the ids of
`telemetry.attributes.CONTEXT` go to the store, because they are text wherever they are kept.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from collector.query.traceql.evaluate import condition, is_local, is_root
from collector.query.traceql.tree import (
    NUMERIC,
    Attribute,
    Binary,
    By,
    Coalesce,
    Compare,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    Select,
    Spanset,
    SpansetOperation,
    Stage,
    Wrapped,
)
from collector.query.traceql.view import Span
from telemetry.attributes import CONTEXT

MAX_SCANS: Final = 4
"""Alternatives that are scanned for one by one; more become one scan of everything."""

_WORDS: Final = re.compile(r"[\w /:,\-]+(\|[\w /:,\-]+)*")
"""A regular expression that only lists texts."""


@dataclass(slots=True, frozen=True)
class Conditions:
    """Conditions of `collector.stores.base.Query`, under the same names; all must hold."""

    service: str | None = None
    status: str | None = None
    names: tuple[str, ...] = ()
    roots: bool = False
    min_duration_ms: float | None = None
    trace_ids: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()

    @property
    def strength(self) -> int:
        """Roughly how much fewer spans satisfy them: more is fewer."""
        return (
            100 * bool(self.trace_ids)
            + 80 * len(self.context)
            + 10 * bool(self.names)
            + 8 * (self.status == "ERROR")
            + 5 * (self.min_duration_ms is not None)
            + 4 * (self.service is not None)
            + 3 * self.roots
            + (self.status is not None)
        )


@dataclass(slots=True, frozen=True)
class Scan:
    """
    Spans to look at.

    Args:
        conditions: what the store is asked for.
        test: what must be true of a span that the store found; always true where only the whole
            trace can tell.
    """

    conditions: Conditions
    test: Callable[[Span], bool] = field(compare=False)


@dataclass(slots=True, frozen=True)
class Plan:
    """
    How to find what a query is about.

    Args:
        scans: spans that pass one of them are candidates.
        local: whether the spans that pass are the answer itself; otherwise the whole traces of
            the candidates are evaluated.
    """

    scans: tuple[Scan, ...]
    local: bool


def plan(query: Query) -> Plan:
    """The plan of a checked query."""
    spansets = [found for found in query.stages if isinstance(found, Spanset)]
    find = _needed if query.metrics is None else _results
    alternatives = max((find(found) for found in spansets), key=_strength)
    if len(alternatives) > MAX_SCANS:
        alternatives = [Filter()]
    local = query.metrics is not None and _is_local(query)
    if local and len(spansets) > 1:
        # Each filter in turn: one test for all of them, asked of the strongest one's spans.
        tests = [_any(_results(found)) for found in spansets]
        scans = [
            Scan(_conditions(found.expression), lambda span: all(test(span) for test in tests))
            for found in alternatives
        ]
    else:
        scans = [Scan(_conditions(found.expression), _test(found)) for found in alternatives]
    return Plan(tuple(scans), local)


def _any(filters: list[Filter]) -> Callable[[Span], bool]:
    tests = [_test(found) for found in filters]
    return lambda span: any(test(span) for test in tests)


def _test(found: Filter) -> Callable[[Span], bool]:
    """Whether a span may satisfy a filter: the parts of it that the span alone decides."""
    if is_local(found.expression):
        return condition(found.expression)
    tests = [condition(part) for part in _conjunction(found.expression) if is_local(part)]
    return lambda span: all(test(span) for test in tests)


def _strength(alternatives: list[Filter]) -> int:
    return min(_conditions(found.expression).strength for found in alternatives)


def _needed(found: Spanset) -> list[Filter]:
    """Filters of which a trace satisfies at least one, wherever the spanset is not empty."""
    match found:
        case Filter():
            return [found]
        case Wrapped():
            return _first(found.stages, _needed)
    if found.op == "||":
        return _needed(found.left) + _needed(found.right)
    right = _needed(found.right)
    return right if found.op.startswith("!") else max(_needed(found.left), right, key=_strength)


def _results(found: Spanset) -> list[Filter]:
    """Filters of which each span of the spanset satisfies at least one."""
    match found:
        case Filter():
            return [found]
        case Wrapped():
            return _first(found.stages, _results)
    both = found.op in ("&&", "||") or found.op.startswith("&")
    right = _results(found.right)
    return _results(found.left) + right if both else right


def _first(stages: tuple[Stage, ...], find: Callable[[Spanset], list[Filter]]) -> list[Filter]:
    first = stages[0]
    return find(first) if isinstance(first, Spanset) else [Filter()]


def _is_local(query: Query) -> bool:
    """Whether each span alone says whether a metrics query counts it, and how."""
    if isinstance(query.metrics, Compare):
        # It shows the trace's root, which a root itself knows.
        first = query.stages[0]
        roots = isinstance(first, Filter) and _conditions(first.expression).roots
        if not roots or not is_local(query.metrics.selection.expression):
            return False
    if isinstance(query.metrics, Metrics):
        fields = [*query.metrics.by, *([query.metrics.measured] if query.metrics.measured else [])]
        if not all(map(is_local, fields)):
            return False
    return all(_stage_is_local(stage) for stage in query.stages)


def _stage_is_local(stage: Stage) -> bool:
    match stage:
        case Filter():
            return is_local(stage.expression)
        case SpansetOperation():
            return stage.op == "||" and _stage_is_local(stage.left) and _stage_is_local(stage.right)
        case By() | Select() | Coalesce():
            return True  # they move spans between sets, which nothing counts here
    return False


def _conditions(found: Expression | None) -> Conditions:
    """Conditions that every span has for which an expression is true."""
    made = Conditions()
    for part in _conjunction(found):
        made = _with(made, part)
    return made


def _conjunction(found: Expression | None) -> Iterator[Expression]:
    waiting = [found] if found is not None else []
    while waiting:
        part = waiting.pop()
        if isinstance(part, Binary) and part.op == "&&":
            waiting += [part.right, part.left]
        else:
            yield part


def _with(made: Conditions, part: Expression) -> Conditions:
    """The conditions with one more, where a store knows it."""
    if is_root(part):
        return replace(made, roots=True)
    if not isinstance(part, Binary):
        return made
    if part.op == "||" and (texts := _one_of(part)):
        return _equal(made, texts[0], tuple(dict.fromkeys(texts[1])))
    field_, literal = part.left, part.right
    if not isinstance(literal, Literal) or not isinstance(field_, Attribute | Intrinsic):
        return made
    if part.op == "=" and isinstance(literal.value, str):
        return _equal(made, field_, (literal.value,))
    if part.op == "=~" and isinstance(literal.value, str) and _WORDS.fullmatch(literal.value):
        return _equal(made, field_, tuple(literal.value.split("|")))
    if part.op in (">", ">=") and literal.type in NUMERIC and _is(field_, "duration"):
        least = float(literal.value or 0) / 1e6
        known = made.min_duration_ms
        return replace(made, min_duration_ms=least if known is None else max(known, least))
    return made


def _one_of(found: Binary) -> tuple[Attribute | Intrinsic, list[str]] | None:
    """`x = "a" || x = "b" || ...` as the field and its values."""
    values: list[str] = []
    fields: list[Attribute | Intrinsic] = []
    waiting: list[Expression] = [found]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Binary) and part.op == "||":
            waiting += [part.right, part.left]
            continue
        if not (isinstance(part, Binary) and part.op == "="):
            return None
        if not isinstance(part.left, Attribute | Intrinsic):
            return None
        if not isinstance(part.right, Literal) or not isinstance(part.right.value, str):
            return None
        fields.append(part.left)
        values.append(part.right.value)
    return (fields[0], values) if all(field == fields[0] for field in fields) else None


def _equal(made: Conditions, field_: Attribute | Intrinsic, values: tuple[str, ...]) -> Conditions:
    """The conditions with "equals one of these"; the first one on a field stays."""
    only = values[0] if len(values) == 1 else None
    if _is(field_, "name"):
        return made if made.names or "" in values else replace(made, names=values)
    if _is(field_, "trace:id") and not made.trace_ids:
        ids = tuple(value.lower().zfill(32) for value in values)
        return replace(made, trace_ids=ids)
    if only is None:
        return made
    if _is(field_, "status") and made.status is None:
        return replace(made, status=only.upper())
    if isinstance(field_, Attribute) and field_.scope == "resource":
        if field_.name == "service.name" and made.service is None and only:
            return replace(made, service=only)
    elif isinstance(field_, Attribute) and field_.scope == "span" and field_.name in CONTEXT:
        key = CONTEXT[field_.name]
        if key not in dict(made.context):
            return replace(made, context=(*made.context, (key, only)))
    return made


def _is(field_: Attribute | Intrinsic, name: str) -> bool:
    return isinstance(field_, Intrinsic) and field_.plain == name
