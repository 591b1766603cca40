"""
LogQL text -> tree: metric expressions by operator precedence around the log queries.

`parse` is the only entrance. It raises `ParseError` with line and column, or `LimitError` for a text
that is too long; nothing else, whatever the text is.
"""

import difflib
from typing import Final, cast

from collector.query.logql import regex, tree
from collector.query.logql.cursor import Cursor
from collector.query.logql.errors import ParseError
from collector.query.logql.lexer import Token
from collector.query.logql.precedence import (
    BOTH,
    COUNTED,
    FUNCTIONS,
    GROUPED_RANGES,
    LINES,
    PRECEDENCE,
    RANGES,
    SORTS,
    VALUES,
    VECTORS,
)
from collector.query.logql.stage_parser import StageParser

REFUSED: Final = {
    "variants": "variants() is not supported: write one query for each of them",
    "histogram_quantile": "histogram_quantile is PromQL: use quantile_over_time with unwrap",
    "increase": "increase is PromQL: use count_over_time, or sum_over_time with unwrap",
    "count_values": "count_values is PromQL: use sum by (label) (count_over_time(...))",
}


def parse(text: str) -> tree.Query:
    """
    The tree of a query.

    Args:
        text: a log query or a metric query.

    Raises:
        ParseError: it is neither; the message has line and column.
        LimitError: it is longer than `lexer.MAX_LENGTH`.
    """
    cursor = Cursor(text)
    if cursor.sees("end"):
        raise cursor.error('the query is empty; write for example {service_name=~".+"}')
    found = _Expressions(cursor).query()
    if not cursor.sees("end"):
        raise cursor.unexpected("an operator or the end of the query")
    return found


def parse_log(text: str) -> tree.LogQuery:
    """The tree of a log query; raises as `parse`, and when it is a metric query."""
    found = parse(text)
    if not isinstance(found, tree.LogQuery):
        raise ParseError("only a log query can stand here, this is a metric query", 1, 1)
    return found


def parse_selector(text: str) -> tuple[tree.Matcher, ...]:
    """The matchers of a bare `{selector}`; raises as `parse`."""
    cursor = Cursor(text)
    found = StageParser(cursor).selector()
    if not cursor.sees("end"):
        raise cursor.unexpected("the end of the selector")
    return found


class _Expressions:
    """Metric expressions, from a cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.stages = StageParser(cursor)

    def query(self) -> tree.Query:
        cursor = self.cursor
        with cursor.nested():
            if cursor.sees("{"):
                return self._log_query()
            if cursor.sees("(") and self._log_inside():
                cursor.take()
                inner = self.query()
                cursor.expect(")")
                return inner
            return self.metric(1)

    def _log_inside(self) -> bool:
        """Whether only parentheses stand between here and a selector."""
        count = 1
        while self.cursor.ahead(count).kind == "(":
            count += 1
        return self.cursor.ahead(count).kind == "{"

    def _log_query(self) -> tree.LogQuery:
        matchers = self.stages.selector()
        stages, unwrap = self.stages.stages()
        if unwrap is not None:
            raise self.cursor.error("`unwrap` stands only inside a range aggregation")
        return tree.LogQuery(matchers, stages)

    def metric(self, weakest: int) -> tree.Metric:
        """An expression whose operators bind at least as strongly as `weakest`."""
        cursor = self.cursor
        with cursor.nested():
            left = self._primary()
            while True:
                operator = cursor.token
                strength = PRECEDENCE.get(operator.text, 0) if _is_operator(operator) else 0
                if strength < weakest or not strength:
                    return left
                cursor.part()
                cursor.take()
                left = self._binary(operator, left, strength)

    def _binary(self, operator: Token, left: tree.Metric, strength: int) -> tree.Binary:
        cursor = self.cursor
        op = cast("tree.BinaryOp", operator.text)
        returns_bool = cursor.sees_word("bool")
        if returns_bool:
            if op not in tree.COMPARISONS:
                raise cursor.error("`bool` stands behind a comparison only")
            cursor.take()
        matching = self._matching(op)
        right_start = cursor.token
        right = self.metric(strength if op == "^" else strength + 1)
        if _is_number(left) or _is_number(right):
            if op in tree.SETS:
                raise cursor.error(f"`{op}` joins series, and a number is none", operator)
            if matching is not None:
                raise cursor.error(
                    "on, ignoring and group match series, a number is none", right_start
                )
        return tree.Binary(op, left, right, returns_bool, matching)

    def _matching(self, op: str) -> tree.Matching | None:
        cursor = self.cursor
        if not cursor.sees_word("on", "ignoring"):
            if cursor.sees_word("group_left", "group_right"):
                raise cursor.error("write on(...) or ignoring(...) before group_left, group_right")
            return None
        on = cursor.take().text == "on"
        labels = self._labels()
        if not cursor.sees_word("group_left", "group_right"):
            return tree.Matching(on, labels)
        if op in tree.SETS:
            raise cursor.error(f"`{op}` takes no group_left and group_right")
        group = "left" if cursor.take().text == "group_left" else "right"
        # `(` may also begin the right-hand side: it is a list of labels when it reads like one.
        include = self._labels() if self._labels_ahead() else ()
        return tree.Matching(on, labels, group, include)  # type: ignore[arg-type]

    def _labels_ahead(self) -> bool:
        cursor = self.cursor
        if not cursor.sees("("):
            return False
        count = 1
        while cursor.ahead(count).kind == "name" and cursor.ahead(count + 1).kind == ",":
            count += 2
        if cursor.ahead(count).kind == "name":
            count += 1
        return cursor.ahead(count).kind == ")"

    def _labels(self) -> tuple[str, ...]:
        cursor = self.cursor
        cursor.expect("(")
        found: list[str] = []
        while not cursor.sees(")"):
            if found:
                cursor.expect(",", what="`)` or `,`")
            cursor.part()
            found.append(cursor.expect("name", what="a label name").text)
        cursor.take()
        return tuple(found)

    def _primary(self) -> tree.Metric:
        cursor = self.cursor
        if cursor.sees("number", "duration", "size") or (
            cursor.sees("+", "-") and cursor.ahead().kind in ("number", "duration", "size")
        ):
            start = cursor.token
            value, kind = self.stages.literal()
            if kind != "number":
                raise cursor.error(
                    "a plain number stands here; times and sizes have no unit", start
                )
            return tree.Scalar(value)
        if cursor.sees("("):
            if self._log_inside():
                raise cursor.error("lines cannot be calculated with: count them, or take a rate")
            cursor.take()
            inner = self.metric(1)
            cursor.expect(")")
            return inner
        if cursor.sees("{"):
            raise cursor.error("lines cannot be calculated with: count them, or take a rate")
        if not cursor.sees("name"):
            raise cursor.unexpected("a selector `{...}`, a function or a number")
        return self._call()

    def _call(self) -> tree.Metric:
        cursor = self.cursor
        word = cursor.take()
        if word.text in REFUSED:
            raise cursor.error(REFUSED[word.text], word)
        if word.text not in FUNCTIONS:
            near = difflib.get_close_matches(word.text[:64], sorted(FUNCTIONS), 1)
            hint = f"did you mean {near[0]}?" if near else "a query begins with { or a function"
            raise cursor.error(f"`{word.text[:64]}` is no function of LogQL; {hint}", word)
        if word.text in RANGES:
            return self._range_aggregation(word)
        if word.text in VECTORS:
            return self._vector_aggregation(word)
        cursor.expect("(")
        if word.text == "vector":
            value, kind = self.stages.literal()
            if kind != "number":
                raise cursor.error("vector() takes a plain number", word)
            cursor.expect(")")
            return tree.Vector(value)
        return self._label_replace()

    def _label_replace(self) -> tree.LabelReplace:
        cursor = self.cursor
        of = self.metric(1)
        tokens = []
        for what in ("the label to set", "the replacement", "the label to read", "the expression"):
            cursor.expect(",")
            tokens.append(cursor.expect("string", what=f"{what} as a string"))
        cursor.checked(tokens[3], lambda: regex.compiled(tokens[3].text))
        if not tokens[0].text.isidentifier() or not tokens[0].text.isascii():
            raise cursor.error("this is no label name", tokens[0])
        cursor.expect(")")
        return tree.LabelReplace(of, *(token.text for token in tokens))

    def _number_before_comma(self) -> float | None:
        """The parameter in front of the operand, where there is one."""
        cursor = self.cursor
        count = 2 if cursor.sees("+", "-") else 1
        if cursor.sees("number", "+", "-") and cursor.ahead(count).kind == ",":
            value, _ = self.stages.literal()
            cursor.take()
            return value
        return None

    def _range_aggregation(self, word: Token) -> tree.RangeAggregation:
        cursor = self.cursor
        cursor.expect("(")
        at = cursor.token
        parameter = self._number_before_comma()
        if (parameter is not None) != (word.text == "quantile_over_time"):
            wanted = "a number first: quantile_over_time(0.95, ...)" if parameter is None else ""
            raise cursor.error(f"{word.text} takes {wanted or 'no number'}", at)
        window = self._window()
        cursor.expect(")")
        if window.unwrap is not None and word.text not in VALUES | BOTH:
            raise cursor.error(f"invalid aggregation {word.text} with unwrap", word)
        if window.unwrap is None and word.text not in LINES | BOTH:
            raise cursor.error(f"invalid aggregation {word.text} without unwrap", word)
        grouping = None
        if cursor.sees_word("by", "without"):
            if word.text not in GROUPED_RANGES:
                raise cursor.error(
                    f"{word.text} takes no grouping: write sum by (...) ({word.text}(...))"
                )
            grouping = self._grouping()
        return tree.RangeAggregation(word.text, window, parameter, grouping)

    def _window(self) -> tree.LogRange:
        """`{...} stages [5m] offset 1m`; the range may also stand before the stages."""
        cursor = self.cursor
        with cursor.nested():
            if cursor.sees("("):
                cursor.take()
                inner = self._window() if self._log_inside() or cursor.sees("{") else None
                if inner is None:
                    raise cursor.unexpected("a selector `{...}`")
                cursor.expect(")")
                if inner.window:
                    return inner
                window, offset = self._range()
                return tree.LogRange(inner.query, window, offset, inner.unwrap)
            if not cursor.sees("{"):
                raise cursor.unexpected('a selector `{...}` with a range, like {a="b"}[5m]')
            matchers = self.stages.selector()
            window, offset = self._range() if cursor.sees("[") else (0, 0)
            stages, unwrap = self.stages.stages()
            if not window and not cursor.sees(")"):
                window, offset = self._range()
            elif not window and not self._closes_group():
                raise cursor.unexpected("a range like [5m]")
            return tree.LogRange(tree.LogQuery(matchers, stages), window, offset, unwrap)

    def _closes_group(self) -> bool:
        """Whether a range stands behind the next parenthesis: `({...})[5m]`."""
        count = 1
        while self.cursor.ahead(count).kind == ")":
            count += 1
        return self.cursor.ahead(count).kind == "["

    def _range(self) -> tuple[int, int]:
        cursor = self.cursor
        cursor.expect("[", what="a range like [5m]")
        at = cursor.token
        window = self.stages.duration()
        if window <= 0:
            raise cursor.error("a range is longer than 0", at)
        if cursor.sees(":"):
            raise cursor.error("LogQL has no subqueries: write one duration, like [5m]")
        cursor.expect("]")
        offset = 0
        if cursor.sees_word("offset"):
            cursor.take()
            sign = -1 if cursor.accept("-") else 1
            offset = sign * self.stages.duration()
        return window, offset

    def _grouping(self) -> tree.Grouping:
        without = self.cursor.take().text == "without"
        return tree.Grouping(without, self._labels())

    def _vector_aggregation(self, word: Token) -> tree.VectorAggregation:
        cursor = self.cursor
        grouping = self._grouping() if cursor.sees_word("by", "without") else None
        cursor.expect("(")
        at = cursor.token
        parameter = self._number_before_comma()
        if (parameter is not None) != (word.text in COUNTED):
            wanted = f"a number first: {word.text}(5, ...)" if parameter is None else "no number"
            raise cursor.error(f"{word.text} takes {wanted}", at)
        if parameter is not None and (parameter < 1 or parameter != int(parameter)):
            raise cursor.error(f"{word.text} takes a whole number from 1", at)
        of = self.metric(1)
        cursor.expect(")", what="`)` or an operator")
        if grouping is None and cursor.sees_word("by", "without"):
            grouping = self._grouping()
        if grouping is not None and word.text in SORTS:
            raise cursor.error(f"{word.text} takes no grouping", word)
        count = None if parameter is None else int(parameter)
        return tree.VectorAggregation(word.text, of, count, grouping)


def _is_number(found: tree.Metric) -> bool:
    """Whether an expression has no series in it."""
    if isinstance(found, tree.Binary):
        return _is_number(found.left) and _is_number(found.right)
    return isinstance(found, tree.Scalar)


def _is_operator(token: Token) -> bool:
    return token.kind == token.text or (token.kind == "name" and token.text in tree.SETS)
