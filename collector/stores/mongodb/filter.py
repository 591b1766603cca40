"""
A `Query` as a MongoDB filter. It may find too much, never too little; `query_match.matches` decides.

Everything of the user's is a value under `$eq` (or in a list under `$in`, or an escaped literal
under `$regex`); names of attributes reach a field path only through `bson.path`, which
lets no operator through. Conditions on time are said twice: in nanoseconds, exactly, and as dates,
with a millisecond to spare, because the index begins with the date.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bson.decimal128 import Decimal128
from bson.objectid import ObjectId

from collector.documents.build import moment
from collector.model import Signal
from collector.stores.base import Query
from collector.stores.mongodb.bson import integer, nanoseconds, path
from collector.stores.query_match import LEAST, places
from telemetry.attributes import LOOKUP

Filter = dict[str, Any]

_MILLISECOND: Final = 1_000_000
_END_OF_TIME: Final = (1 << 64) - 1
_CONTEXT_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_MAX_PATTERN: Final = 1000


def time_fields(signal: Signal) -> tuple[str, str]:
    """The date and the nanoseconds that documents are ordered by."""
    if signal is Signal.TRACES:
        return "start", "start_unix_nano"
    return "timestamp", "time_unix_nano"


def sort(query: Query) -> list[tuple[str, int]]:
    """The order of `find`; an index has the same."""
    direction = -1 if query.newest_first else 1
    return [(field, direction) for field in (*time_fields(query.signal), "_id")]


def exact(query: Query) -> bool:
    """Whether the filter alone decides, so that the server may stop at the limit."""
    return not query.where and query.text is None


_SPANS: Final = {Signal.TRACES}
_LOGS: Final = {Signal.LOGS}
_WITH_IDS: Final = {Signal.TRACES, Signal.LOGS}
_SIGNALS: Final = {
    "status": _SPANS,
    "min_duration_ms": _SPANS,
    "roots": _SPANS,
    "text": _LOGS,
    "min_severity": _LOGS,
    "id": _WITH_IDS,
    "trace_ids": _WITH_IDS,
    "task_ids": _WITH_IDS,
    "context": _WITH_IDS,
}
"""Conditions that only some signals can meet; with another one nothing is found."""


def _trace_id(signal: Signal) -> str:
    return "trace_id" if signal is Signal.TRACES else "trace.trace_id"


def _name(signal: Signal) -> str:
    return "event" if signal is Signal.LOGS else "name"


def _any_id(signal: Signal, value: str) -> Filter:
    fields = (_trace_id(signal), *(f"context.{key}" for key in LOOKUP))
    return {"$or": [{field: {"$eq": value}} for field in fields]}


def _context(_: Signal, values: Mapping[str, str]) -> Filter | None:
    if not all(map(_CONTEXT_KEY.fullmatch, values)):
        return None  # no document has such a key
    return {f"context.{key}": {"$eq": value} for key, value in values.items()}


def _severity(_: Signal, least: int) -> Filter | None:
    if least > 0x7FFFFFFF:
        return None
    if least <= 0:
        return {}
    levels = [level for level, number in LEAST.items() if number >= least]
    numberless = {"severity_number": {"$exists": False}, "level": {"$in": levels}}
    return {"$or": [{"severity_number": {"$gte": least}}, numberless]}


def _text(_: Signal, text: str) -> Filter:
    # Unescaped, a NUL would end the pattern. `matches` looks at the rest of a very long text.
    literal = re.escape(text[:_MAX_PATTERN]).replace("\0", "\\x00")
    return {"message": {"$regex": literal, "$options": "i"}} if text else {}


_CONDITIONS: Final[dict[str, Callable[[Signal, Any], Filter | None]]] = {
    "id": _any_id,
    "trace_ids": lambda signal, ids: {_trace_id(signal): {"$in": list(ids)}},
    "task_ids": lambda _, ids: {"context.task_id": {"$in": list(ids)}},
    "context": _context,
    "names": lambda signal, names: {_name(signal): {"$in": list(names)}},
    "roots": lambda *_: {"parent_span_id": {"$exists": False}},
    "service": lambda _, value: {"service": {"$eq": value}},
    "status": lambda _, value: {"status": {"$eq": value}},
    "name": lambda signal, value: {_name(signal): {"$eq": value}},
    "min_severity": _severity,
    "min_duration_ms": lambda _, value: {"duration_ms": {"$gte": value}},
    "text": _text,
    "where": lambda _, pairs: {"$and": [_where(key, value) for key, value in pairs]},
}
"""What a condition of a query is here: {} is none, None is one that nothing can meet."""


def filter_of(query: Query) -> Filter | None:
    """The filter, None when nothing can match."""
    conditions: list[Filter] = []
    for name, condition in _CONDITIONS.items():
        value = getattr(query, name)
        if value is None or value is False or (isinstance(value, tuple | Mapping) and not value):
            continue  # it is not asked for
        made = (
            condition(query.signal, value) if query.signal in _SIGNALS.get(name, Signal) else None
        )
        if made is None:
            return None
        if made:
            conditions.append(made)
    if not all(_time(query, conditions)):
        return None
    return {"$and": conditions} if conditions else {}


def _time(query: Query, conditions: list[Filter]) -> list[bool]:
    """Add the conditions on time; a False among the answers means that nothing can match."""
    date, nano = time_fields(query.signal)
    possible = []
    if (since := query.since_unix_nano) is not None:
        possible.append(since <= _END_OF_TIME)
        since = _clamped(since)
        early = moment(max(since - _MILLISECOND * 2, 0))
        conditions.append({date: {"$gte": early}, nano: {"$gte": nanoseconds(since)}})
    if (until := query.until_unix_nano) is not None:
        possible.append(until > 0)
        if 0 < until <= _END_OF_TIME:
            late = moment(min(until + _MILLISECOND * 2, _END_OF_TIME))
            conditions.append({date: {"$lte": late}, nano: {"$lt": nanoseconds(until)}})
    if query.after is not None:
        when, _id = query.after
        possible.append(when <= _END_OF_TIME or query.newest_first)
        at = nanoseconds(_clamped(when))
        beyond = "$lt" if query.newest_first else "$gt"
        edge = (
            {"$lte": moment(min(_clamped(when) + _MILLISECOND * 2, _END_OF_TIME))}
            if query.newest_first
            else {"$gte": moment(max(_clamped(when) - _MILLISECOND * 2, 0))}
        )
        conditions.append(
            {
                date: edge,
                "$or": [{nano: {beyond: at}}, {nano: {"$eq": at}, "_id": {beyond: ObjectId(_id)}}],
            }
        )
    return possible


def _clamped(unix_nano: int) -> int:
    return max(0, min(unix_nano, _END_OF_TIME))


def _where(key: str, value: str) -> Filter:
    """An attribute, a resource attribute, or a path: each place, with each type of the value."""
    wanted = _typed(value)
    fields: list[str] = []
    unusual: list[Filter] = []
    for section, name in places(key):
        if section in ("attributes", "resource"):
            parts = path(name)
            if parts is None:  # only documents that keep the exact value beside can have it
                unusual.append({f"{section}_raw": {"$exists": True}})
            else:
                fields += (".".join((section, *parts)), ".".join((section, *parts, "_")))
        elif section != "context" or _CONTEXT_KEY.fullmatch(name):
            fields.append(name if section is None else f"{section}.{name}")
    return {"$or": [*({field: {"$eq": each}} for field in fields for each in wanted), *unusual]}


def _typed(value: str) -> list[Any]:
    """What an attribute may be whose text is `value`."""
    wanted: list[Any] = [value]
    if value in ("true", "false"):
        wanted.append(value == "true")
    elif len(value) <= 32:
        number: int | float | Decimal128
        try:
            number = integer(int(value))
        except ValueError:
            try:
                number = float(value)
            except ValueError:
                return wanted
        wanted.append(number)
    return wanted
