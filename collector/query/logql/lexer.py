"""
LogQL text -> tokens, each with its place.

One regular expression of our own finds the next token; it has no nested repetition that could
backtrack, so a hostile text costs time in proportion to its length. A fault is reported where it
stands. Words are not keywords here: a label may be called `rate`, and only the parser knows where
it looks at a function.
"""

import re
from dataclasses import dataclass
from typing import Final

from collector.query.logql import units
from collector.query.logql.errors import LimitError, ParseError

MAX_LENGTH: Final = 64 * 1024
"""Characters of a query; a person writes a few hundred, a dashboard a few thousand."""

_TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\r\n]+|\#[^\n]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<raw>`[^`]*`)
    | (?P<duration>"""
    + units.DURATION
    + r""")(?![A-Za-z0-9_.µμ])
    | (?P<size>"""
    + units.SIZE
    + r""")(?![A-Za-z0-9_.])
    | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
    | (?P<flag>--[a-z]+(?:-[a-z]+)*)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<operator>\|=|\|~|\|>|!=|!~|!>|=~|==|>=|<=|[|=<>{}()\[\],+\-*/%^:])
    """,
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    r"""\\(?:([abfnrtv\\"'])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|)"""
)
_SIMPLE: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
}


@dataclass(slots=True, frozen=True)
class Token:
    """
    One word of the query.

    Args:
        kind: "string", "number", "duration", "size", "name", "flag", "end", or the operator itself.
        text: of a string its value without quotes and escapes, else as written.
        start: where it begins in the query, from 0.
        end: behind its last character.
    """

    kind: str
    text: str
    start: int
    end: int


def place(text: str, position: int) -> tuple[int, int]:
    """Line and column, both from 1, of a position in a query."""
    line = text.count("\n", 0, position) + 1
    return line, position - (text.rfind("\n", 0, position) + 1) + 1


def fault(text: str, position: int, reason: str) -> ParseError:
    """The error that says what is wrong at a position of the query."""
    return ParseError(reason, *place(text, position))


def tokens(text: str) -> list[Token]:
    """
    The tokens of a query, the last one of kind "end".

    Raises:
        ParseError: a character or a string that LogQL does not have.
        LimitError: the text is longer than `MAX_LENGTH`.
    """
    if len(text) > MAX_LENGTH:
        raise LimitError(
            f"the query has {len(text)} characters; at most {MAX_LENGTH} are read: shorten it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as bad:
        raise fault(text, bad.start, "this character is no valid Unicode") from None
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise fault(text, position, _why(text, position))
        kind, start, position = str(match.lastgroup), match.start(), match.end()
        written = match[0]
        if kind == "string":
            found.append(Token(kind, _unquoted(text, written, start), start, position))
        elif kind == "raw":
            found.append(Token("string", written[1:-1], start, position))
        elif kind == "operator":
            found.append(Token(written, written, start, position))
        elif kind != "space":
            found.append(Token(kind, written, start, position))
    found.append(Token("end", "", len(text), len(text)))
    return found


def _why(text: str, position: int) -> str:
    """What is wrong with text that no token begins with."""
    character = text[position]
    if character == '"':
        return 'this string has no closing " on its line'
    if character == "`":
        return "this string has no closing `"
    if character == "'":
        return "strings stand in double quotes or backticks, not in single quotes"
    if character == ".":
        return "a label name has no dots: write an underscore for each (service_name)"
    if character.isdigit():
        return "this is no number, duration (5m, 1h30m) or size (10KB)"
    if character == "!":
        return "a single ! means nothing: write !=, !~ or !>"
    return f"{character!r} is no part of LogQL"


def _unquoted(text: str, written: str, start: int) -> str:
    """The value of a double-quoted string, with Go's escapes."""
    if "\\" not in written:
        return written[1:-1]
    parts: list[bytes] = []
    position, last = 1, len(written) - 1
    while position < last:
        backslash = written.find("\\", position, last)
        if backslash < 0:
            parts.append(written[position:last].encode())
            break
        parts.append(written[position:backslash].encode())
        match = _ESCAPE.match(written, backslash)
        value = match and _escaped(*match.groups())
        if match is None or value is None:
            reason = rf"\{written[backslash + 1]} is no escape; write \\ for a backslash"
            raise fault(text, start + backslash, reason + ", or the string in backticks")
        parts.append(value)
        position = match.end()
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise fault(text, start, "the escapes of this string make no valid UTF-8") from None


def _escaped(
    simple: str | None, byte: str | None, octal: str | None, short: str | None, long: str | None
) -> bytes | None:
    """The bytes that one escape stands for, None for one that stands for nothing."""
    if simple:
        return _SIMPLE[simple].encode()
    if byte:
        return bytes((int(byte, 16),))
    if octal:
        value = int(octal, 8)
        return bytes((value,)) if value < 256 else None
    point = int(short or long or "110000", 16)
    if point > 0x10FFFF or 0xD800 <= point < 0xE000:
        return None
    return chr(point).encode()
