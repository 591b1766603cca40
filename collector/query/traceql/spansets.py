"""
A pipeline over one trace: filters, set and structural operators, groups, aggregates.

A spanset is a list of spans of one trace with attributes of its own (the group it is, the numbers
that were compared). Operators work on spans by identity. Structure comes from nested-set numbers:
"is a descendant" is two comparisons, and "has any such descendant" one look into a sorted list, so
that no operator takes longer than n log n over the spans of a trace.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from collector.query.traceql import printer
from collector.query.traceql.evaluate import compiled, condition, number
from collector.query.traceql.tree import (
    Aggregate,
    Binary,
    By,
    Coalesce,
    Expression,
    Filter,
    Literal,
    ScalarFilter,
    Select,
    SpansetOperation,
    Stage,
    Unary,
    Wrapped,
)
from collector.query.traceql.values import Each, Nanos, Value, constant, family, holds
from collector.query.traceql.view import Span, Trace, in_order


@dataclass(slots=True)
class Spanset:
    """
    Spans that belong together in an answer.

    Args:
        spans: in the order of the trace.
        attributes: what `by` and aggregates say of all of them, by the text of the query.
    """

    spans: list[Span]
    attributes: dict[str, Value] = field(default_factory=dict)


Pipeline = Callable[[Trace], list[Spanset]]
_Step = Callable[[list[Spanset]], list[Spanset]]
_Number = Callable[[Spanset], Value]


def pipeline(stages: Sequence[Stage]) -> Pipeline:
    """
    A function that gives the spansets of a trace that come out of the stages, none of them empty.

    Args:
        stages: checked stages of a query; the first one is a spanset.
    """
    steps = [_step(stage) for stage in stages]

    def run(trace: Trace) -> list[Spanset]:
        found = [Spanset(trace.spans)]
        for step in steps:
            found = step(found)
            if not found:
                break
        return found

    return run


def _step(stage: Stage) -> _Step:
    match stage:
        case By():
            return _group(stage)
        case Coalesce():
            return _coalesce
        case Select():
            return lambda found: found
        case ScalarFilter():
            return _scalar_filter(stage)
        case Filter() | Wrapped() | SpansetOperation():
            return _spanset(stage)


def _spanset(found: Filter | Wrapped | SpansetOperation) -> _Step:
    match found:
        case Filter():
            test = condition(found.expression)
            return lambda sets: [
                Spanset(spans, each.attributes)
                for each in sets
                if (spans := [span for span in each.spans if test(span)])
            ]
        case Wrapped():
            steps = [_step(stage) for stage in found.stages]

            def run(sets: list[Spanset]) -> list[Spanset]:
                for step in steps:
                    sets = step(sets)
                return sets

            return run
    return _operation(found)


def _operation(found: SpansetOperation) -> _Step:
    left_of, right_of = _spanset(found.left), _spanset(found.right)
    join = _joined(found.op)

    def run(sets: list[Spanset]) -> list[Spanset]:
        made = []
        for each in sets:
            left, right = _spans(left_of([each])), _spans(right_of([each]))
            spans = join(left, right)
            if spans:
                made.append(Spanset(spans, each.attributes))
        return made

    return run


def _spans(sets: list[Spanset]) -> list[Span]:
    if len(sets) == 1:
        return sets[0].spans
    return list({id(span): span for each in sets for span in each.spans}.values())


def _joined(op: str) -> Callable[[list[Span], list[Span]], list[Span]]:
    if op == "||":
        return _union
    if op == "&&":
        return lambda left, right: _union(left, right) if left and right else []
    relation = op.lstrip("!&")
    if op.startswith("!"):
        return lambda left, right: _without(right, _related(relation, left, right))
    if op.startswith("&"):
        opposite = _OPPOSITE[relation]
        return lambda left, right: _union(
            _related(opposite, right, left), _related(relation, left, right)
        )
    return lambda left, right: _related(relation, left, right)


_OPPOSITE: Final = {">": "<", "<": ">", ">>": "<<", "<<": ">>", "~": "~"}


def _union(left: list[Span], right: list[Span]) -> list[Span]:
    """Both, the right-hand spans first: they are what a query asks for, and answers are cut."""
    return list({id(span): span for span in (*right, *left)}.values())


def _without(spans: list[Span], others: list[Span]) -> list[Span]:
    known = set(map(id, others))
    return [span for span in spans if id(span) not in known]


def _related(relation: str, left: list[Span], right: list[Span]) -> list[Span]:
    """Those of `right` that are in this relation to one of `left`: children, ancestors, ..."""
    left = [span for span in left if span.trace.tree and span.rooted]
    right = [span for span in right if span.trace.tree and span.rooted]
    if not left or not right:
        return []
    if relation == ">":
        parents = set(map(id, left))
        return [span for span in right if id(span.parent) in parents]
    if relation == "<":
        wanted = {id(span.parent) for span in left if span.parent is not None}
        return [span for span in right if id(span) in wanted]
    if relation == "~":
        siblings: defaultdict[int, list[Span]] = defaultdict(list)
        for span in left:
            if span.parent is not None:
                siblings[id(span.parent)].append(span)
        return [
            span
            for span in right
            if span.parent is not None
            and any(other is not span for other in siblings.get(id(span.parent), ())[:2])
        ]
    if relation == "<<":
        starts = sorted(span.left for span in left)
        return [
            span
            for span in right
            if bisect_right(starts, span.right) > bisect_right(starts, span.left)
        ]
    return _descendants(left, right)


def _descendants(left: list[Span], right: list[Span]) -> list[Span]:
    """Those of `right` that lie inside one of `left`."""
    # The outermost ranges alone decide about everything but the spans that open them.
    outer: list[Span] = []
    for span in sorted(left, key=lambda span: span.left):
        if not outer or span.right > outer[-1].right:
            outer.append(span)
    starts = [span.left for span in outer]
    made = []
    for span in right:
        place = bisect_right(starts, span.left) - 1
        if place >= 0 and outer[place].left < span.left and span.right < outer[place].right:
            made.append(span)
    return made


def _coalesce(sets: list[Spanset]) -> list[Spanset]:
    return [Spanset(in_order(_spans(sets)))] if sets else []


def _group(stage: By) -> _Step:
    compute = compiled(stage.expression)
    key = f"by({printer.expression(stage.expression)})"

    def run(sets: list[Spanset]) -> list[Spanset]:
        made: dict[Any, Spanset] = {}
        for place, each in enumerate(sets):
            for span in each.spans:
                value = compute(span)
                found = made.setdefault(
                    (place, identity(value)), Spanset([], {**each.attributes, key: single(value)})
                )
                found.spans.append(span)
        return list(made.values())

    return run


def single(value: Value) -> Value:
    """One value: of events or links that of the first one."""
    return value[0] if type(value) is Each else value


def identity(value: Value) -> object:
    """What is equal for values of one group; `1`, `1.0` and `true` are three, NaN is one."""
    value = single(value)
    return type(value), value if isinstance(value, str | int) else str(value)


def _scalar_filter(stage: ScalarFilter) -> _Step:
    left, right = _scalar(stage.left), _scalar(stage.right)
    shown = [
        (printer.expression(part), _scalar(part))
        for side in (stage.left, stage.right)
        for part in _aggregates(side)
    ]
    op = stage.op

    def run(sets: list[Spanset]) -> list[Spanset]:
        made = []
        for each in sets:
            if holds(op, left(each), right(each)):
                numbers = {key: compute(each) for key, compute in shown}
                made.append(Spanset(each.spans, {**each.attributes, **numbers}))
        return made

    return run


def _aggregates(found: Expression) -> list[Aggregate]:
    match found:
        case Aggregate():
            return [found]
        case Unary():
            return _aggregates(found.operand)
        case Binary():
            return _aggregates(found.left) + _aggregates(found.right)
    return []


def _scalar(found: Expression) -> _Number:
    match found:
        case Aggregate():
            return _aggregate(found)
        case Literal():
            value = constant(found)
            return lambda _: value
        case Unary():
            operand = _scalar(found.operand)
            return lambda each: number("-", 0, operand(each))
        case Binary():
            left, right, op = _scalar(found.left), _scalar(found.right), found.op
            return lambda each: number(op, left(each), right(each))
    raise TypeError("the parser takes only aggregates and numbers here")


def _aggregate(found: Aggregate) -> _Number:
    if found.expression is None:
        return lambda each: len(each.spans)
    compute, name = compiled(found.expression), found.name

    def run(each: Spanset) -> Value:
        numbers = [value for value in map(compute, each.spans) if family(value) == "number"]
        if not numbers:
            return None
        if name in ("min", "max"):
            return min(numbers) if name == "min" else max(numbers)
        total = sum(numbers)
        made = total / len(numbers) if name == "avg" else total
        return Nanos(made) if all(isinstance(value, Nanos) for value in numbers) else made

    return run
