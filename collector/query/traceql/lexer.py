"""
Text -> tokens. One pass, no backtracking, every token with its offset.

Attributes are read here and not in the parser, because their names follow rules of their own: they
run to the next space or one of `{}()=~!<>&|^,`, so that `.a-b` and `.a/b` are one name each, and
may hold quoted parts with any character. Numbers keep their exact text until the parser knows the
sign in front of them.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from collector.query.traceql.errors import ParseError

SCOPES: Final = ("resource", "span", "event", "link", "instrumentation")
"""The scopes that an attribute may be written with."""

UNIT_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
    "y": 31_536_000_000_000_000,
}
"""Nanoseconds of a duration's units; `y` is 365 days."""

_MAX_DIGITS: Final = 400
_STOPS: Final = frozenset("{}()=~!<>&|^,")
_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_UNIT: Final = r"(?:ns|us|µs|μs|ms|s|m|h|d|w|y)"
_DURATION: Final = re.compile(rf"(?:{_NUMBER}{_UNIT})+(?![A-Za-z0-9_.])")
_PART: Final = re.compile(rf"({_NUMBER})({_UNIT})")
_FLOAT: Final = re.compile(rf"{_NUMBER}(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])")
_INT: Final = re.compile(r"[0-9]+(?![A-Za-z0-9_.])")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::[A-Za-z_][A-Za-z0-9_]*)?")
_OPERATOR: Final = re.compile(
    r"&>>|&<<|!>>|!<<|&>|&<|&~|&&|\|\||!>|!<|!=|!~|=~|>>|<<|>=|<=|[{}()=~!<>|^,+\-*/%]"
)
_ESCAPES: Final = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    '"': b'"',
}
_HEX: Final = {"x": 2, "u": 4, "U": 8}


@dataclass(slots=True, frozen=True)
class Token:
    """
    One piece of a query.

    Args:
        kind: `string`, `int`, `float`, `duration`, `word`, `attribute`, `op` or `end`.
        value: the text of a string, word or operator; the number; the nanoseconds; the
            (scope, name, of the parent) of an attribute.
        offset: where it begins.
        text: as it was written, for messages.
    """

    kind: str
    value: Any
    offset: int
    text: str = ""


def tokens(text: str) -> list[Token]:
    """
    All tokens of a query, `end` as the last.

    Raises:
        ParseError: no token begins there, a string does not end, or an escape is wrong.
    """
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> list[Token]:
        found: list[Token] = []
        text, length = self._text, len(self._text)
        while True:
            while self._at < length and text[self._at].isspace():
                self._at += 1
            begin = self._at
            if begin == length:
                found.append(Token("end", "", begin, "end of the query"))
                return found
            kind, value = self._next()
            found.append(Token(kind, value, begin, text[begin : self._at]))

    def _next(self) -> tuple[str, Any]:
        text, begin = self._text, self._at
        char = text[begin]
        if char == '"':
            return "string", self._quoted()
        if char == "`":
            end = text.find("`", begin + 1)
            if end < 0:
                raise ParseError(text, begin, "syntax error: string without its closing `")
            self._at = end + 1
            return "string", text[begin + 1 : end]
        following = text[begin + 1 : begin + 2]
        if char in "0123456789" or (char == "." and following and following in "0123456789"):
            return self._number()
        if char == ".":
            self._at += 1
            return "attribute", (None, self._name(), False)
        if word := _WORD.match(text, begin):
            return self._word(word[0])
        if operator := _OPERATOR.match(text, begin):
            self._at = operator.end()
            return "op", operator[0]
        raise ParseError(text, begin, f"syntax error: unexpected {char!r}")

    def _word(self, word: str) -> tuple[str, Any]:
        self._at += len(word)
        text = self._text
        if not text.startswith(".", self._at) or word not in (*SCOPES, "parent"):
            return "word", word
        self._at += 1
        if word != "parent":
            return "attribute", (word, self._name(), False)
        for scope in ("span", "resource"):
            if text.startswith(f"{scope}.", self._at):
                self._at += len(scope) + 1
                return "attribute", (scope, self._name(), True)
        return "attribute", (None, self._name(), True)

    def _number(self) -> tuple[str, Any]:
        text, begin = self._text, self._at
        if found := _DURATION.match(text, begin):
            self._at = found.end()
            if len(found[0]) > _MAX_DIGITS:
                raise ParseError(text, begin, "syntax error: a duration of so many digits")
            return "duration", sum(
                nanoseconds(number, unit) for number, unit in _PART.findall(found[0])
            )
        for kind, pattern in (("int", _INT), ("float", _FLOAT)):
            if found := pattern.match(text, begin):
                self._at = found.end()
                number = found[0] if len(found[0]) <= _MAX_DIGITS else "1e999"
                value = int(number) if kind == "int" and number.isdigit() else float(number)
                if value == math.inf:
                    raise ParseError(text, begin, "syntax error: the number is too large")
                return kind, value
        raise ParseError(text, begin, "syntax error: a number or a duration (1h30m) was expected")

    def _name(self) -> str:
        """An attribute's name from here on."""
        text, begin = self._text, self._at
        parts: list[str] = []
        while self._at < len(text):
            char = text[self._at]
            if char == '"':
                parts.append(self._quoted())
            elif char in _STOPS or char.isspace():
                break
            else:
                parts.append(char)
                self._at += 1
        if self._at == begin:
            raise ParseError(text, begin, "syntax error: the attribute has no name")
        return "".join(parts)

    def _quoted(self) -> str:
        """The text of a quoted string with Go's escapes; it begins here."""
        text, begin = self._text, self._at
        made = bytearray()
        self._at += 1
        while self._at < len(text):
            char = text[self._at]
            if char == '"':
                self._at += 1
                try:
                    return made.decode()
                except UnicodeDecodeError:
                    raise ParseError(text, begin, "syntax error: not UTF-8 in a string") from None
            if char == "\n":
                break
            if char == "\\":
                made += self._escape()
            else:
                made += char.encode()
                self._at += 1
        raise ParseError(text, begin, 'syntax error: string without its closing "')

    def _escape(self) -> bytes:
        text, begin = self._text, self._at
        letter = text[begin + 1 : begin + 2]
        if letter in _ESCAPES:
            self._at += 2
            return _ESCAPES[letter]
        width = _HEX.get(letter, 0)
        digits = text[begin + 2 : begin + 2 + width] if width else text[begin + 1 : begin + 4]
        base = 16 if width else 8
        pattern = rf"[0-9a-fA-F]{{{width}}}" if width else "[0-3][0-7]{2}"
        if re.fullmatch(pattern, digits):
            code = int(digits, base)
            self._at += 2 + width if width else 4
            if letter == "x" or not width:
                return bytes((code,))
            if code < 0x110000 and not 0xD800 <= code < 0xE000:
                return chr(code).encode()
        raise ParseError(text, begin, "syntax error: unknown escape in a string")


def nanoseconds(number: str, unit: str) -> int:
    """The whole nanoseconds of `number` units, cut; exact, because a float would round years."""
    whole, _, fraction = number.partition(".")
    factor = UNIT_NS[unit]
    return int(whole or 0) * factor + (
        int(fraction) * factor // 10 ** len(fraction) if fraction else 0
    )
