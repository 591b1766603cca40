"""
What can be known of a query before data is seen: types, regular expressions, numbers in range.

A comparison of two things that can never be of one type is an error here, because the user made a
mistake; with an attribute on one side only the data decides, and a mismatch is false then.
"""

from typing import Final

from collector.query.traceql import printer
from collector.query.traceql.errors import ParseError, Unsupported
from collector.query.traceql.regex import full_match
from collector.query.traceql.tree import (
    INTRINSICS,
    NUMERIC,
    Aggregate,
    Attribute,
    Binary,
    By,
    Compare,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    ScalarFilter,
    Select,
    SpansetOperation,
    Stage,
    Type,
    Unary,
    Wrapped,
)

MAX_REGEX_TOTAL: Final = 16 * 1024
"""Characters of all regular expressions of a query together."""

MAX_REGEXES: Final = 20
"""Regular expressions of a query; each may take a MiB while it runs."""

_NUMERIC: Final = NUMERIC | {Type.ANY}
_LOGICAL: Final = frozenset({Type.BOOL, Type.ANY})
_ORDERED: Final = _NUMERIC | {Type.STRING}
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def check(text: str, query: Query) -> None:
    """
    Accept a query that means something.

    Args:
        text: what `query` was made from, for the place of an error.
        query: the tree.

    Raises:
        ParseError: it does not.
    """
    checker = _Checker(text)
    for stage in query.stages:
        checker.stage(stage)
    match query.metrics:
        case Metrics():
            checker.metrics(query.metrics)
        case Compare():
            checker.stage(query.metrics.selection)
            start, end = query.metrics.start_unix_nano, query.metrics.end_unix_nano
            if (start or end) and end <= start:
                checker.refuse(query.metrics.offset, "compare() ends before it begins")
    for _, value in query.hints:
        checker.type_of(value)


class _Checker:
    def __init__(self, text: str) -> None:
        self._text = text
        self._regex_left = MAX_REGEX_TOTAL
        self._regexes = 0

    def refuse(self, offset: int, reason: str) -> None:
        raise ParseError(self._text, offset, reason)

    def stage(self, found: Stage) -> None:
        match found:
            case Filter():
                if found.expression is not None and self.type_of(found.expression) not in _LOGICAL:
                    what = printer.expression(found.expression)
                    self.refuse(found.offset, f"a filter must be true or false: {what}")
            case SpansetOperation():
                self.stage(found.left)
                self.stage(found.right)
            case Wrapped():
                for inner in found.stages:
                    self.stage(inner)
            case By():
                self.type_of(found.expression)
            case Select():
                for field in found.fields:
                    self.type_of(field)
            case ScalarFilter():
                for side in (found.left, found.right):
                    if self.type_of(side) not in _NUMERIC:
                        what = printer.expression(side)
                        self.refuse(found.offset, f"a number or a duration is compared: {what}")

    def metrics(self, found: Metrics) -> None:
        if found.measured is not None and self.type_of(found.measured) not in _NUMERIC:
            what = printer.expression(found.measured)
            self.refuse(found.offset, f"{found.function}() measures numbers: {what}")
        for field in found.by:
            self.type_of(field)

    def type_of(self, found: Expression) -> Type:
        """The type of an expression, once it is known to be one."""
        match found:
            case Literal():
                return self._literal(found)
            case Attribute():
                if found.parent:
                    what = f"{printer.attribute(found)} (attributes of the parent span)"
                    raise Unsupported(self._text, found.offset, what)
                return Type.ANY
            case Intrinsic():
                return INTRINSICS[found.name]
            case Aggregate():
                if found.expression is None:
                    return Type.INT
                kind = self.type_of(found.expression)
                if kind not in _NUMERIC:
                    self.refuse(
                        found.offset, f"{found.name}() takes numbers: {self._text_of(found)}"
                    )
                return kind
            case Unary():
                kind = self.type_of(found.operand)
                if kind not in (_LOGICAL if found.op == "!" else _NUMERIC):
                    self.refuse(found.offset, f"the type does not fit: {self._text_of(found)}")
                return Type.BOOL if found.op == "!" else kind
        return self._binary(found)

    def _literal(self, found: Literal) -> Type:
        if isinstance(found.value, int) and not _SMALLEST <= found.value <= _LARGEST:
            self.refuse(found.offset, "the number is outside of 64 bits")
        return found.type

    def _binary(self, found: Binary) -> Type:
        left, right = self.type_of(found.left), self.type_of(found.right)
        op = found.op
        if op in ("=~", "!~"):
            if left not in (Type.STRING, Type.ANY):
                self.refuse(
                    found.offset, f"only text matches a regular expression: {self._text_of(found)}"
                )
            self._regex(found)
            return Type.BOOL
        if op in ("&&", "||"):
            fits = left in _LOGICAL and right in _LOGICAL
        elif op in ("=", "!="):
            fits = True
        elif op in ("<", "<=", ">", ">="):
            fits = left in _ORDERED and right in _ORDERED
        else:
            fits = left in _NUMERIC and right in _NUMERIC
        if not fits:
            self.refuse(found.offset, f"{op} does not take these types: {self._text_of(found)}")
        if not _match(left, right):
            reason = "binary operations must operate on the same type"
            self.refuse(found.offset, f"{reason}: {self._text_of(found)}")
        if op in printer.BINARY and printer.BINARY[op] <= printer.COMPARISON:
            return Type.BOOL
        for kind in (Type.ANY, Type.DURATION, Type.FLOAT):
            if kind in (left, right):
                return kind
        return Type.INT

    def _regex(self, found: Binary) -> None:
        pattern = found.right
        if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            self.refuse(found.offset, f"{found.op} takes a string: {self._text_of(found)}")
            return
        if pattern.type is not Type.STRING:
            self.refuse(found.offset, f"{found.op} takes a string: {self._text_of(found)}")
        self._regexes += 1
        if self._regexes > MAX_REGEXES:
            self.refuse(pattern.offset, f"more than {MAX_REGEXES} regular expressions")
        self._regex_left -= len(pattern.value)
        if self._regex_left < 0:
            self.refuse(
                pattern.offset, f"regular expressions of more than {MAX_REGEX_TOTAL} characters"
            )
        try:
            full_match(pattern.value)
        except ValueError as bad:
            self.refuse(pattern.offset, str(bad))

    def _text_of(self, found: Expression) -> str:
        text = printer.expression(found)
        return text if len(text) <= 200 else f"{text[:200]}..."


def _match(left: Type, right: Type) -> bool:
    loose = (Type.ANY, Type.NIL)
    return (
        left in loose or right in loose or left == right or (left in NUMERIC and right in NUMERIC)
    )
