"""
Span documents -> Jaeger's JSON of a trace, by way of OTLP/JSON, which has every attribute in its place.

The data source refuses times that are not whole numbers of microseconds. What Jaeger has no field
for (kind, status, scope, trace state) is a tag, under the names that Jaeger gives it.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from collector.stores.base import Document, dumps, trace_json

Tag = dict[str, Any]

_KINDS: Final = ("", "internal", "server", "client", "producer", "consumer")
_STATUS: Final = ("", "OK", "ERROR")
_NUMBERS: Final = {
    f"{prefix}{word}": number
    for prefix, words in (("SPAN_KIND_", _KINDS), ("STATUS_CODE_", _STATUS))
    for number, word in enumerate(word.upper() for word in words)
}
_SERVICE: Final = "service.name"


def trace(spans: Sequence[Document]) -> dict[str, Any]:
    """
    One trace.

    Args:
        spans: all of one trace id, at least one.
    """
    found = msgspec.json.decode(trace_json(spans))
    made: list[dict[str, Any]] = []
    processes: dict[bytes, str] = {}
    table: dict[str, Any] = {}
    for group in found.get("resourceSpans", ()):
        process = _process(group.get("resource", {}).get("attributes", ()))
        key = dumps(process, ordered=True)
        name = processes.setdefault(key, f"p{len(processes) + 1}")
        table[name] = process
        for scoped in group.get("scopeSpans", ()):
            scope = scoped.get("scope", {})
            made += (_span(span, scope, name) for span in scoped.get("spans", ()))
    made.sort(key=lambda span: (span["startTime"], span["spanID"]))
    return {
        "traceID": spans[0]["trace_id"],
        "spans": made,
        "processes": table,
        "warnings": None,
    }


def text(tag: Tag) -> str:
    """The value of a tag as a search compares it."""
    value = tag["value"]
    return value if isinstance(value, str) else dumps(value).decode()


def _process(attributes: Iterable[Any]) -> dict[str, Any]:
    tags = _tags(attributes)
    service = next((tag["value"] for tag in tags if tag["key"] == _SERVICE), "unknown_service")
    return {"serviceName": service, "tags": [tag for tag in tags if tag["key"] != _SERVICE]}


def _span(span: dict[str, Any], scope: dict[str, Any], process: str) -> dict[str, Any]:
    start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
    trace_id, references = span["traceId"], []
    if parent := span.get("parentSpanId"):
        references.append({"refType": "CHILD_OF", "traceID": trace_id, "spanID": parent})
    references += (
        {"refType": "FOLLOWS_FROM", "traceID": link["traceId"], "spanID": link["spanId"]}
        for link in span.get("links", ())
    )
    return {
        "traceID": trace_id,
        "spanID": span["spanId"],
        "operationName": span.get("name", ""),
        "references": references,
        "startTime": start // 1000,
        "duration": max(0, end - start) // 1000,
        "tags": [*_scope(scope), *_tags(span.get("attributes", ())), *_facts(span)],
        "logs": [_log(event) for event in span.get("events", ())],
        "processID": process,
        "warnings": None,
    }


def _scope(scope: dict[str, Any]) -> list[Tag]:
    found = [
        _tag(f"otel.scope.{name}", scope[name]) for name in ("name", "version") if scope.get(name)
    ]
    return found + _tags(scope.get("attributes", ()))


def _facts(span: dict[str, Any]) -> list[Tag]:
    """What OTLP has fields for and Jaeger has not."""
    found = []
    if kind := _KINDS[_number(span.get("kind", 0))]:
        found.append(_tag("span.kind", kind))
    status = span.get("status", {})
    code = _STATUS[_number(status.get("code", 0))]
    if code:
        found.append(_tag("otel.status_code", code))
    if code == "ERROR":
        found.append({"key": "error", "type": "bool", "value": True})
    if message := status.get("message"):
        found.append(_tag("otel.status_description", message))
    if state := span.get("traceState"):
        found.append(_tag("w3c.tracestate", state))
    return found


def _number(value: Any) -> int:
    """An enum value, which OTLP/JSON may write as its number or its name."""
    number = value if isinstance(value, int) else _NUMBERS.get(value, 0)
    return number if 0 <= number < len(_KINDS) else 0


def _log(event: dict[str, Any]) -> dict[str, Any]:
    fields = [_tag("event", event.get("name", "")), *_tags(event.get("attributes", ()))]
    return {"timestamp": int(event.get("timeUnixNano", 0)) // 1000, "fields": fields}


def _tag(key: str, value: str) -> Tag:
    return {"key": key, "type": "string", "value": value}


def _tags(attributes: Iterable[Any]) -> list[Tag]:
    """Attributes by name, as Jaeger orders them."""
    found = [_typed(each["key"], each.get("value", {})) for each in attributes]
    return sorted(found, key=lambda tag: str(tag["key"]))


def _typed(key: str, value: dict[str, Any]) -> Tag:
    kind, found = next(iter(value.items()), ("stringValue", ""))
    match kind:
        case "boolValue":
            return {"key": key, "type": "bool", "value": found}
        case "intValue":
            return {"key": key, "type": "int64", "value": int(found)}
        case "doubleValue" if not isinstance(found, str):  # NaN and infinities are texts
            whole = int(found) if found == found // 1 and abs(found) < 2**53 else found
            return {"key": key, "type": "float64", "value": whole}
        case "bytesValue":
            return {"key": key, "type": "binary", "value": base64.b64decode(found).hex()}
        case "arrayValue" | "kvlistValue":
            return _tag(key, dumps(_plain(value)).decode())
        case _:
            return _tag(key, str(found))


def _plain(value: dict[str, Any]) -> Any:
    """An attribute value as plain JSON."""
    kind: str
    found: Any
    kind, found = next(iter(value.items()), ("", None))
    if kind == "arrayValue":
        return [_plain(each) for each in found.get("values", ())]
    if kind == "kvlistValue":
        return {each["key"]: _plain(each.get("value", {})) for each in found.get("values", ())}
    return int(found) if kind == "intValue" else found
