"""
Expressions -> functions of a span. Compiled once per query; literals and expressions are prepared.

The frequent form `field op literal` gets a function of its own. Whatever the types are at run time,
a function returns a value or nil and never raises: a comparison of different types is false, and
arithmetic with anything but numbers is nil.
"""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, Final

from collector.query.traceql.regex import full_match
from collector.query.traceql.tree import (
    Aggregate,
    Attribute,
    Binary,
    Expression,
    Intrinsic,
    Literal,
    Type,
    Unary,
)
from collector.query.traceql.values import (
    WHOLE_TRACE,
    Nanos,
    Reader,
    Value,
    constant,
    family,
    holds,
    matching,
    reader,
)
from collector.query.traceql.view import Span

_ID_DIGITS: Final = {
    "trace:id": 32,
    "link:traceID": 32,
    "span:id": 16,
    "span:parentID": 16,
    "link:spanID": 16,
}
_MIRRORED: Final = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED: Final = ("!=", "!~")


def compiled(found: Expression) -> Reader:
    """A function that computes an expression for a span."""
    match found:
        case Literal():
            value = constant(found)
            return lambda _: value
        case Attribute() | Intrinsic():
            return reader(found)
        case Unary():
            return _unary(found)
        case Aggregate():
            raise TypeError("an aggregate is computed of a spanset")
    return _binary(found)


def condition(found: Expression | None) -> Callable[[Span], bool]:
    """A function that says whether a filter's expression is true for a span; None is always."""
    if found is None:
        return lambda _: True
    compute = compiled(found)
    return lambda span: _true(compute(span))


def number(op: str, left: Value, right: Value) -> Value:
    """Arithmetic of two numbers; nil for anything else and for what has no value."""
    if family(left) != "number" or family(right) != "number":
        return None
    try:
        made = _ARITHMETIC[op](left, right)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    if isinstance(made, complex):
        return None
    whole = isinstance(made, int)
    if whole and not -(2**63) <= made < 2**63:
        return float(made)
    durations = isinstance(left, Nanos) + isinstance(right, Nanos)
    if durations and (op in ("+", "-", "%") or durations == 1) and math.isfinite(made):
        return Nanos(made)
    return made


def _power(left: Any, right: Any) -> Any:
    # Whole numbers would grow beyond any bound before they were found to be too large.
    return math.pow(left, right)


def _quotient(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        whole = abs(left) // abs(right)
        return whole if (left < 0) == (right < 0) else -whole
    return left / right


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return left - right * _quotient(left, right)
    return math.fmod(left, right)


_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _quotient,
    "%": _remainder,
    "^": _power,
}


def _true(value: Value) -> bool:
    return value is True or (type(value) is not bool and holds("=", value, True))


def _unary(found: Unary) -> Reader:
    operand = compiled(found.operand)
    if found.op == "-":
        return lambda span: number("-", 0, operand(span))

    def negated(span: Span) -> Value:
        value = operand(span)
        return not value if type(value) is bool else None

    return negated


def _binary(found: Binary) -> Reader:
    op = found.op
    if op in ("&&", "||"):
        return _logical(found)
    if is_root(found):
        return lambda span: span.is_root
    if op in ("=~", "!~"):
        return _regex(found)
    if op in ("=", "!=") and (compute := _presence(found)):
        return compute
    left, right = compiled(found.left), compiled(found.right)
    if op not in _MIRRORED:
        return lambda span: number(op, left(span), right(span))
    if isinstance(found.right, Literal):
        value = _comparable(found.left, found.right)
        return lambda span: holds(op, left(span), value)
    if isinstance(found.left, Literal):
        value, mirrored = _comparable(found.right, found.left), _MIRRORED[op]
        return lambda span: holds(mirrored, right(span), value)
    return lambda span: holds(op, left(span), right(span))


def _logical(found: Binary) -> Reader:
    left, right = condition(found.left), condition(found.right)
    if found.op == "&&":
        return lambda span: left(span) and right(span)
    return lambda span: left(span) or right(span)


def _regex(found: Binary) -> Reader:
    left, positive = compiled(found.left), found.op == "=~"
    match = full_match(str(constant_of(found.right)))
    return lambda span: matching(positive, match, left(span))


def _presence(found: Binary) -> Reader | None:
    """`x = nil` and `x != nil`: the only comparisons that nil takes part in."""
    sides = [found.left, found.right]
    nils = [side for side in sides if isinstance(side, Literal) and side.type is Type.NIL]
    if not nils:
        return None
    absent = found.op == "="
    if len(nils) == 2:
        return lambda _: absent
    other = compiled(found.right if found.left is nils[0] else found.left)
    return lambda span: (other(span) is None) is absent


def constant_of(found: Expression) -> Value:
    """The value of a literal, nil for any other expression."""
    return constant(found) if isinstance(found, Literal) else None


def _comparable(field: Expression, found: Literal) -> Value:
    """The value of a literal as it is compared with a field: ids are padded."""
    value = constant(found)
    digits = _ID_DIGITS.get(field.name) if isinstance(field, Intrinsic) else None
    return value.lower().zfill(digits) if digits and isinstance(value, str) and value else value


def is_root(found: Expression) -> bool:
    """Whether an expression is `nestedSetParent < 0` or `= -1`, which needs no other span."""
    if not isinstance(found, Binary) or not isinstance(found.right, Literal):
        return False
    if not isinstance(found.left, Intrinsic) or found.left.plain != "nestedSetParent":
        return False
    return (found.op, found.right.type, found.right.value) in (
        ("<", Type.INT, 0),
        ("=", Type.INT, -1),
    )


def walk(found: Expression | None) -> Iterator[Expression]:
    """The parts of an expression, itself first; what is below `is_root` does not count."""
    waiting = [found] if found is not None else []
    while waiting:
        part = waiting.pop()
        yield part
        match part:
            case Binary() if not is_root(part):
                waiting += [part.right, part.left]
            case Unary():
                waiting.append(part.operand)
            case Aggregate() if part.expression is not None:
                waiting.append(part.expression)


def is_local(found: Expression | None) -> bool:
    """Whether one span alone says what an expression is."""
    return not any(
        isinstance(part, Intrinsic) and part.plain in WHOLE_TRACE for part in walk(found)
    )


def satisfied(found: Binary, field: Attribute | Intrinsic) -> Reader:
    """
    What an answer shows of a field that a comparison names: the value that satisfies it.

    Args:
        found: a comparison of `field` with a literal.
        field: its other side.

    Returns:
        A function: nil when the comparison is false; of an array or of events the element that
        made it true, of a negated comparison the whole array; "nil" where absence was asked for.
    """
    read, test = reader(field), compiled(found)
    if _presence(found) is not None:
        absence = "nil" if found.op == "=" else None
        return lambda span: (absence or read(span)) if test(span) else None
    single = _single_test(found, field)

    def show(span: Span) -> Value:
        value = read(span)
        if isinstance(value, list | tuple):
            if type(value) is list and found.op in _NEGATED:
                return value if test(span) else None
            return next((_first(item) for item in value if single(item)), None)
        return value if test(span) else None

    return show


def _first(value: Value) -> Value:
    return value[0] if isinstance(value, list) and value else value


def _single_test(found: Binary, field: Attribute | Intrinsic) -> Callable[[Value], bool]:
    """The comparison as a test of one value."""
    if found.op in ("=~", "!~"):
        match, positive = full_match(str(constant_of(found.right))), found.op == "=~"
        return lambda value: matching(positive, match, value)
    mirrored = isinstance(found.left, Literal)
    other = found.left if isinstance(found.left, Literal) else found.right
    if not isinstance(other, Literal):
        return lambda _: False
    value, op = _comparable(field, other), _MIRRORED[found.op] if mirrored else found.op
    return lambda element: holds(op, element, value)
