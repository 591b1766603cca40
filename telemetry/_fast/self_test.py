"""
One span, one log record and two measurements, made both ways in memory, and what differs.

No thread, no connection, nothing global: the providers here are of their own and gone afterwards.
Times and random numbers cannot be the same and are checked for their order alone.
"""

import dataclasses
import logging
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from telemetry import _otel_context
from telemetry._fast import logs, metrics, traces
from telemetry._logs import logger as loggers
from telemetry._logs import record
from telemetry._sdk.instruments import guarded
from telemetry._sdk.log_processor import LogPipeline
from telemetry._sdk.span_processor import SpanPipeline

_TIMES: Final = ("_start_time", "_end_time")
_NOTHING: Final[Any] = None
"""In the place of a redactor: there are no processors of others that it would be asked for."""
_FIELDS: Final[dict[str, Any]] = {"self.test": "a", "number": 1, "share": 0.5, "flag": True}


class _Kept:
    """A queue that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def put(self, item: Any, size: int, *, important: bool = False) -> None:
        self.got.append((item, size, important))

    def lose(self, reason: str) -> None:
        self.got.append((reason, 0, False))


class _SameIds(IdGenerator):
    def generate_span_id(self) -> int:
        return 0x1234567890ABCDEF

    def generate_trace_id(self) -> int:
        return 0x1234567890ABCDEF1234567890ABCDEF


def difference() -> str:
    """What differs between the SDK path and the fast path; empty when nothing does."""
    resource = Resource({"service.name": "self-test"})
    for compare in (_spans, _logs, _metrics):
        found = compare(resource)
        if found:
            return f"the self-test found a difference: {found}"
    return ""


def _sampled() -> Context:
    parent = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


# --- spans ---


def _spans(resource: Resource) -> str:
    ordinary = _span_made(resource, fast=False)
    fast = _span_made(resource, fast=True)
    if len(ordinary) != 1 or len(fast) != 1:
        return f"a span was delivered {len(ordinary)} and {len(fast)} times"
    (one, size, important), (other, other_size, other_important) = ordinary[0], fast[0]
    if (size, important) != (other_size, other_important):
        return "the size or the importance of a span"
    for name in vars(one):
        if name in _TIMES:
            if not isinstance(getattr(other, name), int):
                return f"the field {name} of a span"
        elif _plain(getattr(one, name)) != _plain(getattr(other, name, None)):
            return f"the field {name} of a span"
    return "" if other.start_time <= other.end_time else "the order of start and end"


def _span_made(resource: Resource, *, fast: bool) -> list[Any]:
    queue: Any = _Kept()
    pipeline = SpanPipeline(queue, _NOTHING, flush=lambda _: True, ensure_handlers=lambda: None)
    provider = TracerProvider(
        sampler=DEFAULT_ON,
        resource=resource,
        shutdown_on_exit=False,
        active_span_processor=pipeline,
        id_generator=_SameIds(),
    )
    if fast:
        traces.quicken(provider)
    context = _sampled()
    tracer = provider.get_tracer("telemetry.self-test")
    with tracer.start_as_current_span("a", context, trace.SpanKind.CLIENT, _FIELDS) as span:
        span.set_attribute("late", "b")
        span.set_attributes({"more": 2, "list": ["x"]})
        span.add_event("happened", {"at": 1})
        span.set_status(StatusCode.ERROR, "failed")
    return list(queue.got)


def _plain(value: Any) -> Any:
    """A field of a span as something that can be compared."""
    held = getattr(value, "_dict", None)
    if held is not None:
        return (dict(held), value.dropped)
    if hasattr(value, "status_code"):
        return (value.status_code, value.description)
    if hasattr(value, "dropped"):
        return ([(item.name, dict(item.attributes)) for item in value], value.dropped)
    return value


# --- log records ---


def _logs(resource: Resource) -> str:
    ordinary: Any = _Kept()
    fast: Any = _Kept()
    pipeline = LogPipeline(ordinary, _NOTHING, flush=lambda _: True, as_facts=True)
    processors: Any = pipeline
    provider = LoggerProvider(
        resource=resource, shutdown_on_exit=False, multi_log_record_processor=processors
    )
    given = logging.LogRecord(
        "telemetry.self-test", logging.ERROR, __file__, 1, "happened", (), None, "f"
    )
    given.__dict__.update(_FIELDS, order_id="o-1", **{record.EVENT_NAME: "self.test"})
    handler = loggers.OtelHandler(provider, lambda: None)
    token = _otel_context.attach_context(_sampled())
    try:
        handler.emit(given)
        handler.fast = logs.FastLogs(provider, pipeline, fast, handler)
        handler.emit(given)
    finally:
        _otel_context.detach_context(token)
    if len(ordinary.got) != 1 or len(fast.got) != 1:
        return f"a log record was delivered {len(ordinary.got)} and {len(fast.got)} times"
    (one, size, important), (other, other_size, other_important) = ordinary.got[0], fast.got[0]
    if (size, important) != (other_size, other_important):
        return "the size or the importance of a log record"
    for index, (part, other_part) in enumerate(zip(one, other, strict=True)):
        if part != other_part and index > 1:  # the first two are times
            return f"part {index} of a log record"
    return ""


# --- measurements ---


def _metrics(resource: Resource) -> str:
    ordinary, fast = (_points(resource, fast=fast) for fast in (False, True))
    return "" if ordinary == fast else "the points of a metric"


def _points(resource: Resource, *, fast: bool) -> Any:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    meter = provider.get_meter("telemetry.self-test")
    counter, histogram = meter.create_counter("c"), meter.create_histogram("h")
    takes = [guarded(counter.add), guarded(histogram.record)]
    if fast:
        takes = [
            metrics.quicken(instrument, take)
            for instrument, take in zip((counter, histogram), takes, strict=True)
        ]
    count, record_value = takes
    context = _sampled()
    # One exemplar of a sum is chosen by chance; of one measurement the choice is known.
    count(1, {"a": "b"}, context)
    for amount in (1, 2.5, 7.5):
        record_value(amount, {"a": "b"}, context)
    data: Any = reader.get_metrics_data()
    provider.shutdown()
    return _without_times(data)


def _without_times(value: Any) -> Any:
    """What the SDK's data classes hold, with names and without times."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _without_times(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not field.name.endswith("time_unix_nano")
        }
    return [_without_times(inner) for inner in value] if isinstance(value, (list, tuple)) else value
