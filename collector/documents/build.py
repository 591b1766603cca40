"""
Batch -> documents: the one shape at rest, for every store, JSON file and answer.

One document per log record, span or metric point: a plain dict, flat where people filter, lossless
so that the batch can be rebuilt (`rebuild`). Absent values are absent, never None (the exception:
an attribute whose OTLP value is empty is None, because that is its value). One type per field.
Ids are lower-case hex. Attributes keep their exact names as plain keys (`"http.request.method"`);
a store that cannot keep dots nests them inside and undoes it when it reads.

Common to all three:
    _id              24 hex characters, deterministic (below)
    received_at      datetime, UTC, milliseconds: the collector's clock; retention runs on it
    service          resource attribute service.name, "unknown_service" when there is none
    attributes       {name: value}; str, bool, int, float, Binary, list, dict, None
    resource         {name: value}, the resource's attributes
    resource_meta    {schema_url, dropped_attributes_count, entity_refs}; mostly absent
    scope            {name, version, attributes, dropped_attributes_count, schema_url}
    dropped_attributes_count, flags: ints, absent when 0

Log record:
    timestamp        datetime, UTC, microseconds, of time_unix_nano
    time_unix_nano   int: the record's time, else its observed time, else received
    time_source      "observed" or "received" when the record had no time of its own
    observed_unix_nano  int
    level            DEBUG, INFO, WARNING, ERROR or CRITICAL (severity 1-8, 9-12 and 0, 13-16,
                     17-20, 21-24; with severity 0 the text decides, if it is a known level)
    severity_number, severity_text   as sent
    logger_name      the scope's name
    function_name, line_number, file_path    from code.*
    message          the body when it is text, else its JSON text
    body             the body, only when it is not text
    event            the event name
    context          {correlation_id, request_id, ...}: str values, telemetry.attributes.CONTEXT
    trace            {trace_id, span_id, execution_time_ms, status}
    exception        {type, message, stacktrace}

Span:
    trace_id, span_id, parent_span_id, trace_state, name
    kind             INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER; absent when unspecified
    start            datetime, UTC, microseconds, of start_unix_nano
    start_unix_nano, end_unix_nano   ints
    duration_ms      float, 0.0 when the end lies before the start
    status           UNSET, OK or ERROR;   status_message
    context          as above
    events           [{name, time_unix_nano, attributes, dropped_attributes_count}]
    links            [{trace_id, span_id, trace_state, attributes, flags, ...}]
    dropped_events_count, dropped_links_count

Metric point:
    name, description, unit, metadata
    type             gauge, sum, histogram, exponential_histogram, summary
    temporality      delta or cumulative;   monotonic: bool (sums)
    timestamp        datetime of time_unix_nano;   time_unix_nano, start_unix_nano
    value            int or float (gauge, sum)
    count, sum, min, max, bucket_counts, explicit_bounds            (histograms)
    scale, zero_count, zero_threshold, positive, negative {offset, bucket_counts}
    quantiles        [{quantile, value}]
    exemplars        [{time_unix_nano, value, trace_id, span_id, attributes}]

`context`, `function_name`..., `exception` and `trace.*` *take over* the attribute that they come
from when it has the canonical name and the right type; an application's own spelling
(`correlation_id`) is copied and stays in `attributes`. That rule alone makes the way back exact.

Ids: 4 bytes of seconds of the item's own time, then 8 bytes of identity, so that inserts stay at
the right edge of an index and a replay collides instead of duplicating: spans from (tenant, trace
id, span id), log records from their `log.record.uid`, else from the request's key and the index
in the request, points from (series, time, start), and without a time from the request, too. The
key of a request is that of its first try (decision 13); nothing else that depends on arrival enters.

As JSON (`dumps`, `loads`) dates are ISO 8601 with zone, and what JSON cannot say is said in
MongoDB's Extended JSON: {"$binary": {"base64": ...}} and {"$numberDouble": "NaN"}; a map of the user's with one of these
keys stands as {"$escape": map} in the document itself.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

from collector.documents.json import Binary as Binary
from collector.documents.json import NonFinite as NonFinite
from collector.documents.json import dumps as dumps
from collector.documents.json import loads as loads
from collector.documents.json import text as text
from collector.documents.promoted_attributes import LOG as LOG
from collector.documents.promoted_attributes import SPAN as SPAN
from collector.documents.promoted_attributes import Promoted
from collector.documents.promoted_attributes import as_parts as as_parts
from collector.documents.rebuild import rebuild_into
from collector.documents.schema import CORE as CORE
from collector.documents.schema import native_schema as native_schema
from collector.documents.schema import read
from collector.model import Batch, Signal
from collector.otlp import new_message

Document = dict[str, Any]

LEVELS: Final = (
    "INFO",
    *("DEBUG",) * 8,
    *("INFO",) * 4,
    *("WARNING",) * 4,
    *("ERROR",) * 4,
    *("CRITICAL",) * 4,
)
"""`level` by severity number, 0 to 24 (OpenTelemetry logs data model, "Severity Fields")."""

LEVEL_WORDS: Final = {
    "TRACE": "DEBUG",
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "NOTICE": "INFO",
    "WARN": "WARNING",
    "WARNING": "WARNING",
    "ERR": "ERROR",
    "ERROR": "ERROR",
    "FATAL": "CRITICAL",
    "CRITICAL": "CRITICAL",
}
RECORD_UID: Final = "log.record.uid"
UNKNOWN_SERVICE: Final = "unknown_service"

_BILLION: Final = 1_000_000_000
_from_timestamp = datetime.fromtimestamp


def moment(unix_nano: int) -> datetime:
    """UTC time of nanoseconds since the epoch, cut to whole microseconds."""
    return _from_timestamp(unix_nano // 1000 / 1e6, UTC)


def documents(batch: Batch) -> list[Document]:
    """
    The documents of a batch, in the order of its items; made once per batch.

    Args:
        batch: its message is read, never changed. Documents are frozen: every exporter of the
            batch gets the same ones, and resource and scope maps are shared between them.
    """
    if batch.made is None:
        batch.made = _FINISH[batch.signal](read(batch.wire, batch.message), batch)
    return batch.made


def rebuild(signal: Signal, found: Iterable[Document]) -> Any:
    """
    The export request that these documents came from: the shape at rest loses nothing.

    Args:
        signal: what the documents are.
        found: as `documents` made them or a store returned them, of one or of many batches.
    """
    message = new_message(signal)
    rebuild_into(message, signal, found)
    return message


def level(severity_number: int, severity_text: str) -> str:
    """One of the five levels, from the number, else from the text, else INFO."""
    if 0 < severity_number < len(LEVELS):
        return LEVELS[severity_number]
    if severity_number >= len(LEVELS):
        return "CRITICAL"
    return LEVEL_WORDS.get(severity_text.upper(), "INFO")


def _take(table: dict[str, Promoted], found: Document, document: Document) -> None:
    """Move or copy well-known attributes to their places; the rule of the module's docstring."""
    for name in [name for name in found if name in table]:
        take = table[name]
        value = found[name]
        kind = type(value)
        if kind is not take.kind and not (take.text and kind is int):
            continue
        if not take.canonical and type(found.get(take.other)) in (str, int):
            continue  # the canonical name wins
        if kind is not take.kind:
            value = str(value)
        elif take.canonical and take.other not in found:
            del found[name]
        if take.section is None:
            document[take.key] = value
        else:
            document.setdefault(take.section, {})[take.key] = value
    if not found:
        del document["attributes"]


def _resource(group: Document, received_at: datetime) -> Document:
    """The fields that all documents of a resource begin with; shared between them."""
    common: Document = {"received_at": received_at, "service": UNKNOWN_SERVICE}
    resource = group.get("resource", {})
    found = resource.pop("attributes", None)
    if found:
        common["resource"] = found
        name = found.get("service.name")
        if type(name) is str and name:
            common["service"] = name
    if "schema_url" in group:
        resource["schema_url"] = group["schema_url"]
    if resource:
        common["resource_meta"] = resource
    return common


def _scope(scoped: Document, common: Document) -> Document:
    """The fields that all documents of a scope begin with."""
    scope: Document = scoped.get("scope", {})
    if "schema_url" in scoped:
        scope["schema_url"] = scoped["schema_url"]
    return {**common, "scope": scope} if scope else common


def received_at(batch: Batch) -> datetime:
    """The field of this name: milliseconds, because that is what every store can keep."""
    received = batch.request.received_at_unix_nano
    return moment(received - received % 1_000_000)


def _identity(tenant: str, *parts: bytes) -> str:
    """16 hex characters that stand for `parts`, different for each tenant."""
    return blake2b(b"\0".join((tenant.encode(), *parts)), digest_size=8).hexdigest()


def finish_spans(spans: list[Document], common: Document, prefix: bytes) -> None:
    """Make documents of the spans of a scope; the native core does the same."""
    tenant = prefix[:-1].decode()
    for span in spans:
        start = span.setdefault("start_unix_nano", 0)
        end = span.setdefault("end_unix_nano", 0)
        trace_id = span.setdefault("trace_id", "")
        span_id = span.setdefault("span_id", "")
        identity = _identity(tenant, f"{trace_id}{span_id}".encode())
        span["_id"] = f"{start // _BILLION & 0xFFFFFFFF:08x}{identity}"
        span.setdefault("name", "")
        span["start"] = moment(start)
        span["duration_ms"] = (end - start) / 1e6 if end > start else 0.0
        span.update(common)
        status = span.get("status")
        if status is None:
            span["status"] = "UNSET"
        else:
            span["status"] = status.get("code", "UNSET")
            if "message" in status:
                span["status_message"] = status["message"]
        values = span.get("attributes")
        if values is not None:
            _take(SPAN, values, span)


def finish_logs(  # noqa: PLR0917 - as the native core has it
    records: list[Document],
    common: Document,
    prefix: bytes,
    identity: int,
    received: int,
    logger_name: str | None,
) -> int:
    """Make documents of the records of a scope, as the native core does; the next identity."""
    tenant = prefix[:-1].decode()
    for record in records:
        observed = record.get("observed_unix_nano", 0)
        time = record.get("time_unix_nano", 0)
        if not time:
            # Time of arrival never enters the id: a resend must get the same one.
            record["time_source"] = "observed" if observed else "received"
            time = observed
            record["time_unix_nano"] = observed or received
        seconds = time // _BILLION & 0xFFFFFFFF
        record["_id"] = f"{seconds:08x}{identity:016x}"
        identity = identity + 1 & 0xFFFFFFFFFFFFFFFF
        record["timestamp"] = moment(record["time_unix_nano"])
        record["level"] = level(record.get("severity_number", 0), record.get("severity_text", ""))
        record.update(common)
        if logger_name is not None:
            record["logger_name"] = logger_name
        body = record.get("body")
        if type(body) is str:
            record["message"] = record.pop("body")
        elif body is not None:
            record["message"] = text(body)
        elif "body" in record:
            del record["body"]
        trace: Document = {}
        if "trace_id" in record:
            trace["trace_id"] = record.pop("trace_id")
        if "span_id" in record:
            trace["span_id"] = record.pop("span_id")
        if trace:
            record["trace"] = trace
        values = record.get("attributes")
        if values is not None:
            uid = values.get(RECORD_UID)
            if type(uid) is str and uid:
                record["_id"] = f"{seconds:08x}{_identity(tenant, uid.encode())}"
            _take(LOG, values, record)
    return identity


_finish_spans = finish_spans
_finish_logs = finish_logs
if CORE is not None:
    CORE.finish_setup(
        _from_timestamp, UTC, level, LEVELS, text, RECORD_UID, as_parts(SPAN), as_parts(LOG)
    )
    _finish_spans, _finish_logs = CORE.finish_spans, CORE.finish_logs


def _spans(request: Document, batch: Batch) -> list[Document]:
    found: list[Document] = []
    arrived = received_at(batch)
    prefix = f"{batch.request.tenant}\0".encode()
    for group in request.get("resource_spans", ()):
        resource = _resource(group, arrived)
        for scoped in group.get("scope_spans", ()):
            spans = scoped.get("spans", [])
            _finish_spans(spans, _scope(scoped, resource), prefix)
            found += spans
    return found


def _logs(request: Document, batch: Batch) -> list[Document]:
    found: list[Document] = []
    arrived = received_at(batch)
    received = batch.request.received_at_unix_nano
    prefix = f"{batch.request.tenant}\0".encode()
    identity = int.from_bytes(batch.request.key[:8])
    for group in request.get("resource_logs", ()):
        resource = _resource(group, arrived)
        for scoped in group.get("scope_logs", ()):
            common = _scope(scoped, resource)
            logger_name = common.get("scope", {}).get("name")
            records = scoped.get("log_records", [])
            identity = _finish_logs(records, common, prefix, identity, received, logger_name)
            found += records
    return found


POINTS: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def _metrics(request: Document, batch: Batch) -> list[Document]:
    found: list[Document] = []
    arrived = received_at(batch)
    tenant = batch.request.tenant
    key, index = batch.request.key, 0
    for group in request.get("resource_metrics", ()):
        resource = _resource(group, arrived)
        # Sorted, so that a client that shuffles its attributes feeds the same series.
        owner = dumps(resource.get("resource", {}), ordered=True)
        for scoped in group.get("scope_metrics", ()):
            common = _scope(scoped, resource)
            for metric in scoped.get("metrics", ()):
                kind = next((kind for kind in POINTS if kind in metric), None)
                if kind is None:
                    continue
                data = metric.pop(kind)
                points = data.pop("data_points", ())
                base = {"name": "", "type": kind, **metric, **data, **common}
                if kind == "sum":
                    base.setdefault("monotonic", False)
                scope_name = common.get("scope", {}).get("name", "")
                word = base.get("temporality", "")
                series = dumps([base["name"], kind, base.get("unit", ""), word, scope_name])
                for point in points:
                    # Without a time of its own a point is identified by the request that brought it.
                    index += 1
                    own = b"" if point.get("time_unix_nano") else b"%b %d" % (key, index)
                    _point(point, kind, base, (tenant, owner, series + own))
                found += points
    return found


def _point(point: Document, kind: str, base: Document, series: tuple[str, bytes, bytes]) -> None:
    time = point.setdefault("time_unix_nano", 0)
    times = b"%d %d" % (time, point.get("start_unix_nano", 0))
    tenant, owner, name = series
    values = dumps(point.get("attributes", {}), ordered=True)
    identity = _identity(tenant, owner, name, values, times)
    if kind not in ("gauge", "sum"):
        point.setdefault("count", 0)
    if kind == "exponential_histogram":
        point.setdefault("scale", 0)
        point.setdefault("zero_count", 0)
    if kind == "summary":
        point.setdefault("sum", 0.0)
    point["_id"] = f"{time // _BILLION & 0xFFFFFFFF:08x}{identity}"
    point["timestamp"] = moment(time)
    point.update(base)


_FINISH: Final[dict[Signal, Callable[[Document, Batch], list[Document]]]] = {
    Signal.TRACES: _spans,
    Signal.LOGS: _logs,
    Signal.METRICS: _metrics,
}
