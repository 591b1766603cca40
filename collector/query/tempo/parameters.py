"""
Parameters of Tempo's requests: times, steps, whole numbers.

Unknown parameters are ignored, as Tempo does: Grafana adds new ones with every release. A value
that is wrong is refused (`BadRequest`, 400), one that is right and too large too (`LimitExceeded`,
422); both become plain text, which the data source shows.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from collector.query.traceql.errors import LimitExceeded, ParseError, QueryError
from collector.query.traceql.lexer import tokens

SECOND: Final = 1_000_000_000
HOUR: Final = 3600 * SECOND
SEARCH_RANGE: Final = 7 * 24 * HOUR
"""The longest range of a search."""
METRICS_RANGE: Final = 24 * HOUR
"""The longest range of a metrics query."""

_LAST: Final = 2**63 - 1


class BadRequest(QueryError):
    """A parameter that means nothing; the text names it."""


@dataclass(slots=True, frozen=True)
class Range:
    """From `start` to `end`, nanoseconds since the epoch."""

    start: int
    end: int


def time_range(
    parameters: Mapping[str, str], now: int, *, longest: int, default: int = HOUR
) -> Range:
    """
    The range of `start` and `end`.

    Args:
        parameters: of the request; `since` may stand for `start`; without any of them the range is
            the last `default` before `now`.
        now: nanoseconds since the epoch.
        longest: nanoseconds.
        default: nanoseconds.

    Raises:
        BadRequest: a time is none, or the end does not lie behind the start.
        LimitExceeded: the range is longer than `longest`.
    """
    start, end = moment(parameters, "start"), moment(parameters, "end")
    if end is None:
        end = now if start is None or start < now else start + default
    if start is None:
        since = duration(parameters["since"]) if parameters.get("since") else default
        if not since:
            raise BadRequest("since: write a duration such as 1h")
        start = max(0, end - since)
    if end <= start:
        raise BadRequest("end: must lie behind start")
    if end - start > longest:
        raise LimitExceeded(
            f"the range of {(end - start) / HOUR:g} hours is longer than {longest // HOUR} hours"
        )
    return Range(start, end)


def moment(parameters: Mapping[str, str], name: str) -> int | None:
    """
    A time: seconds, milliseconds or nanoseconds (told apart by their digits), or RFC 3339.

    Raises:
        BadRequest: it is none of them.
    """
    text = parameters.get(name, "").strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,19}", text):
        number = int(text) * (SECOND if len(text) < 13 else 10**6 if len(text) < 16 else 1)
        if number <= _LAST:
            return number
    elif re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}", text):
        whole, _, fraction = text.partition(".")
        number = int(whole) * SECOND + int(fraction.ljust(9, "0"))
        if number <= _LAST:
            return number
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            found = None
        if found is not None:
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
            since = found - datetime(1970, 1, 1, tzinfo=UTC)
            return max(0, (since.days * 86400 + since.seconds) * SECOND + since.microseconds * 1000)
    raise BadRequest(f"{name}: write seconds since 1970, nanoseconds, or a time of RFC 3339")


def step(parameters: Mapping[str, str]) -> int | None:
    """
    The step in nanoseconds: a duration (`30s`) or seconds; None when it is not given.

    Raises:
        BadRequest: it is neither, or not more than 0.
    """
    text = parameters.get("step", "").strip()
    if not text:
        return None
    found = duration(text)
    if found is None:
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        found = round(seconds * SECOND) if math.isfinite(seconds) and seconds < 10**9 else None
    if found is None or found <= 0:
        raise BadRequest("step: write a duration such as 30s or 5m, or a number of seconds")
    return found


def duration(text: str) -> int | None:
    """The nanoseconds of a duration such as `1m30s`, None for anything else."""
    try:
        first, *rest = tokens(text.strip()[:64])
    except ParseError:
        return None
    nanoseconds: int = first.value if first.kind == "duration" and len(rest) == 1 else -1
    return nanoseconds if 0 <= nanoseconds <= _LAST else None


def whole(parameters: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    """
    A whole number from 1.

    Raises:
        BadRequest: it is none.
        LimitExceeded: it is more than `most`.
    """
    text = parameters.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise BadRequest(f"{name}: write a whole number from 1 to {most}")
    if int(text) > most:
        raise LimitExceeded(f"{name}: {int(text)} is more than {most}")
    return int(text)


def trace_id(text: str) -> str:
    """
    A trace id in full: 32 digits, those that were left out in front are zeros.

    Raises:
        BadRequest: it is none.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", text):
        raise BadRequest("trace id: write up to 32 hexadecimal digits")
    return text.lower().zfill(32)
