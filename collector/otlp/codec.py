"""
Bytes <-> `Batch`: OTLP as protobuf and as JSON, with limits and salvage.

`decode` is one path for both encodings: JSON is written as protobuf first (`json`), then the
bytes are measured before anything is parsed (`sizing`), parsed by upb, and cleaned: a span
without usable ids is refused alone, a log record loses ids that are none and keeps its body, what
is too large is cut (`limits`). When upb refuses the request it is repaired item by item
(`repair`), so that one bad string never costs its neighbours. Whatever was changed is counted, and `Batch.wire`
is None as soon as it no longer equals the message.

This module, with its private parts, is the only importer of `*_pb2`: all others walk the
message through `resources`, `items` and `points`, or asks it by attribute.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2

from collector.errors import ConfigError, Malformed
from collector.model import Batch, Request, Signal
from collector.otlp import json as otlp_json
from collector.otlp import limits as otlp_trim
from collector.otlp import repair, sizing
from collector.otlp.repair import Limits
from collector.otlp.wrong_signal import check_types

Encoding = Literal["protobuf", "json"]

REQUESTS: Final[dict[Signal, Any]] = {
    Signal.TRACES: trace_service_pb2.ExportTraceServiceRequest,
    Signal.METRICS: metrics_service_pb2.ExportMetricsServiceRequest,
    Signal.LOGS: logs_service_pb2.ExportLogsServiceRequest,
}
GROUPS: Final = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
}
"""The nested lists of a request: one walk serves three signals."""
NOUNS: Final = {
    Signal.TRACES: "spans",
    Signal.METRICS: "metric_points",
    Signal.LOGS: "log_records",
}
"""How counters call the items of a signal."""

_SHAPES: Final[dict[str, repair.Shape]] = {}
_TABLES: Final[dict[str, otlp_json.Table]] = {}
SHAPES: Final = {
    signal: repair.shape(kind.DESCRIPTOR, _SHAPES) for signal, kind in REQUESTS.items()
}
TABLES: Final = {
    signal: otlp_json.table(kind.DESCRIPTOR, _TABLES) for signal, kind in REQUESTS.items()
}
ANY_VALUE: Final = _TABLES[repair.ANY_VALUE]
DEFAULT_LIMITS: Final = Limits()
TEXT_SOURCE_LIMIT: Final = 64 << 10
"""A value nested too deeply is rendered as text only when it is smaller than this."""
NO_ID: Final = {8: bytes(8), 16: bytes(16)}

BAD_IDS: Final = "trace id or span id is empty, zero or of the wrong length"
UNDECODABLE: Final = "cannot be decoded"


@dataclass(slots=True)
class Decoded:
    """
    What became of the body of a request.

    Args:
        batch: what can be taken; it may be empty.
        accepted: items in `batch`: spans, metric points or log records.
        rejected: items that are rejected.
        reasons: why, and how many for each reason.
        repaired: what was repaired and how often, by kind: `utf8` (fields), `depth` (values), `ids`
            (records that lost an id), `integer` (beyond 64 bits in JSON, kept as a double),
            `attributes` (cut off), `keys`, `values` and `records` (cut).
        warning: what the sender should know although nothing was refused.
    """

    batch: Batch
    accepted: int
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    warning: str = ""

    @property
    def message(self) -> str:
        """The text for `partial_success`: reasons, then the warning; empty when all is well."""
        parts = [f"{count} refused: {reason}" for reason, count in self.reasons.most_common(5)]
        if self.warning:
            parts.append(self.warning)
        return "; ".join(parts)


def require_upb() -> None:
    """
    Refuse to run on protobuf's pure-Python parser, which recurses without a limit (CVE-2025-4565).

    Raises:
        ConfigError: it is the one in use.
    """
    if api_implementation.Type() == "python":
        problem = (
            "protobuf runs on its pure-Python backend, which is slow and unsafe for input from "
            "outside; unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or install a protobuf wheel "
            "for this platform"
        )
        raise ConfigError([problem])


def request_key(tenant: str, signal: Signal, body: bytes) -> bytes:
    """The identity of a request: 16 bytes, equal when an SDK sends the same bytes again."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{tenant}\0{signal.value}\0".encode())
    digest.update(body)
    return digest.digest()


def new_message(signal: Signal) -> Any:
    """An empty Export...ServiceRequest."""
    return REQUESTS[signal]()


def _weightless(objects: int) -> None:
    """No limit: it is not weighed."""


def decode(
    signal: Signal,
    body: bytes,
    *,
    encoding: Encoding,
    request: Request,
    limits: Limits = DEFAULT_LIMITS,
    weigh: Callable[[int], None] = _weightless,
) -> Decoded:
    """
    The body of an export request as a batch.

    Args:
        signal: what the request is about.
        body: the decompressed body.
        encoding: how it is written.
        request: where it came from, for the batch.
        limits: what it may hold.
        weigh: called with how many objects parsing will make, before it makes them; may raise.

    Raises:
        Malformed: these are not the bytes of such a request.
        TooLarge: it holds more than the limits allow.
    """
    reasons: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    warning = ""
    if encoding == "json":
        weigh(otlp_json.objects(body, limits))
        found = otlp_json.read(body, TABLES[signal])
        reasons.update(found.refused)
        repaired.update(found.repaired)
        warning = misspelt(list(found.misspelt))
        body = found.data
    measured = sizing.survey(signal, body, SHAPES[signal], limits)
    weigh(measured.elements)
    parse = REQUESTS[signal].FromString
    try:
        message = parse(body)
    except DecodeError:
        saved = repair.salvage(body, SHAPES[signal], parse, any_value_text)
        body = saved.data
        repaired.update(saved.repaired)
        if saved.refused:
            reasons[UNDECODABLE] += saved.refused
        try:
            message = parse(body)
        except DecodeError as error:
            raise Malformed("the body is no protobuf message of this signal") from error
    first = next((item for _, _, item in items(Batch(signal, message, request, None))), None)
    if first is not None and encoding == "protobuf":
        check_types(NOUNS[signal], first)
    wire: bytes | None = body
    before = reasons.total() + repaired["ids"]
    check_ids(signal, message, reasons, repaired)
    if otlp_trim.needed(measured, limits):
        cuts: Counter[str] = Counter()
        otlp_trim.Trim(limits, cuts, reasons).request(signal, message, GROUPS[signal])
        repaired.update(cuts)
        wire = None if cuts else wire
    if reasons.total() + repaired["ids"] > before:
        wire = None
    return Decoded(
        batch=Batch(signal, message, request, wire),
        accepted=count(signal, message),
        rejected=reasons.total(),
        reasons=reasons,
        repaired=repaired,
        warning=warning,
    )


def misspelt(names: list[str]) -> str:
    """The warning about members in snake_case, which OTLP/JSON does not know."""
    if not names:
        return ""
    shown = ", ".join(names[: otlp_json.SNAKE_NAMED])
    more = len(names) - otlp_json.SNAKE_NAMED
    tail = f" and {more} more" if more > 0 else ""
    return f"ignored unknown JSON names in snake_case: {shown}{tail}; OTLP/JSON is lowerCamelCase"


def any_value_text(data: bytes) -> str:
    """An AnyValue (its bytes) as JSON text of at most 4 KiB, or a marker when it is too much."""
    if len(data) <= TEXT_SOURCE_LIMIT:
        try:
            value = otlp_json.plain(common_pb2.AnyValue.FromString(data), ANY_VALUE)
        except DecodeError:
            pass
        else:
            return msgspec.json.encode(value).decode()[: repair.TEXT_LIMIT]
    return f"[nested too deeply: {len(data)} bytes left out]"


def is_id(value: bytes, size: int) -> bool:
    """Whether this is a trace id (16) or span id (8): right length, not all zero."""
    return len(value) == size and value != NO_ID[size]


def check_ids(signal: Signal, message: Any, reasons: Counter[str], repaired: Counter[str]) -> None:
    """Refuse spans without ids; take ids that are none from log records."""
    groups_name, scopes_name, items_name = GROUPS[signal]
    if signal is Signal.METRICS:
        return
    for group in getattr(message, groups_name):
        for scope in getattr(group, scopes_name):
            found = getattr(scope, items_name)
            if signal is Signal.LOGS:
                check_logs(found, repaired)
            else:
                check_spans(found, reasons, repaired)


def check_spans(spans: Any, reasons: Counter[str], repaired: Counter[str]) -> None:
    """Take out spans without ids."""
    bad = False
    for span in spans:
        if not is_id(span.trace_id, 16) or not is_id(span.span_id, 8):
            bad = True
            continue
        parent = span.parent_span_id
        if parent and not is_id(parent, 8):
            span.ClearField("parent_span_id")
            repaired["ids"] += 1
    if bad:
        kept = [span for span in spans if is_id(span.trace_id, 16) and is_id(span.span_id, 8)]
        reasons[BAD_IDS] += len(spans) - len(kept)
        del spans[:]
        spans.extend(kept)


def check_logs(records: Any, repaired: Counter[str]) -> None:
    """Take ids that are none from log records, which keep everything else."""
    for record in records:
        trace_id, span_id = record.trace_id, record.span_id
        bad_trace = bool(trace_id) and not is_id(trace_id, 16)
        bad_span = bool(span_id) and not is_id(span_id, 8)
        if bad_trace:
            record.ClearField("trace_id")
        if bad_trace or bad_span:
            record.ClearField("span_id")
            repaired["ids"] += 1


def resources(batch: Batch) -> Any:
    """The resource groups (ResourceSpans, ResourceMetrics, ResourceLogs) of a batch."""
    return getattr(batch.message, GROUPS[batch.signal][0])


def items(batch: Batch) -> Iterator[tuple[Any, Any, Any]]:
    """Each span, metric or log record, behind its resource group and its scope group."""
    _, scopes_name, items_name = GROUPS[batch.signal]
    for group in resources(batch):
        for scope in getattr(group, scopes_name):
            for item in getattr(scope, items_name):
                yield group, scope, item


def points(metric: Any) -> Any:
    """The data points of a metric, whatever its type; none when it has no data."""
    kind = metric.WhichOneof("data")
    return () if kind is None else getattr(metric, kind).data_points


def count(signal: Signal, message: Any) -> int:
    """How many spans, metric points or log records a request holds."""
    total = 0
    groups_name, scopes_name, items_name = GROUPS[signal]
    for group in getattr(message, groups_name):
        for scope in getattr(group, scopes_name):
            found = getattr(scope, items_name)
            if signal is Signal.METRICS:
                total += sum(len(points(metric)) for metric in found)
            else:
                total += len(found)
    return total


def encode(batch: Batch) -> bytes:
    """The request as protobuf bytes: those it came with, unless it was changed."""
    if batch.wire is not None:
        return batch.wire
    data: bytes = batch.message.SerializeToString()
    return data


def encode_json(batch: Any, signal: Signal) -> bytes:
    """
    A request as OTLP/JSON.

    Args:
        batch: a `Batch`, or an Export...ServiceRequest.
        signal: what the request is about.
    """
    message = batch.message if isinstance(batch, Batch) else batch
    return msgspec.json.encode(otlp_json.plain(message, TABLES[signal]))
