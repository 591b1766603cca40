"""
The words of a question about logs -> a typed `Query`, or one clear error.

The HTTP port and the command line both come through `log_query`, with the same (name, value) pairs
and the same errors. Every value is text from outside and stays a value: nothing here is ever
read as an operator, a pattern or a field path of a database. A parameter that we do not know is
rejected, because a filter that is silently ignored gives a wrong answer.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from collector.errors import Malformed
from collector.model import Signal
from collector.query.ids import trace_id_of
from collector.stores.base import Query
from telemetry.attributes import CONTEXT

LEVELS: Final = {
    "debug": None,  # the lowest level is no condition
    "info": 9,
    "warning": 13,
    "warn": 13,
    "error": 17,
    "critical": 21,
    "fatal": 21,
}
"""The least severity number of a level."""

LOG_PARAMETERS: Final[dict[str, str]] = {
    "trace_id": "32 hex digits, a UUID or a W3C traceparent.",
    **{key: f"`context.{key}` equals this." for key in CONTEXT.values()},
    "level": "At least this level: debug, info, warning, error, critical.",
    "service": "The service equals this.",
    "event": "The event name equals this.",
    "since": "At or after: an age (15m, 1h, 7d) or an ISO 8601 time, UTC unless it has a zone.",
    "until": "Before: an age or a time, as for since.",
    "where": "key=value, repeatable: an attribute or resource attribute of exactly that name, or "
    "a path that begins with attributes., resource. or context.; the value is text.",
    "text": "The message contains this, in any case.",
    "order": "newest (first, the default) or oldest (first).",
    "limit": "How many records, 100 unless given.",
    "cursor": "`next` of the page before.",
}
"""Every parameter of the question about logs, with its help; documentation is checked on it."""

MAX_TEXT: Final = 1024
MAX_WHERE: Final = 32
DEFAULT_LIMIT: Final = 100
_LAST_NANO: Final = 2**63 - 1

_AGE: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d|w))+")
_AGE_PART: Final = re.compile(r"([0-9.]+)(ms|s|m|h|d|w)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_CURSOR: Final = re.compile(r"([0-9]{1,20})\.([0-9a-f]{24})")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadParameter(Malformed):
    """
    A question that cannot be asked like this.

    Args:
        parameter: its name.
        reason: what is wrong and what to write instead.
    """

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(f"{parameter}: {reason}")
        self.parameter = parameter
        self.reason = reason


def log_query(
    pairs: Iterable[tuple[str, str]], *, now_unix_nano: int, max_rows: int = 5000
) -> Query:
    """
    The query that (name, value) pairs ask for.

    Args:
        pairs: names of `LOG_PARAMETERS` and their values; only `where` may stand twice.
        now_unix_nano: what ages count back from.
        max_rows: the largest limit.

    Raises:
        BadParameter: with the name and the fix.
    """
    given, where = read_pairs(pairs, LOG_PARAMETERS)
    return log_conditions(
        given,
        where,
        now_unix_nano=now_unix_nano,
        limit=limit(given, min(DEFAULT_LIMIT, max_rows), max_rows),
    )


def log_conditions(
    given: Mapping[str, str],
    where: Sequence[tuple[str, str]],
    *,
    now_unix_nano: int,
    limit: int,
) -> Query:
    """The query that parameters about log records ask for, once they are read."""
    since, until = time_range(given, now_unix_nano)
    return Query(
        signal=Signal.LOGS,
        trace_ids=_trace(given["trace_id"]) if "trace_id" in given else (),
        context={key: given[key] for key in CONTEXT.values() if key in given},
        service=given.get("service"),
        min_severity=_level(given.get("level", "debug")),
        name=given.get("event"),
        since_unix_nano=since,
        until_unix_nano=until,
        text=given.get("text"),
        where=tuple(where),
        newest_first=choice(given, "order", "newest", "oldest") == "newest",
        limit=limit,
        after=_cursor(given["cursor"]) if "cursor" in given else None,
    )


def read_pairs(
    pairs: Iterable[tuple[str, str]], known: Mapping[str, str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """
    Parameters by name, and the key=value pairs of `where`.

    Args:
        pairs: names and values; only `where` may stand twice.
        known: the parameters that there are, by name.

    Raises:
        BadParameter: an unknown, repeated, empty or enormous one.
    """
    given: dict[str, str] = {}
    where: list[tuple[str, str]] = []
    for name, value in pairs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise BadParameter(name[:64], f"unknown parameter; {hint}")
        if not value:
            raise BadParameter(name, "empty; leave it out or give a value")
        if len(value) > MAX_TEXT:
            raise BadParameter(name, f"longer than {MAX_TEXT} characters")
        if name == "where":
            where.append(_pair(value))
        elif name in given:
            raise BadParameter(name, "given twice; only where can be repeated")
        else:
            given[name] = value
    if len(where) > MAX_WHERE:
        raise BadParameter("where", f"given more than {MAX_WHERE} times")
    return given, where


def time_range(
    given: Mapping[str, str], now_unix_nano: int, since: str | None = None
) -> tuple[int | None, int | None]:
    """
    `since` and `until` in nanoseconds.

    Args:
        given: the parameters.
        now_unix_nano: what ages count back from.
        since: what it is unless it is given.
    """
    words = given if since is None or "since" in given else {**given, "since": since}
    begin = _time(words, "since", now_unix_nano)
    end = _time(words, "until", now_unix_nano)
    if begin is not None and end is not None and begin >= end:
        raise BadParameter("since", "not before until; swap them")
    return begin, end


class Asked(NamedTuple):
    """
    What the questions have in common that answer in pages.

    Args:
        given: the parameters by name.
        since_unix_nano, until_unix_nano: the time range; with a cursor that of the pages before,
            which does not move.
        behind: what the cursor says beside the range; None on the first page.
        limit: rows of one page.
    """

    given: dict[str, str]
    since_unix_nano: int | None
    until_unix_nano: int
    behind: tuple[str, ...] | None
    limit: int


def read_question(
    pairs: Iterable[tuple[str, str]],
    known: Mapping[str, str],
    cursor: re.Pattern[str],
    *,
    now_unix_nano: int,
    since: str,
    rows: int,
    max_rows: int,
) -> Asked:
    """
    Read the parameters of a question that answers in pages.

    Args:
        pairs: names and values, each name once.
        known: the parameters that there are, with their help.
        cursor: what a cursor looks like; its first two groups are the time range.
        now_unix_nano: what ages count back from, and the end unless `until` is given.
        since: how far back to look unless it is given: `1h`.
        rows: of a page unless `limit` is given.
        max_rows: the largest limit.

    Raises:
        BadParameter: with the name and the fix.
    """
    given, _ = read_pairs(pairs, known)
    begin, end = time_range(
        given, now_unix_nano, since
    )  # what is wrong beside a cursor counts, too
    behind = None
    if "cursor" in given:
        parts = cursor.fullmatch(given["cursor"])
        if parts is None:
            raise bad_cursor()
        begin, end, behind = int(parts[1]), int(parts[2]), parts.groups()[2:]
    return Asked(
        given,
        begin,
        now_unix_nano + 1 if end is None else end,
        behind,
        limit(given, rows, max_rows),
    )


def bad_cursor() -> BadParameter:
    """The answer to a cursor that no page gave."""
    return BadParameter("cursor", "not a cursor; use next of the page before, unchanged")


def choice(given: Mapping[str, str], name: str, *words: str) -> str:
    """One of some words, the first one unless it is given."""
    word = given.get(name, words[0])
    if word not in words:
        raise BadParameter(name, f"write {', '.join(words[:-1])} or {words[-1]}")
    return word


def limit(given: Mapping[str, str], default: int, most: int) -> int:
    """`limit` as a number."""
    text = given.get("limit")
    value = default if text is None else int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    if not 1 <= value <= most:
        raise BadParameter("limit", f"write a whole number from 1 to {most}; page with cursor")
    return value


def age_s(given: Mapping[str, str], name: str, default: float) -> float:
    """A duration such as 500ms, 15m or 1h30m, in seconds."""
    text = given.get(name)
    if text is None:
        return default
    if not _AGE.fullmatch(text):
        raise BadParameter(name, "write a duration such as 500ms, 2s, 15m or 1h30m")
    return _seconds(text)


def flag(given: Mapping[str, str], name: str) -> bool:
    """True or false, false unless it is given."""
    given = {name: "false", **given}
    return choice(given, name, "true", "false") == "true"


def _seconds(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in _AGE_PART.findall(text))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise BadParameter("where", "write key=value, like http.response.status_code=500")
    return key, value


def _trace(text: str) -> tuple[str, ...]:
    trace_id = trace_id_of(text)
    if trace_id is None:
        raise BadParameter("trace_id", "write 32 hex digits, a UUID or a W3C traceparent")
    return (trace_id,)


def _level(text: str) -> int | None:
    if text.lower() not in LEVELS:
        raise BadParameter("level", "write debug, info, warning, error or critical")
    return LEVELS[text.lower()]


def _cursor(text: str) -> tuple[int, str]:
    parts = _CURSOR.fullmatch(text)
    if parts is None or int(parts[1]) >= 2**64:
        raise bad_cursor()
    return int(parts[1]), parts[2]


def _time(given: Mapping[str, str], name: str, now_unix_nano: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if _AGE.fullmatch(text):
        return max(0, now_unix_nano - int(_seconds(text) * 1e9))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadParameter(
            name, "write an age such as 15m, 1h, 7d, or a time such as 2026-11-22T10:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        nanos = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except OverflowError:
        nanos = -1
    if not 0 <= nanos <= _LAST_NANO:
        raise BadParameter(name, "write a time between 1970 and 2262")
    return nanos
