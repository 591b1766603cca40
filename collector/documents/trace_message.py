"""
Span documents -> one OTLP TracesData, complete enough for readers that do not check.

Grafana's data source dereferences the resource, the scope and the status of what it gets, drops
the spans of a resource without attributes, and shows a span that ends before it starts with a
negative length. So all three are always present, the resource has its service name, and no span
ends before it starts; apart from that the message is what was sent.
"""

from collections.abc import Iterable
from typing import Any

from collector.documents.rebuild import Document, rebuild_into
from collector.model import Signal
from collector.otlp import encode_json, new_message


def trace_message(documents: Iterable[Document]) -> Any:
    """
    An export request, which has the bytes of a TracesData.

    Args:
        documents: of spans, in any order; groups and spans come in the order of their starts.
    """
    ordered = sorted(documents, key=lambda span: (span["start_unix_nano"], span["span_id"]))
    message = new_message(Signal.TRACES)
    rebuild_into(message, Signal.TRACES, map(_forwards, ordered))
    services = _services(ordered)
    for group in message.resource_spans:
        group.resource.SetInParent()
        if not group.resource.attributes:
            added = group.resource.attributes.add(key="service.name")
            added.value.string_value = services[group.scope_spans[0].spans[0].span_id.hex()]
        for scoped in group.scope_spans:
            scoped.scope.SetInParent()
            for span in scoped.spans:
                span.status.SetInParent()
    return message


def trace_bytes(documents: Iterable[Document]) -> bytes:
    """`trace_message` as protobuf."""
    encoded: bytes = trace_message(documents).SerializeToString()
    return encoded


def trace_json(documents: Iterable[Document]) -> bytes:
    """`trace_message` as OTLP/JSON."""
    return encode_json(trace_message(documents), Signal.TRACES)


def _forwards(span: Document) -> Document:
    if span["end_unix_nano"] >= span["start_unix_nano"]:
        return span
    return {**span, "end_unix_nano": span["start_unix_nano"]}


def _services(spans: list[Document]) -> dict[str, str]:
    return {span["span_id"]: span["service"] for span in spans}
