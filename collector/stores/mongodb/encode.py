"""Documents of one `write` on their way into BSON; where to look, and several answers as one."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from collector.documents.build import Document
from collector.model import Signal
from collector.stores.base import Query, event_time
from collector.stores.mongodb import bson as shape
from collector.stores.routing import (
    LEVELS,
    METRICS,
    SPANS,
    TRAIL,
    Routing,
    is_log_collection,
    trail,
)


def in_order(answers: Sequence[list[Document]], query: Query) -> Iterator[Document]:
    """The documents of several answers in the order of the query, each id once."""
    last = None
    for document in heapq.merge(
        *answers,
        key=lambda document: (event_time(query.signal, document), document["_id"]),
        reverse=query.newest_first,
    ):
        if document["_id"] != last:
            last = document["_id"]
            yield document


@dataclass(slots=True)
class Encoded:
    """
    What one `write` is about to insert.

    Args:
        encoded: BSON by position, empty for what has none.
        groups: positions by collection.
        trails: the documents for `trace_logs`.
        refused: positions that cannot be encoded, with the reason.
    """

    encoded: list[bytes] = field(default_factory=list)
    groups: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    trails: list[bytes] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def of(self, positions: Iterable[int]) -> list[bytes]:
        """The BSON of some positions."""
        return [self.encoded[position] for position in positions]


def encode(
    signal: Signal,
    documents: Sequence[Document],
    routing: Routing,
    collection: str | None = None,
) -> Encoded:
    """
    Encode each document alone: what cannot be encoded takes no neighbour along.

    Args:
        signal: what they are.
        documents: of one `write`.
        routing: where they belong.
        collection: where they are kept instead.
    """
    found = Encoded()
    memo = shape.Memo()
    make, groups = shape.encode, found.groups
    place = collection or (None if signal is Signal.LOGS else routing.collection(signal, {}))
    for position, document in enumerate(documents):
        try:
            data = make(document, memo)
            name = place or routing.collection(signal, document)
            step = trail(signal, document) if name != TRAIL else None
            trail_data = make(step, memo) if step else None
        except shape.Unfit as error:
            found.encoded.append(b"")
            found.refused.append((position, str(error)))
        except Exception:  # a document of anything
            found.encoded.append(b"")
            found.refused.append((position, "cannot_encode"))
        else:
            found.encoded.append(data)
            groups[name].append(position)
            if trail_data is not None:
                found.trails.append(trail_data)
    return found


def collections_for(query: Query, logs: Sequence[str]) -> list[str]:
    """
    The collections that can have what a query asks for.

    Args:
        query: the question.
        logs: every collection of log records.
    """
    if query.signal is not Signal.LOGS:
        own = SPANS if query.signal is Signal.TRACES else METRICS
        return [own] if query.collection in (None, own) else []
    if query.collection is not None:
        known = query.collection == TRAIL or is_log_collection(query.collection)
        return [query.collection] if known else []
    levels = list(LEVELS.values())
    others = [name for name in logs if name not in levels]
    if query.min_severity is not None and query.min_severity > 8:
        levels = levels[min((query.min_severity - 5) // 4, len(levels) - 1) :]
    return [*levels, *others]
