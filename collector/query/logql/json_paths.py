r"""The paths of `| json label="a.b[0]["c.d"]"`: keys by dots or in brackets, and indexes."""

import re
from typing import Any, Final

_STEP: Final = re.compile(
    r"""(?P<dot>\.)?(?P<key>[A-Za-z_][A-Za-z0-9_\-]*)|\[(?P<index>[0-9]{1,9})\]|\["(?P<quoted>[^"]*)"\]"""
)
MISSING: Final = object()
"""What `look` returns for a path that leads nowhere; null is a value."""


def path(text: str) -> tuple[str | int, ...]:
    """
    The steps of a path.

    Raises:
        ValueError: it is none.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or (match["key"] and bool(match["dot"]) == (not steps)):
            raise ValueError('this is no JSON path: write a.b, a[0] or a["b.c"]')
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["key"] if match["key"] is not None else match["quoted"])
        position = match.end()
    if not steps:
        raise ValueError("the JSON path is empty")
    return tuple(steps)


def look(value: Any, steps: tuple[str | int, ...]) -> Any:
    """What stands at a path inside a decoded value."""
    for step in steps:
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                return MISSING
            value = value[step]
        else:
            if not isinstance(value, list) or step >= len(value):
                return MISSING
            value = value[step]
    return value
