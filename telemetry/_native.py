"""
The loops over attributes that a compiler makes faster, and the same in Python.

`telemetry/_core.c` says what they do; the build compiles it where it can. OTELIER_PURE_PYTHON=1
keeps to Python. The third loop, which encodes, is in `_wire`.
"""

import importlib
import os
import re
from collections.abc import Callable
from typing import Any, Final

_DULL = re.compile(
    r"[\w/#-]{0,13}\Z|(?=[0-9]*[a-fA-F-])(?:(?:[0-9a-fA-F-]{4}){4,6}|[0-9a-fA-F-]{32}|[0-9a-fA-F-]{36}"
    r"|[0-9a-fA-F-]{40}|[0-9a-fA-F-]{64})\Z",
    re.ASCII,
)
"""Short texts without marks, and ids as programs make them: hexadecimal, with a letter or a dash."""
NESTED: Final = 8
"""Maps inside of each other that are looked into."""
_SCALARS: Final = frozenset((int, float, bool, type(None)))


def unsettled(
    mapping: dict[str, Any], actions: dict[str, bool], clean: set[str], dull: bool
) -> list[str] | None:
    """
    The names whose values redaction has to look at, or None.

    Args:
        mapping: the attributes.
        actions: names with a known decision: True for those whose values are left as they are.
        clean: texts in which nothing was found.
        dull: whether short texts of letters and digits need no look: not with patterns of one's own.
    """
    return _unsettled(mapping, actions, clean, dull, NESTED) or None


def _unsettled(
    mapping: dict[str, Any], actions: dict[str, bool], clean: set[str], dull: bool, depth: int
) -> list[str]:
    found = []
    for name, value in mapping.items():
        action = actions.get(name) if type(name) is str else None
        if action is True:
            continue
        if action is False:
            kind = type(value)
            if kind is str:
                if (dull and _DULL.match(value)) or value in clean:
                    continue
            elif kind in _SCALARS or (
                kind is dict
                and depth > 0
                and "value" not in value  # it could be {"name": "password", "value": "x"}
                and not _unsettled(value, actions, clean, dull, depth - 1)
            ):
                continue
        found.append(name)
    return found


def weigh(mapping: dict[str, Any], slow: Callable[[Any], int], depth: int = NESTED) -> int:
    """About how many bytes the pairs take on the wire; `slow` weighs what is no plain value."""
    size = 8
    for name, value in list(mapping.items()):
        size += len(name) if isinstance(name, str) else 16
        kind = type(value)
        if kind is str:
            size += len(value) + 16
        elif kind in _SCALARS:
            size += 20
        elif kind is dict and depth > 0:
            size += 8 + weigh(value, slow, depth - 1)
        else:
            size += 8 + slow(value)
    return size


def others(mapping: dict[str, Any], names: frozenset[str]) -> dict[str, Any] | None:
    """The pairs of a mapping whose names are not among `names`, or None."""
    return {name: value for name, value in mapping.items() if name not in names} or None


PLAIN: Final = 2
"""What `plain` says of texts, numbers and booleans that need no cleaning; 1 is the same with None."""
PLAIN_PAIRS: Final = 128
PLAIN_TEXT: Final = 1024
_INT64: Final = 1 << 63


def plain(mapping: object) -> int:
    """`PLAIN`, 1, or 0 when a name or a value of a mapping needs a look."""
    if type(mapping) is not dict or len(mapping) > PLAIN_PAIRS:
        return 0
    found = PLAIN
    for name, value in mapping.items():
        kind = type(value)
        if type(name) is not str or not name:
            return 0
        if kind is str:
            if len(value) > PLAIN_TEXT or not value.isascii():
                return 0
        elif kind is int:
            if not -_INT64 <= value < _INT64:
                return 0
        elif value is None:
            found = 1
        elif kind is not float and kind is not bool:
            return 0
    return found


def load() -> Any:
    """The compiled loops, or None."""
    if os.environ.get("OTELIER_PURE_PYTHON") == "1":
        return None
    try:
        return importlib.import_module("telemetry._core")
    except ImportError:
        return None


core: Final = load()
fast_unsettled: Final[
    Callable[[dict[str, Any], dict[str, bool], set[str], bool], list[str] | None]
] = getattr(core, "unsettled", unsettled)
fast_weigh: Final[Callable[[dict[str, Any], Callable[[Any], int]], int]] = getattr(
    core, "weigh", weigh
)
fast_others: Final[Callable[[dict[str, Any], frozenset[str]], dict[str, Any] | None]] = getattr(
    core, "others", others
)
fast_plain: Final[Callable[[object], int]] = getattr(core, "plain", plain)
process_id: Final[Callable[[], int]] = getattr(core, "process_id", os.getpid)
"""`os.getpid`; natively without the system call, and right in every child, with or without fork hooks."""
