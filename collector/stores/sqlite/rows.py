"""
Documents as rows of the SQLite file: what is filtered on in columns, the whole as JSON.

The usual row is made by the native core (native/collector/rows.c) from a list of columns; what it
leaves, and every row without it, is made in Python. They are equal by test.
"""

from binascii import unhexlify
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from collector.documents.build import CORE, Document, dumps
from collector.errors import CollectorError
from collector.model import Signal
from collector.stores.base import MAX_DOCUMENT_BYTES, Refused
from collector.stores.dead_letters import DeadLetter
from collector.stores.query_match import severity
from collector.stores.routing import TRAIL, Routing, trail
from collector.stores.sqlite.schema import ABSENT, time_value
from collector.stores.statistics import days_of
from telemetry.attributes import LOOKUP

Row = tuple[Any, ...]

_NOTHING: Final[Document] = {}
_NO_IDS: Final = (ABSENT,) * len(LOOKUP)


@dataclass(slots=True)
class Encoded:
    """
    The rows of one `write`: the values of one behind those of another, as one statement takes them.

    Args:
        rows: of the signal's table.
        trails: of `trace_logs`.
        days: marks of the days whose statistics are no longer true.
        refused: documents that have no row.
    """

    rows: list[Any] = field(default_factory=list)
    trails: list[Any] = field(default_factory=list)
    days: list[int] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def encode(
    signal: Signal,
    documents: Sequence[Document],
    routing: Routing,
    collection: str | None = None,
) -> Encoded:
    """
    Make the rows of each document alone: what has none takes no neighbour along.

    Args:
        signal: what they are.
        documents: of one `write`.
        routing: where they belong.
        collection: where they are kept instead.
    """
    form = TRAIL if collection == TRAIL else signal.value
    routed = signal is Signal.LOGS and collection is None
    kept_in, place_of = collection or "", routing.collection
    found = Encoded()
    for document in documents:
        try:
            place = place_of(signal, document) if routed else kept_in
            row = row_of(form, document, place)
            step = trail(signal, document) if collection != TRAIL else None
            trail_row = row_of(TRAIL, step, "") if step else None
        except _Unfit as error:
            found.refused.append(Refused(document, str(error)))
        except Exception:  # a document of anything
            found.refused.append(Refused(document, "cannot_encode"))
        else:
            found.rows += row
            if trail_row is not None:
                found.trails += trail_row
    if signal is Signal.LOGS and collection != TRAIL:
        found.days += days_of(documents)
    return found


def letter_row(letter: DeadLetter) -> Row:
    """The row of a dead letter."""
    return (
        unhexlify(letter.id),
        int(letter.received_at.timestamp() * 1000),
        letter.signal.value,
        letter.collection,
        letter.reason,
        letter.document_id,
        letter.format,
        letter.data,
    )


class _Unfit(CollectorError):
    """A document that is refused; the text is the reason."""


def _id(document: Document) -> bytearray:
    """The id as the type of bytes that the sqlite3 module binds without a look for adapters."""
    _id = document["_id"]
    if len(_id) != 24:
        raise _Unfit("invalid_id")
    try:
        return bytearray(unhexlify(_id))
    except ValueError:
        raise _Unfit("invalid_id") from None


def _json(document: Document) -> str:
    json = dumps(document)
    if len(json) > MAX_DOCUMENT_BYTES:
        raise _Unfit("too_large")
    return json.decode()


@lru_cache(maxsize=64)
def milliseconds(received_at: datetime) -> int:
    """A date as the number in its column; all documents of a batch share one."""
    return int(received_at.timestamp() * 1000)


def _ids(document: Document) -> tuple[str | int, ...]:
    context = document.get("context")
    return tuple([context.get(key, ABSENT) for key in LOOKUP]) if context else _NO_IDS


def _span(document: Document, _place: str) -> Row:
    return (
        _id(document),
        document.get("trace_id", ABSENT),
        *_ids(document),
        document["service"],
        document.get("name", ABSENT),
        document.get("status", ABSENT),
        time_value(document["start_unix_nano"]),
        document["duration_ms"],
        milliseconds(document["received_at"]),
        _json(document),
    )


def _log(document: Document, place: str) -> Row:
    *columns, json = _record(document, "")
    return (*columns, place, json)


def _record(document: Document, _place: str) -> Row:
    """A record of the trail; one of the logs has the name of its collection, too."""
    return (
        _id(document),
        document.get("trace", _NOTHING).get("trace_id", ABSENT),
        *_ids(document),
        document["service"],
        document.get("event", ABSENT),
        severity(document),
        time_value(document["time_unix_nano"]),
        milliseconds(document["received_at"]),
        _json(document),
    )


def _point(document: Document, _place: str) -> Row:
    return (
        _id(document),
        document["service"],
        document["name"],
        time_value(document["time_unix_nano"]),
        milliseconds(document["received_at"]),
        _json(document),
    )


in_python: Final[dict[str, Callable[[Document, str], Row]]] = {
    Signal.TRACES.value: _span,
    Signal.LOGS.value: _log,
    Signal.METRICS.value: _point,
    TRAIL: _record,
}
"""Rows in Python, by signal, and for the trail."""

_Column = tuple[int, str | None, str]


def _column(how: str, key: str, section: str | None = None) -> _Column:
    return (ord(how), section, key)


_LOOKUPS: Final = tuple(_column("o", key, "context") for key in LOOKUP)
_SERVICE: Final = _column("r", "service")
_RECEIVED: Final = _column("m", "received_at")
_RECORD: Final = (
    _column("i", "_id"),
    _column("o", "trace_id", "trace"),
    *_LOOKUPS,
    _SERVICE,
    _column("o", "event"),
    _column("s", "severity_number"),
    _column("t", "time_unix_nano"),
    _RECEIVED,
)
_DOCUMENT: Final = _column("d", "")
COLUMNS: Final[dict[str, tuple[_Column, ...]]] = {
    Signal.TRACES.value: (
        _column("i", "_id"),
        _column("o", "trace_id"),
        *_LOOKUPS,
        _SERVICE,
        _column("o", "name"),
        _column("o", "status"),
        _column("t", "start_unix_nano"),
        _column("r", "duration_ms"),
        _RECEIVED,
        _DOCUMENT,
    ),
    Signal.LOGS.value: (*_RECORD, _column("p", ""), _DOCUMENT),
    Signal.METRICS.value: (
        _column("i", "_id"),
        _SERVICE,
        _column("r", "name"),
        _column("t", "time_unix_nano"),
        _RECEIVED,
        _DOCUMENT,
    ),
    TRAIL: (*_RECORD, _DOCUMENT),
}
"""The same for the native core; `row` says what the codes mean."""

_native: Callable[..., Row | None] | None = None
if CORE is not None:
    CORE.row_setup(dumps, severity, milliseconds)
    _native = CORE.row


def row_of(form: str, document: Document, place: str) -> Row:
    """
    The row of a document.

    Args:
        form: a signal, or the trail.
        document: one of a batch.
        place: the collection of a log record.

    Raises:
        _Unfit: it can have none.
    """
    row = None
    if _native is not None:
        with suppress(Exception):  # Python says why
            row = _native(document, COLUMNS[form], place, MAX_DOCUMENT_BYTES)
    return in_python[form](document, place) if row is None else row
