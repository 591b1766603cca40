"""
The parser's place among the tokens: look, take, complain; and the bounds on what is built.

Both parsers (pipelines and metric expressions) move one cursor. It counts nesting and operators,
so that no query makes a tree that is deeper than Python's stack.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from collector.query.logql import lexer
from collector.query.logql.errors import ParseError
from collector.query.logql.lexer import Token

MAX_DEPTH: Final = 64
"""Parentheses and calls inside one another."""
MAX_PARTS: Final = 200
"""Operators, stages, matchers and filters of a query, together."""

T = TypeVar("T")


class Cursor:
    """The tokens of one query, and where the parser is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = lexer.tokens(text)
        self._index = 0
        self._depth = 0
        self._parts = 0

    @property
    def token(self) -> Token:
        """The next token, not taken yet."""
        return self._tokens[self._index]

    def ahead(self, count: int = 1) -> Token:
        """The token `count` behind the next one."""
        return self._tokens[min(self._index + count, len(self._tokens) - 1)]

    def take(self) -> Token:
        """The next token, taken; the end is never passed."""
        token = self.token
        if token.kind != "end":
            self._index += 1
        return token

    def sees(self, *kinds: str) -> bool:
        """Whether the next token is one of these kinds."""
        return self.token.kind in kinds

    def sees_word(self, *words: str) -> bool:
        """Whether the next token is a name and one of these."""
        return self.token.kind == "name" and self.token.text in words

    def accept(self, kind: str) -> bool:
        """Take the next token if it is of this kind."""
        if self.token.kind == kind:
            self.take()
            return True
        return False

    def expect(self, kind: str, *, what: str = "") -> Token:
        """Take a token of this kind, or say what is missing."""
        if self.token.kind != kind:
            raise self.unexpected(what or f"`{kind}`")
        return self.take()

    def unexpected(self, wanted: str) -> ParseError:
        """The error for a token that cannot stand here."""
        token = self.token
        found = "the end of the query" if token.kind == "end" else self._shown(token)
        return self.error(f"expected {wanted}, found {found}")

    def error(self, reason: str, token: Token | None = None) -> ParseError:
        """An error at a token, the next one unless another is given."""
        return lexer.fault(self._text, (token or self.token).start, reason)

    def checked(self, token: Token, make: Callable[[], T]) -> T:
        """What `make` makes; its `ValueError` is the fault of a token."""
        try:
            return make()
        except ParseError:
            raise
        except ValueError as bad:
            raise self.error(str(bad), token) from None

    def part(self) -> None:
        """Count one more operator, stage, matcher or filter."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise self.error(f"a query has at most {MAX_PARTS} operators, stages and filters")

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """One level deeper while entered."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.error(f"nested too deeply: at most {MAX_DEPTH} levels")
        try:
            yield
        finally:
            self._depth -= 1

    def _shown(self, token: Token) -> str:
        written = self._text[token.start : token.end]
        return f"`{written if len(written) <= 40 else written[:40] + '...'}`"
