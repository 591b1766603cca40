"""
Binary operations at one evaluation time: numbers with numbers, with series, series with series.

Series meet when the labels that `on` names, or that `ignoring` leaves, are equal; all labels without
either. One series may meet many only where `group_left` or `group_right` says so; anything else that
is not one to one is an error that names the labels, never a silent choice.
"""

import math
import operator
from collections.abc import Callable
from typing import Final

from collector.query.logql import tree
from collector.query.logql.errors import PipelineError
from collector.query.logql.evaluation.samples import Labels
from collector.query.logql.evaluation.vectors import memoised
from collector.query.logql.evaluation.windows import Vector

Combine = Callable[[Vector, Vector], Vector]


def _divide(left: float, right: float) -> float:
    if right == 0:
        if left == 0 or math.isnan(left):
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1.0, right)
    return left / right


def _modulo(left: float, right: float) -> float:
    try:
        return math.fmod(left, right)
    except ValueError:
        return math.nan


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        odd = right == int(right) and int(right) % 2 == 1
        return -math.inf if left < 0 and odd else math.inf
    except ValueError:
        return math.inf if left == 0 else math.nan


ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": _modulo,
    "^": _power,
}
COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def numbers(op: str, left: float, right: float) -> float:
    """Two numbers; a comparison gives 1 or 0."""
    if op in COMPARE:
        return float(COMPARE[op](left, right))
    return ARITHMETIC[op](left, right)


def with_number(found: tree.Binary, number: float, *, on_left: bool) -> Callable[[Vector], Vector]:
    """What an operation with a number on one side does to the series on the other."""
    op, returns_bool = found.op, found.returns_bool

    def change(vector: Vector) -> Vector:
        result: Vector = {}
        for labels, value in vector.items():
            left, right = (number, value) if on_left else (value, number)
            made = _paired(op, left, right, kept=value, returns_bool=returns_bool)
            if made is not None:
                result[labels] = made
        return result

    return change


def _paired(op: str, left: float, right: float, *, kept: float, returns_bool: bool) -> float | None:
    """The value of two numbers that met; None when a comparison filters them out."""
    if op in ARITHMETIC:
        return ARITHMETIC[op](left, right)
    holds = COMPARE[op](left, right)
    if returns_bool:
        return float(holds)
    return kept if holds else None


def signature(matching: tree.Matching | None) -> Callable[[Labels], Labels]:
    """The labels by which series meet."""
    if matching is None:
        return lambda labels: labels
    names = frozenset(matching.labels)
    on = matching.on
    return memoised(lambda labels: tuple(pair for pair in labels if (pair[0] in names) == on))


def between(found: tree.Binary) -> Combine:
    """What an operation makes of two vectors."""
    key = signature(found.matching)
    if found.op in tree.SETS:
        return _set(found.op, key)
    matching = found.matching
    many_right = matching is not None and matching.group == "right"

    def combine(left: Vector, right: Vector) -> Vector:
        many, one = (right, left) if many_right else (left, right)
        partners = _by_signature(one, key, "left" if many_right else "right")
        result: Vector = {}
        met: set[Labels] = set()
        for labels, value in many.items():
            at = key(labels)
            partner = partners.get(at)
            if partner is None:
                continue
            if matching is None or not matching.group:
                if at in met:
                    raise PipelineError(_ambiguous("left", at))
                met.add(at)
            first, second = (partner[1], value) if many_right else (value, partner[1])
            made = _paired(found.op, first, second, kept=first, returns_bool=found.returns_bool)
            if made is None:
                continue
            name = _result(labels, partner[0], at, matching)
            if name in result:
                raise PipelineError(
                    f"several series of the result have the labels {_shown(name)}: use other labels "
                    "in on, ignoring or group"
                )
            result[name] = made
        return result

    return combine


def _by_signature(
    vector: Vector, key: Callable[[Labels], Labels], side: str
) -> dict[Labels, tuple[Labels, float]]:
    found: dict[Labels, tuple[Labels, float]] = {}
    for labels, value in vector.items():
        at = key(labels)
        if at in found:
            raise PipelineError(_ambiguous(side, at))
        found[at] = (labels, value)
    return found


def _ambiguous(side: str, at: Labels) -> str:
    return (
        f"several series on the {side} side have the labels {_shown(at)}: match by more labels, or "
        "use group_left or group_right"
    )


def _shown(labels: Labels) -> str:
    return "{" + ", ".join(f'{name}="{value[:80]}"' for name, value in labels) + "}"


def _result(labels: Labels, other: Labels, at: Labels, matching: tree.Matching | None) -> Labels:
    """The labels of a result: those that met, or those of the many side with what `group` adds."""
    if matching is None:
        return labels
    if not matching.group:
        return at
    if not matching.include:
        return labels
    added = set(matching.include)
    rest = [pair for pair in labels if pair[0] not in added]
    return tuple(sorted(rest + [pair for pair in other if pair[0] in added]))


def _set(op: str, key: Callable[[Labels], Labels]) -> Combine:
    def combine(left: Vector, right: Vector) -> Vector:
        if op == "or":
            known = {key(labels) for labels in left}
            more = {labels: value for labels, value in right.items() if key(labels) not in known}
            return {**left, **more}
        known = {key(labels) for labels in right}
        return {
            labels: value
            for labels, value in left.items()
            if (key(labels) in known) == (op == "and")
        }

    return combine
