"""
A place among the tokens of a query, and what may be built there.

The parser asks what stands here and takes it; what it builds is counted, so that a query within the
bounds gives a tree that a walk can go down without running out of stack.
"""

from typing import Final, TypeVar

from collector.query.traceql.errors import ParseError
from collector.query.traceql.lexer import Token, tokens
from collector.query.traceql.tree import Expression, Spanset

MAX_NESTING: Final = 40
"""Parentheses and prefix operators inside one another."""
MAX_DEPTH: Final = 150
"""Operators one below the other, such as 150 conditions joined by `&&`."""
MAX_NODES: Final = 1000
"""Values and operators of a query."""

N = TypeVar("N", bound=Expression | Spanset)


class Cursor:
    """The tokens of a text, and how far they were read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._at = 0
        self._nesting = 0
        self._nodes = 0
        self._depths: dict[int, int] = {}
        self._kept: list[object] = []  # keeps the ids of `_depths` from being used again

    @property
    def _token(self) -> Token:
        return self._tokens[self._at]

    def _is(self, *values: str) -> bool:
        return self._token.kind == "op" and self._token.value in values

    def _is_word(self, *values: str) -> bool:
        return self._token.kind == "word" and self._token.value in values

    def _take(self, *values: str) -> bool:
        found = self._is(*values)
        self._at += found
        return found

    def _take_word(self, *values: str) -> bool:
        found = self._is_word(*values)
        self._at += found
        return found

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise self._unexpected(f"{value} was expected")

    def _unexpected(self, expected: str) -> ParseError:
        token = self._token
        shown = token.text if len(token.text) <= 40 else f"{token.text[:40]}..."
        return ParseError(self._text, token.offset, f"syntax error: unexpected {shown}; {expected}")

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise ParseError(
                self._text, self._token.offset, f"more than {MAX_NESTING} levels of nesting"
            )

    def _built(self, node: N, *parts: Expression | Spanset) -> N:
        """The node, once it is known to be within the bounds."""
        depth = 1 + max((self._depths.get(id(part), 1) for part in parts), default=0)
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            what = f"{MAX_DEPTH} operators in a row" if depth > MAX_DEPTH else f"{MAX_NODES} parts"
            raise ParseError(self._text, self._token.offset, f"more than {what}")
        if depth > 1:
            self._depths[id(node)] = depth
            self._kept.append(node)
        return node
