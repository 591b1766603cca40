"""Documents as rows of the SQLite file: what is filtered on in columns, the whole as JSON."""

from binascii import unhexlify
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from collector.documents import Document, dumps
from collector.errors import CollectorError
from collector.model import Signal
from collector.stores._sqlite_schema import ABSENT, time_value
from collector.stores.base import LOOKUP, MAX_DOCUMENT_BYTES, Refused, severity
from collector.stores.letters import DeadLetter
from collector.stores.routing import TRAIL, Routing, trail

Row = tuple[Any, ...]

_NOTHING: Final[Document] = {}
_NO_IDS: Final = (ABSENT,) * len(LOOKUP)


@dataclass(slots=True)
class Encoded:
    """
    The rows of one `write`.

    Args:
        rows: of the signal's table.
        trails: of `trace_logs`.
        refused: documents that have no row.
    """

    rows: list[Row] = field(default_factory=list)
    trails: list[Row] = field(default_factory=list)
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
    make = _ROWS[signal]
    if signal is Signal.LOGS and collection is not None:
        make = _kept_in(collection)
    found = Encoded()
    for document in documents:
        try:
            row = make(document, routing)
            step = trail(signal, document) if collection != TRAIL else None
            trail_row = _record(step, ()) if step else None
        except _Unfit as error:
            found.refused.append(Refused(document, str(error)))
        except Exception:  # a document of anything
            found.refused.append(Refused(document, "cannot_encode"))
        else:
            found.rows.append(row)
            if trail_row is not None:
                found.trails.append(trail_row)
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
def _milliseconds(received_at: datetime) -> int:
    """All documents of a batch share one date."""
    return int(received_at.timestamp() * 1000)


def _ids(document: Document) -> tuple[str | int, ...]:
    context = document.get("context")
    return tuple([context.get(key, ABSENT) for key in LOOKUP]) if context else _NO_IDS


def _span(document: Document, _routing: Routing) -> Row:
    return (
        _id(document),
        document.get("trace_id", ABSENT),
        *_ids(document),
        document["service"],
        document.get("name", ABSENT),
        document.get("status", ABSENT),
        time_value(document["start_unix_nano"]),
        document["duration_ms"],
        _milliseconds(document["received_at"]),
        _json(document),
    )


def _kept_in(collection: str) -> Callable[[Document, Routing], Row]:
    place = () if collection == TRAIL else (collection,)
    return lambda document, _routing: _record(document, place)


def _log(document: Document, routing: Routing) -> Row:
    return _record(document, (routing.collection(Signal.LOGS, document),))


def _record(document: Document, place: tuple[str, ...]) -> Row:
    """A log record with the name of its collection, or a trail without."""
    return (
        _id(document),
        document.get("trace", _NOTHING).get("trace_id", ABSENT),
        *_ids(document),
        document["service"],
        document.get("event", ABSENT),
        severity(document),
        time_value(document["time_unix_nano"]),
        _milliseconds(document["received_at"]),
        *place,
        _json(document),
    )


def _point(document: Document, _routing: Routing) -> Row:
    return (
        _id(document),
        document["service"],
        document["name"],
        time_value(document["time_unix_nano"]),
        _milliseconds(document["received_at"]),
        _json(document),
    )


_ROWS: Final[dict[Signal, Callable[[Document, Routing], Row]]] = {
    Signal.TRACES: _span,
    Signal.LOGS: _log,
    Signal.METRICS: _point,
}
