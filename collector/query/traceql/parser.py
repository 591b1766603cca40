"""
Tokens -> tree: operator precedence for expressions and spansets, plain descent for the rest.

Everything is bounded before it is built: the length of the text, the depth of parentheses, the
number of operators in a row, the number of nodes. A later walk over the tree can therefore recurse.
What is TraceQL and not answered here raises `Unsupported` with its name; all other errors say what
was found and what was expected there.
"""

from collections.abc import Callable
from typing import Final

from collector.query.traceql.check import check
from collector.query.traceql.cursor import Cursor
from collector.query.traceql.errors import ParseError, Unsupported
from collector.query.traceql.lexer import Token
from collector.query.traceql.printer import ADDITIVE, BINARY, NOT, SPANSET
from collector.query.traceql.tree import (
    FUNCTIONS,
    INTRINSICS,
    KINDS,
    NUMERIC,
    STATUSES,
    Aggregate,
    Attribute,
    Binary,
    By,
    Coalesce,
    Compare,
    Expression,
    Field,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    Rank,
    ScalarFilter,
    Select,
    Spanset,
    SpansetOperation,
    Stage,
    Type,
    Unary,
    Wrapped,
)

MAX_TEXT: Final = 128 * 1024
"""Characters of a query."""
MAX_RANK: Final = 1000

_AGGREGATES: Final = ("count", "avg", "min", "max", "sum")
_WORDS: Final = {
    "true": (Type.BOOL, True),
    "false": (Type.BOOL, False),
    "nil": (Type.NIL, None),
    "minInt": (Type.INT, -(2**63)),
    "maxInt": (Type.INT, 2**63 - 1),
    **{word: (Type.STATUS, word) for word in STATUSES},
    **{word: (Type.KIND, word) for word in KINDS},
}
_LITERALS: Final = {
    "string": Type.STRING,
    "int": Type.INT,
    "float": Type.FLOAT,
    "duration": Type.DURATION,
}
_COMPARISONS: Final = ("=", "!=", "<", "<=", ">", ">=")
_METRICS: Final = (*FUNCTIONS, "compare")


def parse(text: str) -> Query:
    """
    The checked tree of a query.

    Args:
        text: TraceQL, at most `MAX_TEXT` characters.

    Raises:
        ParseError: it is none, or it means nothing; `Unsupported` when it is not answered here.
    """
    if len(text) > MAX_TEXT:
        raise ParseError(text, 0, f"the query has more than {MAX_TEXT} characters")
    try:
        text.encode()
    except UnicodeEncodeError as bad:
        raise ParseError(text, bad.start, "not valid Unicode") from None
    found = Parser(text).query()
    check(text, found)
    return found


class Parser(Cursor):
    """One pass over the tokens of a query."""

    def query(self) -> Query:
        """The whole text."""
        if not self._is("{", "("):
            raise self._unexpected("a query begins with { or (")
        stages = self._stages()
        metrics = self._metrics() if self._is_word(*_METRICS) else None
        ranks: list[Rank] = []
        while metrics is not None and self._take("|"):
            ranks.append(self._rank())
        if metrics is not None and self._is(*_COMPARISONS):
            raise Unsupported(
                self._text, self._token.offset, "a filter on the result of a metrics function"
            )
        if metrics is not None and self._is("+", "-", "*", "/", "%", "^"):
            raise self._metrics_arithmetic()
        hints = self._hints() if self._is_word("with") else ()
        if self._token.kind != "end":
            raise self._unexpected("an operator, | or the end was expected")
        return Query(stages, metrics, tuple(ranks), hints)

    def _stages(self) -> tuple[Stage, ...]:
        """Stages up to the end, a closing parenthesis, a hint, or a metrics function behind `|`."""
        found: list[Stage] = [self._spansets()]
        while self._take("|"):
            if self._is_word(*_METRICS):
                if self._nesting:
                    raise self._metrics_arithmetic()
                break
            found.append(self._stage())
        return tuple(found)

    def _stage(self) -> Stage:
        token = self._token
        if self._is_spanset():
            return self._spansets()
        if self._take_word("by"):
            return By(self._in_parentheses(self._expression), token.offset)
        if self._take_word("coalesce"):
            self._expect("(")
            self._expect(")")
            return Coalesce(token.offset)
        if self._take_word("select"):
            return Select(self._fields(), token.offset)
        if token.kind in _LITERALS or self._is("(", "-") or self._is_word(*_AGGREGATES):
            return self._scalar_filter()
        if token.kind == "word":
            raise self._unexpected(
                "no such function; there are by, coalesce, select, count, avg, min, max, sum, "
                + ", ".join(_METRICS)
            )
        raise self._unexpected("a stage such as { }, by(), select() or count() > 1 was expected")

    def _is_spanset(self) -> bool:
        """Whether a brace follows, behind any number of parentheses."""
        at = self._at
        while self._tokens[at].kind == "op" and self._tokens[at].value == "(":
            at += 1
        return self._tokens[at].kind == "op" and self._tokens[at].value == "{"

    # Spansets

    def _spansets(self, least: int = 0) -> Spanset:
        left = self._spanset()
        while (token := self._token).kind == "op" and SPANSET.get(token.value, -1) >= max(least, 1):
            self._at += 1
            right = self._spansets(SPANSET[token.value] + 1)
            left = self._built(
                SpansetOperation(token.value, left, right, token.offset), left, right
            )
        return left

    def _spanset(self) -> Spanset:
        token = self._token
        if self._take("{"):
            if self._take("}"):
                return Filter(None, token.offset)
            self._enter()
            inner = self._expression()
            self._nesting -= 1
            self._expect("}")
            return self._built(Filter(inner, token.offset))
        if not self._take("("):
            if token.kind in _LITERALS:
                raise self._scalar_pipeline(token)
            raise self._unexpected("{ was expected")
        self._enter()
        if not self._is_spanset():
            raise self._unexpected("{ was expected")
        stages = self._stages()
        self._expect(")")
        self._nesting -= 1
        only = stages[0]
        if len(stages) == 1 and isinstance(only, Filter | SpansetOperation | Wrapped):
            return only
        return self._built(Wrapped(stages, token.offset))

    def _scalar_filter(self) -> ScalarFilter:
        left = self._expression(ADDITIVE, scalar=True)
        token = self._token
        if not self._take(*_COMPARISONS):
            if self._nesting and self._is(")"):
                raise self._scalar_pipeline(token)
            raise self._unexpected("a comparison such as > 2 was expected")
        right = self._expression(ADDITIVE, scalar=True)
        return ScalarFilter(token.value, left, right, token.offset)

    def _scalar_pipeline(self, token: Token) -> Unsupported:
        return Unsupported(self._text, token.offset, "a comparison of pipelines as numbers")

    # Expressions

    def _expression(self, least: int = 0, *, scalar: bool = False) -> Expression:
        left = self._operand(scalar=scalar)
        while (token := self._token).kind == "op" and BINARY.get(token.value, -1) >= max(least, 1):
            self._at += 1
            strength = BINARY[token.value]
            if token.value == "^":
                self._enter()
                right = self._expression(strength, scalar=scalar)
                self._nesting -= 1
            else:
                right = self._expression(strength + 1, scalar=scalar)
            left = self._built(Binary(token.value, left, right, token.offset), left, right)
        return left

    def _operand(self, *, scalar: bool) -> Expression:
        token = self._token
        if self._take("!"):
            operand = self._prefixed(NOT + 1, scalar=scalar)
            return self._built(Unary("!", operand, token.offset), operand)
        if self._take("-"):
            bare = self._token.kind in _LITERALS or self._is_word("minInt", "maxInt")
            operand = self._prefixed(ADDITIVE + 1, scalar=scalar)
            if bare and isinstance(operand, Literal) and operand.type in NUMERIC:
                return Literal(operand.type, -operand.value, token.offset)  # type: ignore[operator]
            return self._built(Unary("-", operand, token.offset), operand)
        if self._is("("):
            return self._in_parentheses(lambda: self._expression(scalar=scalar))
        self._at += 1
        if token.kind in _LITERALS:
            return self._built(Literal(_LITERALS[token.kind], token.value, token.offset))
        if token.kind == "word" and token.value in _WORDS:
            kind, value = _WORDS[token.value]
            return self._built(Literal(kind, value, token.offset))
        if scalar:
            if token.kind == "word" and token.value in _AGGREGATES:
                return self._aggregate(token)
            self._at -= 1
            raise self._unexpected("a number or one of count, avg, min, max, sum was expected")
        self._at -= 1
        return self._field()

    def _prefixed(self, least: int, *, scalar: bool) -> Expression:
        self._enter()
        operand = self._expression(least, scalar=scalar)
        self._nesting -= 1
        return operand

    def _aggregate(self, token: Token) -> Expression:
        if token.value == "count":
            self._expect("(")
            self._expect(")")
            return self._built(Aggregate("count", None, token.offset))
        inner = self._in_parentheses(self._expression)
        return self._built(Aggregate(token.value, inner, token.offset), inner)

    def _field(self) -> Field:
        token = self._token
        if token.kind == "attribute":
            self._at += 1
            scope, name, parent = token.value
            return self._built(Attribute(scope, name, parent, token.offset))
        if token.kind == "word" and token.value in INTRINSICS:
            self._at += 1
            return self._built(Intrinsic(token.value, token.offset))
        if token.kind == "word":
            if token.value == "parent":
                raise Unsupported(self._text, token.offset, "parent")
            raise self._unexpected(f"write .{token.value} or span.{token.value} for an attribute")
        raise self._unexpected("an attribute, an intrinsic or a value was expected")

    def _fields(self) -> tuple[Field, ...]:
        self._expect("(")
        found = [self._field()]
        while self._take(","):
            found.append(self._field())
        self._expect(")")
        return tuple(found)

    # Metrics

    def _metrics(self) -> Metrics | Compare:
        token = self._token
        self._at += 1
        if token.value == "compare":
            return self._compare(token)
        function = token.value
        self._expect("(")
        measured: Field | None = None
        quantiles: list[float] = []
        if function not in ("rate", "count_over_time"):
            measured = self._field()
        if function == "quantile_over_time":
            while self._take(","):
                number = self._number("a quantile from 0 to 1", float, maximum=1)
                quantiles.append(float(number))
            if not quantiles:
                raise self._unexpected("a quantile from 0 to 1 was expected")
        self._expect(")")
        by = self._fields() if self._take_word("by") else ()
        return Metrics(function, measured, tuple(quantiles), by, token.offset)

    def _compare(self, token: Token) -> Compare:
        self._expect("(")
        selection = self._spanset()
        if not isinstance(selection, Filter):
            raise ParseError(self._text, token.offset, "compare() takes one { } to select spans")
        numbers = [10, 0, 0]
        for place in range(3):
            if not self._take(","):
                break
            most = MAX_RANK if place == 0 else 2**63 - 1
            numbers[place] = int(self._number("a whole number", int, maximum=most))
        self._expect(")")
        top, start, end = numbers
        return Compare(selection, top, start, end, token.offset)

    def _rank(self) -> Rank:
        token = self._token
        if not self._take_word("topk", "bottomk"):
            raise self._unexpected("topk or bottomk was expected")
        self._expect("(")
        count = int(self._number("a whole number from 1", int, maximum=MAX_RANK))
        if not count:
            raise ParseError(self._text, token.offset, f"{token.value}(0) keeps nothing")
        self._expect(")")
        return Rank(token.value, count, token.offset)

    def _number(self, what: str, kind: type, *, maximum: int) -> float:
        token = self._token
        kinds = ("int",) if kind is int else ("int", "float")
        if token.kind not in kinds or token.value > maximum:
            raise self._unexpected(f"{what} (at most {maximum}) was expected")
        self._at += 1
        value: float = token.value
        return value

    def _metrics_arithmetic(self) -> Unsupported:
        return Unsupported(self._text, self._token.offset, "arithmetic between metrics")

    def _hints(self) -> tuple[tuple[str, Literal], ...]:
        self._at += 1
        self._expect("(")
        found: list[tuple[str, Literal]] = []
        while not self._take(")"):
            if found:
                self._expect(",")
            name = self._token
            if name.kind != "word":
                raise self._unexpected("the name of a hint was expected")
            self._at += 1
            self._expect("=")
            value = self._operand(scalar=True)
            if not isinstance(value, Literal):
                raise ParseError(self._text, name.offset, "a hint's value is a literal")
            found.append((name.value, value))
        return tuple(found)

    def _in_parentheses(self, read: Callable[[], Expression]) -> Expression:
        self._expect("(")
        self._enter()
        found = read()
        self._nesting -= 1
        self._expect(")")
        return found
