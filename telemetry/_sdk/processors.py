"""
Where the SDK's providers meet ours: guards, id stamping, delivery.

The providers are OpenTelemetry's own, so that foreign instrumentation and exporters go on working.
They get a guarded list of processors, because an exception in anybody's processor would come out
of `start_span()` or `logger.info()`, and from `on_end` it would replace the application's own
(opentelemetry-python#5624, #5626). Ids are stamped first, delivery comes last.

`capture()` of the test kit sets `redirect`: then records go there instead of to the courier.

The courier's thread redacts what it sends. Processors of others (an exporter that somebody added by
hand) get redacted copies when a record is done, and `capture()` too. A processor of others that
changes its copy of a log record changes the record: so redactors and enrichers go on working.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs._internal import SynchronousMultiLogRecordProcessor
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    ExemplarFilter,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
)
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags, get_current_span
from opentelemetry.util.types import Attributes

from telemetry import _diagnostics, _values
from telemetry._context import request as requests
from telemetry._context import scope
from telemetry._export.queue import Courier
from telemetry._export.record_redactor import Gate
from telemetry._logs import root
from telemetry._native import fast_weigh
from telemetry._otel_context import plain, stamp
from telemetry._sdk.request_processors import Ours
from telemetry._traces import guarded_span
from telemetry.attributes import AUDIT_STREAM

_ERROR_SEVERITY = 17
_ENTRIES = (SpanKind.SERVER, SpanKind.CONSUMER)
_OVERHEAD = 200
_NO_CONTEXT = Context()


def _guarded(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a processor; what it raises is said, not raised."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        _complain(getattr(call, "__self__", call), error)
        return None


def _complain(processor: object, error: Exception) -> None:
    failed(error, type(processor).__name__)


def failed(error: Exception, name: str = "GuardedSpanProcessors") -> None:
    """Say what a processor raised."""
    _diagnostics.say(
        f"processor {name}", f"{name} raised {type(error).__name__}: {_values.text(error)}"
    )


def ours_alone(processors: Iterable[object]) -> bool:
    """Whether all processors are ours."""
    return all(isinstance(processor, Ours) for processor in processors)


def is_important(number: int, attributes: Mapping[str, Any]) -> bool:
    """Whether a log record gets the last of the room: errors, and the audit stream."""
    return number >= _ERROR_SEVERITY or AUDIT_STREAM in attributes


class GuardedSpanProcessors(SynchronousMultiSpanProcessor):
    """
    The SDK's list of span processors, none of which can hurt the application.

    Args:
        gate: what may be shown to processors of others.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the SDK has no annotation here
        self._gate = gate
        self.delivery: SpanDelivery | None = None
        """Whose `ended` is all that `on_end` comes to, while all processors are ours."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor."""
        super().add_span_processor(span_processor)
        last = self._span_processors[-1]
        alone = isinstance(last, SpanDelivery) and ours_alone(self._span_processors)
        self.delivery = last if alone else None  # type: ignore[assignment]  # `alone`

    def begun(self, span: Any, context: Context | None, above: object) -> bool:
        """
        Do at once what our processors do at a start, if they are all there are.

        Args:
            span: a `GuardedSpan`, made just now by `QuickTracer`.
            context: given for it.
            above: the span that is current in that context.
        """
        last = self.delivery
        if last is None or last.redirect is not None:
            return False
        try:
            request = requests.current.get()
            if request is not None:
                request.started(span)
            root.ensure()
            ids = scope.effective(context)
            if ids:
                stamp(span, ids)
            if span._kind in _ENTRIES:  # noqa: SLF001 - the property takes longer
                setattr(span, scope.ENTRY, span)
            else:
                entry = getattr(above, scope.ENTRY, None)
                if entry is not None:
                    setattr(span, scope.ENTRY, entry)
        except Exception as error:
            _complain(self, error)
        return True

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tell each processor."""
        for processor in self._span_processors:
            try:
                processor.on_start(span, parent_context)
            except Exception as error:
                _complain(processor, error)

    def _on_ending(self, span: Span) -> None:
        for processor in self._span_processors:
            try:
                processor._on_ending(span)  # noqa: SLF001 - the SDK's hook, passed on
            except Exception as error:
                _complain(processor, error)

    def on_end(self, span: ReadableSpan) -> None:
        """Tell each processor; those of others see what may leave the process."""
        seen: ReadableSpan | None = None
        for processor in self._span_processors:
            if isinstance(processor, Ours):
                try:
                    processor.on_end(span)
                except Exception as error:
                    _complain(processor, error)
                continue
            if seen is None:
                seen = _guarded(self._gate.shown.span, span)
            if seen is not None:
                _guarded(processor.on_end, seen)


class GuardedLogProcessors(SynchronousMultiLogRecordProcessor):
    """
    The SDK's list of log record processors, none of which can hurt the application.

    Args:
        gate: what may be shown to processors of others.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the SDK has no annotation here
        self._gate = gate

    def add_log_record_processor(self, log_record_processor: LogRecordProcessor) -> None:
        """Add a processor; delivery stays the last one, so that it sees what the others change."""
        super().add_log_record_processor(log_record_processor)
        with self._lock:
            self._log_record_processors = tuple(
                sorted(self._log_record_processors, key=lambda it: isinstance(it, LogDelivery))
            )

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Tell each processor; those of others see what may leave the process."""
        for processor in self._log_record_processors:
            if isinstance(processor, Ours):
                _guarded(processor.on_emit, log_record)
            else:
                _guarded(self._show, processor, log_record)

    def _show(self, processor: LogRecordProcessor, live: ReadWriteLogRecord) -> None:
        """Give a redacted copy, and take over what the processor changes in it."""
        copy = self._gate.shown.copy(live)
        before, body = dict(copy.log_record.attributes or {}), copy.log_record.body
        _guarded(processor.on_emit, copy)
        after: Any = copy.log_record.attributes or {}
        attributes: Any = live.log_record.attributes
        for name in before:
            if name not in after:
                attributes.pop(name, None)
        for name, value in dict(after).items():
            if name not in before or before[name] is not value:
                attributes[name] = value
        if copy.log_record.body is not body:
            live.log_record.body = copy.log_record.body


class SpanIds(SpanProcessor, Ours):
    """Stamps the ids of the scope on every span at its start, and remembers its entry span."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp what is known; what is bound later is stamped by the binding."""
        root.ensure()
        guarded_span.guard(span)
        ids = scope.effective(parent_context)
        if ids:
            stamp(span, ids)
        if span.kind in _ENTRIES:
            entry: object = span
        else:
            entry = getattr(get_current_span(parent_context), scope.ENTRY, None)
        if entry is not None:
            setattr(span, scope.ENTRY, entry)


class LogIds(LogRecordProcessor, Ours):
    """Stamps the ids of the scope on every log record, whoever emitted it."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Add the ids that the record does not have itself."""
        record = log_record.log_record
        ids = scope.effective(record.context)
        if not ids:
            return
        attributes: Any = record.attributes
        for name, value in ids.items():
            if name not in attributes:
                attributes[name] = value

    def shutdown(self) -> None:
        """Nothing to end."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing waits here."""
        return True


class SpanDelivery(SpanProcessor, Ours):
    """Ended, sampled spans -> the courier."""

    def __init__(self, courier: Courier | None, flush: Callable[[float], bool], gate: Gate) -> None:
        self.redirect: SpanProcessor | None = None
        self._gate = gate
        self._courier = courier
        self._flush = flush

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Only a test's capture wants to know."""
        if self.redirect is not None:
            self.redirect.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        self._pass(span, requests.of_ended(span))

    def ended(self, span: ReadableSpan) -> None:
        """Queue a span that is the live one, and not a copy: nothing can change it any more."""
        context: Any = span._context  # noqa: SLF001 - as below
        if context is None or not context[3] & TraceFlags.SAMPLED:
            return
        request = requests.of_live(span)
        if request is None:
            self._deliver(span)
        else:
            self._pass(span, request)

    def _pass(self, span: ReadableSpan, request: requests.Request | None) -> None:
        if request is not None:
            error = span.status.status_code is StatusCode.ERROR
            if request.takes(self._deliver, span, important=error):
                return
        self._deliver(span)

    def _deliver(self, span: ReadableSpan) -> None:
        if self.redirect is not None:
            self.redirect.on_end(self._gate.shown.span(span))
        elif self._courier is not None:
            try:
                # The fields and not the properties: each of those makes a new proxy or copy.
                held: Any = span
                own = plain(held._attributes)  # noqa: SLF001
                size = _OVERHEAD + len(held._name)  # noqa: SLF001
                size += fast_weigh(own, _values.weigh) if type(own) is dict else _values.weigh(own)
                fields = held.__dict__  # where lists that nobody has asked for are not
                for event in fields.get("_events") or ():
                    size += _OVERHEAD + _values.weigh(event.attributes or {})
                for link in fields.get("_links") or ():
                    size += _OVERHEAD + _values.weigh(link.attributes or {})
            except Exception:
                self._courier.lose("conversion_error")
                return
            failed = held._status.status_code is StatusCode.ERROR  # noqa: SLF001
            self._courier.put(span, size, important=failed)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits, within the time."""
        return self._flush(timeout_millis / 1000)


class LogDelivery(LogRecordProcessor, Ours):
    """Log records -> the courier."""

    def __init__(self, courier: Courier | None, flush: Callable[[float], bool], gate: Gate) -> None:
        self.redirect: Callable[[ReadableLogRecord], None] | None = None
        self._gate = gate
        self._courier = courier
        self._flush = flush

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Queue the record, without the context that it was emitted in: contexts can be large."""
        if self.redirect is None and self._courier is None:
            return
        record: Any = object.__new__(type(log_record.log_record))  # a copy, without copy's detours
        record.__dict__.update(log_record.log_record.__dict__, context=_NO_CONTEXT)
        readable = ReadableLogRecord(
            record,
            log_record.resource or Resource.get_empty(),
            log_record.instrumentation_scope,
            log_record.limits,
        )
        request = requests.of_record()
        if request is None or not request.takes(
            self._deliver, readable, important=_matters(readable)
        ):
            self._deliver(readable)

    def _deliver(self, readable: ReadableLogRecord) -> None:
        record = readable.log_record
        if self.redirect is not None:
            seen: Any = self._gate.shown.log(readable)
            self.redirect(seen)
        elif self._courier is not None:
            try:
                size = (
                    _OVERHEAD + _values.weigh(record.body) + _values.weigh(plain(record.attributes))
                )
            except Exception:
                self._courier.lose("conversion_error")
                return
            self._courier.put(readable, size, important=_matters(readable))

    def shutdown(self) -> None:
        """The couriers end together: see `telemetry.shutdown`."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits, within the time."""
        return self._flush(timeout_millis / 1000)


def _matters(readable: ReadableLogRecord) -> bool:
    record = readable.log_record
    number = record.severity_number
    return is_important(0 if number is None else number.value, record.attributes or {})


class FirstMeasurement(ExemplarFilter):
    """
    The exemplar filter of the environment, which also notices the first measurement in a process.

    It is the one public hook that runs before a measurement is summed up, and so the place to add
    the reader of this process: before it, a fork would copy the sums.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        name = os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower()
        kinds = {"always_on": AlwaysOnExemplarFilter, "always_off": AlwaysOffExemplarFilter}
        self._inner: ExemplarFilter = kinds.get(name, TraceBasedExemplarFilter)()
        self._begin = begin
        self._pid = 0
        self.by_trace = type(self._inner) is TraceBasedExemplarFilter
        """Whether an exemplar is what a sampled span has measured: the default."""

    def should_sample(
        self, value: float, time_unix_nano: int, attributes: Attributes, context: Context
    ) -> bool:
        """What the inner filter says."""
        return self.begun().should_sample(value, time_unix_nano, attributes, context)

    def begun(self) -> ExemplarFilter:
        """The inner filter, for a measurement that is about to be taken."""
        if self._pid != os.getpid():
            _guarded(self._begin)
            self._pid = os.getpid()
        return self._inner


class Reader(MetricReader):
    """Collects when it is asked to; no thread, no exporter."""

    def __init__(self, **preferences: Any) -> None:
        super().__init__(**preferences)
        self._data: MetricsData | None = None

    def take(self, timeout_s: float) -> MetricsData | None:
        """The state of all instruments."""
        self._data = None
        self.collect(timeout_millis=timeout_s * 1000)
        return self._data

    def _receive_metrics(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,  # noqa: ARG002 - the SDK's signature
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        self._data = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to end."""


class Ids(IdGenerator):
    """The id generator of the provider, which a test's capture can exchange."""

    def __init__(self, source: IdGenerator) -> None:
        self.source = source

    @property
    def source(self) -> IdGenerator:
        """The generator that is asked."""
        return self._source

    @source.setter
    def source(self, source: IdGenerator) -> None:
        self._source = source
        # What `QuickTracer` calls: a span needs an id, and no call more than that.
        self.span_id = source.generate_span_id
        self.trace_id = source.generate_trace_id
        self.random = source.is_trace_id_random()

    def generate_span_id(self) -> int:
        """A span id."""
        return self._source.generate_span_id()

    def generate_trace_id(self) -> int:
        """A trace id."""
        return self._source.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """As the source says."""
        return self._source.is_trace_id_random()
