"""
Spans of a request straight to rows: without documents, and almost without the GIL.

The native core (native/collector/spans.c) writes the JSON of each span from the bytes of the request and
gives the values of the rows beside it, equal to what `documents` and `encode` make. It knows the usual
request; whatever is not usual in one (bytes among the attributes, NaN, a name twice, ...) leaves all
of it to them. Without the core everything goes that way.
"""

from typing import Any, Final

from collector.documents.build import (
    CORE,
    SPAN,
    UNKNOWN_SERVICE,
    as_parts,
    dumps,
    native_schema,
    received_at,
)
from collector.model import Batch, Signal
from collector.stores.base import MAX_DOCUMENT_BYTES
from collector.stores.query_match import LEAST
from collector.stores.routing import ENTRIES
from collector.stores.sqlite.rows import Encoded, milliseconds
from telemetry.attributes import HTTP_ROUTE, LOOKUP, SERVICE_NAME

_FAILED: Final = "ERROR"

if CORE is not None:
    CORE.direct_setup(
        as_parts(SPAN),
        "context",
        LOOKUP,
        HTTP_ROUTE,
        SERVICE_NAME,
        UNKNOWN_SERVICE,
        _FAILED,
        ENTRIES,
        (LEAST["ERROR"], LEAST["INFO"]),
    )


def rows_of(batch: Batch) -> Encoded | None:
    """
    The rows of a batch; None when its documents have to be made.

    Args:
        batch: its message is read, never changed.
    """
    if CORE is None or batch.signal is not Signal.TRACES or batch.made is not None:
        return None
    wire = batch.message.SerializeToString() if batch.wire is None else batch.wire
    arrived = received_at(batch)
    found: tuple[list[Any], list[Any]] | None = CORE.span_rows(
        native_schema(batch.message.DESCRIPTOR),
        wire,
        f"{batch.request.tenant}\0".encode(),
        milliseconds(arrived),
        dumps(arrived),
        MAX_DOCUMENT_BYTES,
    )
    return None if found is None else Encoded(*found)
