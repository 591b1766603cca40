"""
Levels of any logging system -> OpenTelemetry's severity.

A level is a number (stdlib's, where any integer may be registered), a word, or both. The words are
those of appendix B of OpenTelemetry's log data model (syslog, Windows events, Log4j, Zap,
java.util.logging, .NET), of journald and of the Python loggers, whatever their case and the spaces
around them. Where both are known and disagree (`logging.addLevelName(25, "NOTICE")`), the word is
what the application meant. One word has two places in the appendix: `critical` is FATAL as it is
everywhere in Python, and not ERROR2 as in syslog.

Severities travel through stdlib as a level of its own scale: `LEVEL[number]` is the level that
`NUMBER` turns into that severity, so that one table serves both ways of a record.
"""

import logging
from typing import Any, Final

from telemetry import _values

NUMBER: Final = (
    0,
    *(1, 1, 1, 1, 1, 2, 3, 4, 4),
    *(level // 10 * 4 + 1 + min(level % 10, 3) for level in range(10, 54)),
)
"""stdlib's level -> severity number; 5 is what loggers call TRACE. Beyond the end: the last one."""

LEVEL: Final = (0, 5, 6, 7, 8, *(number // 4 * 10 + number % 4 for number in range(4, 24)))
"""Severity number -> a level of stdlib that means it."""

_NAMES: Final = ("trace", "debug", "info", "warn", "error", "fatal")
WORDS: Final[dict[str, int]] = {
    **{
        f"{name}{step or ''}": 4 * place + max(step, 1)
        for place, name in enumerate(_NAMES)
        for step in (0, 1, 2, 3, 4)
    },
    # syslog, journald and their short forms
    "emergency": 21,
    "emerg": 21,
    "panic": 19,
    "alert": 19,
    "critical": 21,
    "crit": 21,
    "err": 17,
    "warning": 13,
    "notice": 10,
    "informational": 9,
    "information": 9,
    # Windows events and .NET
    "verbose": 5,
    # Zap
    "dpanic": 18,
    # java.util.logging
    "finest": 1,
    "finer": 5,
    "fine": 6,
    "config": 7,
    "severe": 17,
    # Python: structlog, loguru and what libraries add
    "success": 10,
    "msg": 9,
    "exception": 17,
    "failure": 17,
    "notset": 0,
}
"""A level's word, in lower case -> severity number."""


def of_word(word: object) -> int | None:
    """The severity number of a level's word, in any case and with spaces; None if it is unknown."""
    text = _text(word)
    if text is None or len(text) > 32:
        return None
    return WORDS.get("".join(text.split()).lower())


def _text(value: object) -> str | None:
    """A text without the methods of its own that a subclass may have; None for what is none."""
    return str.__str__(value) if _values.is_a(value, str) else None


def number(level: int, word: object = None) -> int:
    """
    The severity number of a level.

    Args:
        level: stdlib's number; any integer.
        word: its name, which wins where it is a known one.
    """
    if level in _PLAIN:
        return NUMBER[level]
    found = of_word(word)
    return NUMBER[min(max(level, 0), 53)] if found is None else found


def level_of(given: Any, default: int = logging.INFO) -> int:
    """
    A level of stdlib for whatever somebody gave as one: a number, a digit string, or a word.

    Args:
        given: `30`, `"30"`, `"Warning"`, `" NOTICE "`.
        default: for what is neither.
    """
    if _values.is_a(given, int) and type(given) is not bool:
        return int.__int__(given)
    found = of_word(given)
    if found is not None:
        return STANDARD.get(found, LEVEL[found])
    text = _text(given)
    if text is not None and text.strip().lstrip("+-").isdecimal() and len(text) < 20:
        return int(text)
    if text is not None:
        known = logging.getLevelName(text.strip().upper())  # one that the application registered
        if isinstance(known, int):
            return known
    return default


def registered(word: Any) -> int:
    """
    The level of stdlib for a word, whose name is the word from now on if it had none.

    Args:
        word: as for `level_of`.
    """
    level = level_of(word)
    text = _text(word)
    if text is not None and logging.getLevelName(level) == f"Level {level}":
        logging.addLevelName(level, "".join(text.split()).upper()[:32])
    return level


STANDARD: Final = {0: 0, 5: 10, 9: 20, 13: 30, 17: 40, 21: 50}
_PLAIN: Final = frozenset((10, 20, 30, 40, 50))
