"""Span documents for the evaluator's tests, made the way the collector makes them."""

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.documents.build import documents
from collector.model import Batch, Request, Signal

FIRST = 1_796_040_000_000_000_000
"""The start of the first span, a whole minute."""
TRACE = "00000000000000000000000000000a01"
MS = 1_000_000
RECEIVED = 4_102_444_800 * 10**9
"""No retention is over before 2100."""


def any_value(value: Any) -> AnyValue:
    """A Python value as OTLP; bytes, lists and maps too."""
    if value is None:
        return AnyValue()
    if isinstance(value, list):
        made = AnyValue()
        made.array_value.values.extend(map(any_value, value))
        return made
    if isinstance(value, dict):
        made = AnyValue()
        for key, item in value.items():
            made.kvlist_value.values.add(key=key).value.CopyFrom(any_value(item))
        return made
    kinds = {bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
    return AnyValue(**{kinds.get(type(value), "string_value"): value})


def fill(attributes: Any, values: dict[str, Any]) -> None:
    """Attributes of a message."""
    for key, value in values.items():
        attributes.add(key=key).value.CopyFrom(any_value(value))


def span(
    number: int,
    *,
    parent: int | None = None,
    trace: str = TRACE,
    name: str = "work",
    kind: int = 0,
    status: int = 0,
    message: str = "",
    at_ms: float = 0,
    took_ms: float = 10,
    service: str | None = "shop",
    resource: dict[str, Any] | None = None,
    scope: tuple[str, str, dict[str, Any]] = ("", "", {}),
    events: tuple[tuple[str, float, dict[str, Any]], ...] = (),
    links: tuple[tuple[str, str, dict[str, Any]], ...] = (),
    **attributes: Any,
) -> dict[str, Any]:
    """
    One span document; `number` is its id, `at_ms` its start behind `FIRST`.

    `__` in a keyword stands for a dot: `http__route="/"`.
    """
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    fill(
        group.resource.attributes,
        {**({"service.name": service} if service else {}), **(resource or {})},
    )
    scoped = group.scope_spans.add()
    scoped.scope.name, scoped.scope.version = scope[:2]
    fill(scoped.scope.attributes, scope[2])
    start = FIRST + int(at_ms * MS)
    made = scoped.spans.add(
        trace_id=bytes.fromhex(trace),
        span_id=number.to_bytes(8),
        parent_span_id=b"" if parent is None else parent.to_bytes(8),
        name=name,
        kind=kind,
        start_time_unix_nano=start,
        end_time_unix_nano=start + int(took_ms * MS),
    )
    made.status.code, made.status.message = status, message
    fill(made.attributes, {key.replace("__", "."): value for key, value in attributes.items()})
    for event, after_ms, values in events:
        fill(
            made.events.add(name=event, time_unix_nano=start + int(after_ms * MS)).attributes,
            values,
        )
    for trace_id, span_id, values in links:
        link = made.links.add(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id))
        fill(link.attributes, values)
    (document,) = documents(Batch(Signal.TRACES, request, Request(RECEIVED, bytes(16))))
    return document
