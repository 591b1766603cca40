"""
The parameters of Loki's API: times, steps, limits.

Times are nanoseconds, seconds (with a fraction or without) or RFC 3339, and recognised by how they are
written; unknown parameters are ignored, because every version of Grafana sends new ones. What
cannot be read is refused with its name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from collector.query.logql import units
from collector.query.logql.errors import LimitError, QueryError

SECOND: Final = 1_000_000_000
HOUR: Final = 3600 * SECOND
LOOK_BACK: Final = HOUR
"""How far back a question without a start looks."""
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 5000
MAX_RANGE: Final = 31 * 24 * HOUR
"""The longest time that one question covers."""
_POINTS: Final = 250
_LAST: Final = 2**63 - 1
_SECONDS_DIGITS: Final = 10
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,9})?(?:[eE]\+?[0-9]{1,2})?")


@dataclass(slots=True, frozen=True)
class Span:
    """A time in nanoseconds: start inclusive, end as the question has it."""

    start: int
    end: int


def time(name: str, text: str) -> int:
    """
    Nanoseconds of a time.

    Args:
        name: of the parameter, for the refusal.
        text: nanoseconds, seconds or RFC 3339.

    Raises:
        QueryError: it is none of them.
    """
    if _NUMBER.fullmatch(text):
        whole = text.lstrip("-")
        if whole.isdigit() and len(whole) > _SECONDS_DIGITS:
            value = int(text)
        else:
            value = int(Decimal(text) * SECOND)
    else:
        try:
            moment = datetime.fromisoformat(text)
            fraction = re.search(r"\.(\d{1,9})", text)
            nanos = int(fraction[1].ljust(9, "0")) if fraction else 0
            value = int(moment.replace(microsecond=0).timestamp()) * SECOND + nanos
        except (ValueError, OverflowError):
            raise QueryError(
                f"{name}: write nanoseconds or seconds since 1970, or a time like "
                "2026-11-30T12:00:00Z"
            ) from None
    if not 0 <= value <= _LAST:
        raise QueryError(f"{name}: this time lies outside of 1970 to 2262")
    return value


def span(given: Mapping[str, str], now: int) -> Span:
    """
    Start and end of a question.

    Args:
        given: its parameters.
        now: nanoseconds; the end unless one is given.

    Raises:
        QueryError: a time cannot be read, or the end lies before the start.
        LimitError: the time is longer than `MAX_RANGE`.
    """
    end = time("end", given["end"]) if given.get("end") else now
    if given.get("start"):
        start = time("start", given["start"])
    elif given.get("since"):
        start = end - duration("since", given["since"])
    else:
        start = end - LOOK_BACK
    if end < start:
        raise QueryError("end: lies before start")
    if end - start > MAX_RANGE:
        raise LimitError(
            f"start, end: the time is longer than {units.print_duration(MAX_RANGE)}; ask for less"
        )
    return Span(max(0, start), end)


def duration(name: str, text: str) -> int:
    """
    Nanoseconds of a duration (`60s`, `1h30m`) or of a number of seconds.

    Raises:
        QueryError: it is neither, or not longer than 0.
    """
    value = units.duration(text)
    if value is None and _NUMBER.fullmatch(text):
        value = int(Decimal(text) * SECOND)
    if value is None or value > _LAST:
        raise QueryError(f"{name}: write seconds or a duration like 5m")
    if value <= 0:
        raise QueryError(f"{name}: must be longer than 0")
    return value


def step(given: Mapping[str, str], asked: Span) -> int:
    """The step of a question; about 250 points unless one is given."""
    if given.get("step"):
        return duration("step", given["step"])
    return max((asked.end - asked.start) // _POINTS // SECOND, 1) * SECOND


def limit(given: Mapping[str, str], *, default: int = DEFAULT_LIMIT) -> int:
    """
    How many lines or values are asked for, above what is ever answered perhaps.

    Raises:
        QueryError: it is no whole number from 1.
    """
    text = given.get("limit") or str(default)
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise QueryError("limit: write a whole number from 1")
    return int(text)


def newest_first(given: Mapping[str, str]) -> bool:
    """Whether the newest line comes first."""
    direction = (given.get("direction") or "backward").lower()
    if direction not in ("backward", "forward"):
        raise QueryError("direction: write backward or forward")
    return direction == "backward"
