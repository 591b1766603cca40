"""
The loops over attributes that a compiler makes faster, and the same in Python.

`native/telemetry/attributes.c` and `redact.c` hold the compiled ones; tests/telemetry/test_native.py
compares both. Callers use the four names at the end and do not know which one they got.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from telemetry._native import core

_HARMLESS = re.compile(
    r"[\w/#-]{0,13}\Z|(?=[0-9]*[a-fA-F-])(?:(?:[0-9a-fA-F-]{4}){4,6}|[0-9a-fA-F-]{32}|[0-9a-fA-F-]{36}"
    r"|[0-9a-fA-F-]{40}|[0-9a-fA-F-]{64})\Z",
    re.ASCII,
)
"""Short texts without marks, and ids as programs make them: hexadecimal, with a letter or a dash."""
NESTED: Final = 8
"""Maps inside of each other that are looked into."""
_SCALARS: Final = frozenset((int, float, bool, type(None)))


def python_values_to_redact(
    mapping: dict[str, Any], actions: dict[str, bool], clean: set[str], short_is_clean: bool
) -> list[str] | None:
    """
    The names whose values redaction has to look at, or None.

    Args:
        mapping: the attributes.
        actions: names with a known decision: True for those whose values are left as they are.
        clean: texts in which nothing was found.
        short_is_clean: whether short texts of letters and digits need no look: not with own patterns.
    """
    return _to_redact(mapping, actions, clean, short_is_clean, NESTED) or None


def _to_redact(
    mapping: dict[str, Any],
    actions: dict[str, bool],
    clean: set[str],
    short_is_clean: bool,
    depth: int,
) -> list[str]:
    found = []
    for name, value in mapping.items():
        action = actions.get(name) if type(name) is str else None
        if action is True:
            continue
        if action is False:
            kind = type(value)
            if kind is str:
                if (short_is_clean and _HARMLESS.match(value)) or value in clean:
                    continue
            elif kind in _SCALARS or (
                kind is dict
                and depth > 0
                and "value" not in value  # it could be {"name": "password", "value": "x"}
                and not _to_redact(value, actions, clean, short_is_clean, depth - 1)
            ):
                continue
        found.append(name)
    return found


def python_estimated_bytes(
    mapping: dict[str, Any], slow: Callable[[Any], int], depth: int = NESTED
) -> int:
    """About how many bytes the pairs take on the wire; `slow` estimates what is no plain value."""
    size = 8
    for name, value in list(mapping.items()):
        size += len(name) if isinstance(name, str) else 16
        kind = type(value)
        if kind is str:
            size += len(value) + 16
        elif kind in _SCALARS:
            size += 20
        elif kind is dict and depth > 0:
            size += 8 + python_estimated_bytes(value, slow, depth - 1)
        else:
            size += 8 + slow(value)
    return size


def python_without_keys(mapping: dict[str, Any], names: frozenset[str]) -> dict[str, Any] | None:
    """The pairs of a mapping whose names are not among `names`, or None."""
    return {name: value for name, value in mapping.items() if name not in names} or None


PLAIN: Final = 2
"""What `needs_no_cleaning` says of texts, numbers and booleans that need no cleaning; 1 is the same with None."""
PLAIN_PAIRS: Final = 128
PLAIN_TEXT: Final = 1024
_INT64: Final = 1 << 63


def python_needs_no_cleaning(mapping: object) -> int:
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


values_to_redact: Final[
    Callable[[dict[str, Any], dict[str, bool], set[str], bool], list[str] | None]
] = getattr(core, "values_to_redact", python_values_to_redact)
estimated_bytes: Final[Callable[[dict[str, Any], Callable[[Any], int]], int]] = getattr(
    core, "estimated_bytes", python_estimated_bytes
)
without_keys: Final[Callable[[dict[str, Any], frozenset[str]], dict[str, Any] | None]] = getattr(
    core, "without_keys", python_without_keys
)
needs_no_cleaning: Final[Callable[[object], int]] = getattr(
    core, "needs_no_cleaning", python_needs_no_cleaning
)
