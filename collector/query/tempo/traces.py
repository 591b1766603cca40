"""
`/api/v2/traces/{id}` and `/api/traces/{id}`: one trace as OTLP.

The second version answers with a message of four fields, of which the first is TracesData: it is
written by hand. That field is always there, because the data source crashes without it; an unknown
trace is an empty one with status 200. The first version is the bare TracesData, 404 when there is
none, and calls `resourceSpans` `batches` in JSON.
"""

from dataclasses import dataclass, field
from typing import Final

from collector.model import Signal
from collector.query.tempo.candidates import LARGEST_PAGE, weight
from collector.query.tempo.parameters import Range
from collector.stores.base import Document, Query, Store, trace_bytes, trace_json

ANSWER_BYTES: Final = 50 * 1024 * 1024
"""Memory of the spans of one answer."""
MAX_SPANS: Final = 50_000
"""Spans of one answer."""

_PARTIAL: Final = 1
_RESOURCE_SPANS: Final = b'"resourceSpans"'


@dataclass(slots=True)
class Found:
    """The spans of a trace, and why there may be more (empty when there are not)."""

    spans: list[Document] = field(default_factory=list)
    partial: str = ""


async def find(store: Store, trace_id: str, within: Range | None) -> Found:
    """
    The spans of a trace.

    Args:
        store: where they are.
        trace_id: 32 lower-case hexadecimal digits.
        within: only spans that start in it; None for all.
    """
    found = Found()
    total, after = 0, None
    page = 200
    while True:
        documents = await store.find(
            Query(
                signal=Signal.TRACES,
                trace_ids=(trace_id,),
                since_unix_nano=within.start if within else None,
                until_unix_nano=within.end + 1 if within else None,
                limit=page,
                after=after,
            )
        )
        for document in documents:
            total += weight(document)
            if total > ANSWER_BYTES or len(found.spans) >= MAX_SPANS:
                found.partial = f"the trace is large: this is its first {len(found.spans)} spans"
                return found
            found.spans.append(document)
        if len(documents) < page:
            return found
        after = (documents[-1]["start_unix_nano"], documents[-1]["_id"])
        page = max(1, min(LARGEST_PAGE, 8 * 1024 * 1024 * len(found.spans) // total))


def protobuf(found: Found) -> bytes:
    """The body of version 2."""
    body = _length_delimited(1, trace_bytes(found.spans))
    if found.partial:
        body += bytes((3 << 3, _PARTIAL)) + _length_delimited(4, found.partial.encode())
    return body


def bare_protobuf(found: Found) -> bytes:
    """The body of version 1."""
    return trace_bytes(found.spans)


def json(found: Found) -> bytes:
    """The body of version 2 as JSON, with ids in hexadecimal digits as OTLP has them."""
    trace = trace_json(found.spans)
    if not found.partial:
        return b'{"trace":' + trace + b"}"
    message = found.partial.encode()
    return b'{"trace":' + trace + b',"status":"PARTIAL","message":"' + message + b'"}'


def bare_json(found: Found) -> bytes:
    """The body of version 1 as JSON."""
    return trace_json(found.spans).replace(_RESOURCE_SPANS, b'"batches"', 1)


def _length_delimited(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
