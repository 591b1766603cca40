"""
Documents -> protobuf: the proof that the shape at rest is lossless, and the way back to OTLP.

`tests/collector/documents/test_build.py` rebuilds every batch that hypothesis can think of. Groups are
formed again from equal resources and scopes, in the order in which they first appear; what OTLP
itself calls unordered (attributes) may come back in another order, and groups without items are
gone, because nothing was in them.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from collector.documents.json import dumps
from collector.documents.promoted_attributes import LOG, SPAN, Promoted
from collector.documents.schema import WORDS
from collector.model import Signal

Document = dict[str, Any]

_CODES: Final = {word: code for words in WORDS.values() for code, word in enumerate(words)}


def rebuild_into(message: Any, signal: Signal, documents: Iterable[Document]) -> None:
    """
    Add the items of `documents` to an empty export request.

    Args:
        message: an export request of `signal`.
        signal: what the documents are.
        documents: as `documents()` made them or a store returned them.
    """
    groups: dict[bytes, Any] = {}
    scopes: dict[bytes, Any] = {}
    metrics: dict[bytes, Any] = {}
    for document in documents:
        resource_key = dumps([document.get("resource"), document.get("resource_meta")])
        group = groups.get(resource_key)
        if group is None:
            group = groups[resource_key] = _new_group(message, signal)
            _resource(group, document)
        scope_key = resource_key + dumps(document.get("scope"))
        scoped = scopes.get(scope_key)
        if scoped is None:
            scoped = scopes[scope_key] = getattr(group, _SCOPES[signal]).add()
            _scope(scoped, document.get("scope", {}))
        if signal is Signal.TRACES:
            _span(scoped.spans.add(), document)
        elif signal is Signal.LOGS:
            _record(scoped.log_records.add(), document)
        else:
            metric_key = scope_key + dumps([document.get(key) for key in _METRIC])
            metric = metrics.get(metric_key)
            if metric is None:
                metric = metrics[metric_key] = _metric(scoped.metrics.add(), document)
            _POINT[document["type"]](metric.data_points.add(), document)


_GROUPS: Final = {
    Signal.TRACES: "resource_spans",
    Signal.LOGS: "resource_logs",
    Signal.METRICS: "resource_metrics",
}
_SCOPES: Final = {
    Signal.TRACES: "scope_spans",
    Signal.LOGS: "scope_logs",
    Signal.METRICS: "scope_metrics",
}
_METRIC: Final = ("name", "type", "description", "unit", "temporality", "monotonic", "metadata")


def _new_group(message: Any, signal: Signal) -> Any:
    return getattr(message, _GROUPS[signal]).add()


def _code(word: str) -> int:
    """The number of an enum's word; a value without a word stands as its number."""
    return _CODES[word] if word in _CODES else int(word)


def _copy(document: Document, target: Any, *names: str) -> None:
    """Fields that have the same name and type in both worlds."""
    for name in names:
        if name in document:
            setattr(target, name, document[name])


def _resource(group: Any, document: Document) -> None:
    resource = group.resource
    set_attributes(resource.attributes, document.get("resource", {}))
    meta = document.get("resource_meta", {})
    _copy(meta, group, "schema_url")
    _copy(meta, resource, "dropped_attributes_count")
    for entity in meta.get("entity_refs", ()):
        ref = resource.entity_refs.add()
        _copy(entity, ref, "type", "schema_url")
        ref.id_keys.extend(entity.get("id_keys", ()))
        ref.description_keys.extend(entity.get("description_keys", ()))


def _scope(scoped: Any, scope: Document) -> None:
    _copy(scope, scoped, "schema_url")
    _copy(scope, scoped.scope, "name", "version", "dropped_attributes_count")
    set_attributes(scoped.scope.attributes, scope.get("attributes", {}))


# --- values ---


def set_attributes(pairs: Any, found: Document) -> None:
    """Fill a repeated KeyValue from a map."""
    for key, value in found.items():
        pair = pairs.add(key=key)
        pair.value.SetInParent()
        set_value(pair.value, value)


def set_value(target: Any, value: Any) -> None:
    """Set an AnyValue; None leaves it empty, which is a value too."""
    if value is None:
        return
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for item in value:
            set_value(target.array_value.values.add(), item)
    else:
        target.kvlist_value.SetInParent()
        set_attributes(target.kvlist_value.values, value.get("$escape", value))


def _untaken(table: dict[str, Promoted], document: Document) -> Document:
    """The attributes as they were sent: what `_take` moved goes back."""
    found = dict(document.get("attributes", {}))
    for name, take in table.items():
        if not take.canonical or name in found or take.other in found:
            continue
        section = document if take.section is None else document.get(take.section, {})
        if take.key in section:
            found[name] = section[take.key]
    return found


# --- the three signals ---


def _span(span: Any, document: Document) -> None:
    span.trace_id = bytes.fromhex(document["trace_id"])
    span.span_id = bytes.fromhex(document["span_id"])
    span.parent_span_id = bytes.fromhex(document.get("parent_span_id", ""))
    span.name = document["name"]
    span.start_time_unix_nano = document["start_unix_nano"]
    span.end_time_unix_nano = document["end_unix_nano"]
    if kind := document.get("kind"):
        span.kind = _code(kind)
    code = _code(document["status"])
    if code or "status_message" in document:
        span.status.code = code
        span.status.message = document.get("status_message", "")
    _copy(
        document,
        span,
        "trace_state",
        "flags",
        "dropped_attributes_count",
        "dropped_events_count",
        "dropped_links_count",
    )
    set_attributes(span.attributes, _untaken(SPAN, document))
    for event in document.get("events", ()):
        added = span.events.add()
        _copy(event, added, "name", "time_unix_nano", "dropped_attributes_count")
        set_attributes(added.attributes, event.get("attributes", {}))
    for link in document.get("links", ()):
        added = span.links.add()
        added.trace_id = bytes.fromhex(link.get("trace_id", ""))
        added.span_id = bytes.fromhex(link.get("span_id", ""))
        _copy(link, added, "trace_state", "flags", "dropped_attributes_count")
        set_attributes(added.attributes, link.get("attributes", {}))


def _record(record: Any, document: Document) -> None:
    observed = document.get("observed_unix_nano", 0)
    record.observed_time_unix_nano = observed
    if "time_source" not in document:
        record.time_unix_nano = document["time_unix_nano"]
    _copy(document, record, "severity_number", "severity_text", "flags", "dropped_attributes_count")
    record.event_name = document.get("event", "")
    if "body" in document:
        set_value(record.body, document["body"])
    elif "message" in document:
        record.body.string_value = document["message"]
    trace = document.get("trace", {})
    record.trace_id = bytes.fromhex(trace.get("trace_id", ""))
    record.span_id = bytes.fromhex(trace.get("span_id", ""))
    set_attributes(record.attributes, _untaken(LOG, document))


def _metric(metric: Any, document: Document) -> Any:
    _copy(document, metric, "name", "description", "unit")
    set_attributes(metric.metadata, document.get("metadata", {}))
    data = getattr(metric, document["type"])
    data.SetInParent()
    if word := document.get("temporality"):
        data.aggregation_temporality = _code(word)
    if "monotonic" in document:
        data.is_monotonic = document["monotonic"]
    return data


def _point(point: Any, document: Document) -> None:
    point.time_unix_nano = document["time_unix_nano"]
    point.start_time_unix_nano = document.get("start_unix_nano", 0)
    _copy(document, point, "flags")
    set_attributes(point.attributes, document.get("attributes", {}))
    for exemplar in document.get("exemplars", ()):
        added = point.exemplars.add()
        _copy(exemplar, added, "time_unix_nano")
        _set_number(added, exemplar)
        added.trace_id = bytes.fromhex(exemplar.get("trace_id", ""))
        added.span_id = bytes.fromhex(exemplar.get("span_id", ""))
        set_attributes(added.filtered_attributes, exemplar.get("attributes", {}))


def _set_number(target: Any, document: Document) -> None:
    value = document.get("value")
    if isinstance(value, int):
        target.as_int = value
    elif value is not None:
        target.as_double = value


def _number(point: Any, document: Document) -> None:
    _point(point, document)
    _set_number(point, document)


def _histogram(point: Any, document: Document) -> None:
    _point(point, document)
    _copy(document, point, "count", "sum", "min", "max")
    point.bucket_counts.extend(document.get("bucket_counts", ()))
    point.explicit_bounds.extend(document.get("explicit_bounds", ()))


def _exponential(point: Any, document: Document) -> None:
    _point(point, document)
    _copy(document, point, "count", "sum", "min", "max", "scale", "zero_count", "zero_threshold")
    for name in ("positive", "negative"):
        if name in document:
            buckets = getattr(point, name)
            buckets.SetInParent()
            _copy(document[name], buckets, "offset")
            buckets.bucket_counts.extend(document[name].get("bucket_counts", ()))


def _summary(point: Any, document: Document) -> None:
    _point(point, document)
    _copy(document, point, "count", "sum")
    for item in document.get("quantiles", ()):
        _copy(item, point.quantile_values.add(), "quantile", "value")


_POINT: Final[dict[str, Callable[[Any, Document], None]]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
