"""
Pattern expressions, `<ip> - <_> "<method> <path>"`: cut a line at literals, without regular
expressions.

The same expression means two things. As a parser it captures: a literal that is missing ends the
last capture at the end of the line. As a line filter (`|>`) it tests the whole line, no capture may
be empty, and its captures have no names.
"""

import re
from dataclasses import dataclass
from typing import Final

_CAPTURE: Final = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
ANONYMOUS: Final = "_"


@dataclass(slots=True, frozen=True)
class Part:
    """A literal text, or a capture of that name ("_" keeps nothing)."""

    text: str
    capture: bool


def parts(expression: str) -> tuple[Part, ...]:
    """
    The literals and captures of an expression, in turn.

    Raises:
        ValueError: two captures touch, so nothing says where the first one ends; or it is empty.
    """
    found: list[Part] = []
    position = 0
    for match in _CAPTURE.finditer(expression):
        if match.start() > position:
            found.append(Part(expression[position : match.start()], capture=False))
        elif found and found[-1].capture:
            raise ValueError(
                f"<{found[-1].text}> and <{match[1]}> touch: write a character between them"
            )
        found.append(Part(match[1], capture=True))
        position = match.end()
    if position < len(expression):
        found.append(Part(expression[position:], capture=False))
    if not found:
        raise ValueError("the pattern is empty")
    return tuple(found)


class Extractor:
    """
    `| pattern "..."`.

    Raises:
        ValueError: see `parts`; or no capture has a name, or two have the same.
    """

    def __init__(self, expression: str) -> None:
        self._parts = parts(expression)
        names = [part.text for part in self._parts if part.capture and part.text != ANONYMOUS]
        if not names:
            raise ValueError("the pattern captures nothing: name a part, like <method>")
        if len(set(names)) < len(names):
            raise ValueError("two captures of the pattern have the same name")

    def __call__(self, line: str) -> dict[str, str]:
        """The captures of a line; empty when it does not begin as the pattern does."""
        found: dict[str, str] = {}
        rest, todo = line, self._parts
        if not todo[0].capture:
            if not rest.startswith(todo[0].text):
                return found
            rest, todo = rest[len(todo[0].text) :], todo[1:]
        for index in range(0, len(todo), 2):
            capture = todo[index].text
            literal = todo[index + 1].text if index + 1 < len(todo) else None
            end = rest.find(literal) if literal is not None else -1
            if capture != ANONYMOUS:
                found[capture] = rest if end < 0 else rest[:end]
            if end < 0 or literal is None:
                break
            rest = rest[end + len(literal) :]
        return found


class Tester:
    """
    `|> "..."`.

    Raises:
        ValueError: see `parts`; or a capture has a name.
    """

    def __init__(self, expression: str) -> None:
        self._parts = parts(expression) if expression else ()
        if any(part.capture and part.text != ANONYMOUS for part in self._parts):
            raise ValueError("a pattern that filters lines keeps nothing: write <_> only")

    def __call__(self, line: str) -> bool:
        """Whether the whole line has this shape."""
        if not line or not self._parts:
            return not line and not self._parts
        position = 0
        for index, part in enumerate(self._parts):
            if part.capture:
                continue
            at = line.find(part.text, position)
            # A literal at the very start of its search would leave the capture before it empty.
            if at < 0 or (at > 0 if index == 0 else at == position):
                return False
            position = at + len(part.text)
        return self._parts[-1].capture == (position < len(line))
