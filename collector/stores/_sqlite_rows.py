"""Documents as rows of the SQLite file: what is filtered on in columns, the whole as JSON."""

from binascii import unhexlify
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from collector.documents import Document, dumps
from collector.errors import CollectorError
from collector.model import Signal
from collector.stores._sqlite_schema import time_value
from collector.stores.base import LOOKUP, MAX_DOCUMENT_BYTES, Refused, severity
from collector.stores.letters import DeadLetter
from collector.stores.routing import Routing, trail

Row = tuple[Any, ...]

_NOTHING: Final[Document] = {}
_NO_IDS: Final = (None,) * len(LOOKUP)


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


def encode(signal: Signal, documents: Sequence[Document], routing: Routing) -> Encoded:
    """Make the rows of each document alone: what has none takes no neighbour along."""
    make = _ROWS[signal]
    found = Encoded()
    for document in documents:
        try:
            row = make(document, routing)
            step = trail(signal, document)
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


def _id(document: Document) -> bytes:
    _id = document["_id"]
    if len(_id) != 24:
        raise _Unfit("invalid_id")
    try:
        return unhexlify(_id)
    except ValueError:
        raise _Unfit("invalid_id") from None


def _json(document: Document) -> str:
    json = dumps(document)
    if len(json) > MAX_DOCUMENT_BYTES:
        raise _Unfit("too_large")
    return json.decode()


def _received(document: Document) -> int:
    return int(document["received_at"].timestamp() * 1000)


def _ids(document: Document) -> tuple[str | None, ...]:
    context = document.get("context")
    return tuple([context.get(key) for key in LOOKUP]) if context else _NO_IDS


def _span(document: Document, _routing: Routing) -> Row:
    return (
        _id(document),
        document.get("trace_id"),
        *_ids(document),
        document["service"],
        document.get("name"),
        document.get("status"),
        time_value(document["start_unix_nano"]),
        document["duration_ms"],
        _received(document),
        _json(document),
    )


def _log(document: Document, routing: Routing) -> Row:
    return _record(document, (routing.collection(Signal.LOGS, document),))


def _record(document: Document, place: tuple[str, ...]) -> Row:
    """A log record with the name of its collection, or a trail without."""
    return (
        _id(document),
        document.get("trace", _NOTHING).get("trace_id"),
        *_ids(document),
        document["service"],
        document.get("event"),
        severity(document),
        time_value(document["time_unix_nano"]),
        _received(document),
        *place,
        _json(document),
    )


def _point(document: Document, _routing: Routing) -> Row:
    return (
        _id(document),
        document["service"],
        document["name"],
        time_value(document["time_unix_nano"]),
        _received(document),
        _json(document),
    )


_ROWS: Final[dict[Signal, Callable[[Document, Routing], Row]]] = {
    Signal.TRACES: _span,
    Signal.LOGS: _log,
    Signal.METRICS: _point,
}
