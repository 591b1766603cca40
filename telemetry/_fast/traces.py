"""
The SDK's tracers, with a shorter way to a span that is like all others.

`start_as_current_span`: upstream builds it from two generators, one inside the other, each with a
decorator's machinery around it; that is a quarter of what a span costs. Here it is one object with
`__enter__` and `__exit__`, which does the same, also as a decorator; an exception whose `__str__`
fails leaves the block as it is, where upstream's would put another in its place.

`start_span`: under the default sampler, and below a parent that is sampled, the answer is known; and
attributes that are plain need no cleaning. Then the span gets the fields that the SDK would give it
(tests/telemetry/fast/test_traces.py compares all of them; the lists of events and links are made when
somebody asks for them). Every other case is the SDK's.
"""

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context, detach
from opentelemetry.sdk._logs._internal._logger_metrics import NoOpLoggerMetrics
from opentelemetry.sdk.trace import SpanLimits, Tracer, TracerProvider
from opentelemetry.sdk.trace._tracer_metrics import NoOpTracerMetrics, noop
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.trace.span import DEFAULT_TRACE_STATE
from opentelemetry.util.types import Attributes

from telemetry import _values
from telemetry._context import request, scope
from telemetry._logs import record as records
from telemetry._logs import root
from telemetry._native import core
from telemetry._native import fast_plain as _plain
from telemetry._otel_context import attach_context, current_context, detach_context, stamp
from telemetry._sdk import processors as _processors
from telemetry._sdk.processors import GuardedSpanProcessors, Ids
from telemetry._traces import guarded_span
from telemetry._traces.guarded_span import GuardedSpan
from telemetry.attributes import AUDIT_STREAM

TRACERS: Final = 2000
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_PLAIN: Final = frozenset((str, int, float, bool, bytes, type(None)))
_UNSET: Final = Status(StatusCode.UNSET)
IN_PYTHON: Final = {
    name: vars(GuardedSpan)[name] for name in ("end", "set_attribute", "set_attributes")
}
"""Methods of spans that the native core does, as they are in Python."""
NATIVE: Final = core if hasattr(core, "Start") else None


class Tracers(TracerProvider):
    """The SDK's provider; its tracers are `QuickTracer`s, found by their name alone where that is all."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Any:
        """The tracer of a scope; the same one each time."""
        if instrumenting_library_version is None and schema_url is None and attributes is None:
            known = self.__dict__.setdefault("_otelier_tracers", {})
            found = known.get(instrumenting_module_name)
            if found is None:
                found = _quick(super().get_tracer(instrumenting_module_name))
                if len(known) >= TRACERS:
                    known.clear()
                known[instrumenting_module_name] = found
            return found
        return _quick(
            super().get_tracer(
                instrumenting_module_name, instrumenting_library_version, schema_url, attributes
            )
        )


def _quick(tracer: Any) -> Any:
    if type(tracer) is Tracer:
        tracer.__class__ = QuickTracer
        if NATIVE is not None:
            vars(tracer)["start_span"] = NATIVE.Start(tracer, tracer.start_span).span
    return tracer


class QuickTracer(Tracer):
    """A tracer of the SDK."""

    def start_span(  # noqa: PLR0917 - the SDK's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Start a span."""
        processors, ids = self.span_processor, self.id_generator
        if (
            self.sampler is DEFAULT_ON
            and not links
            and self._tracer_config.is_enabled
            and type(processors) is GuardedSpanProcessors
        ):
            above: Any = (current_context() if context is None else context).get(_SPAN_KEY)
            if type(above) is not GuardedSpan:
                above = get_current_span(context)
            parent = above.get_span_context()
            held = _held(attributes, self._span_limits)
            if held is not None and type(parent) is SpanContext:
                if not parent.is_valid:
                    return self._started(
                        (name, kind, record_exception, set_status_on_exception),
                        None,
                        ids.trace_id() if type(ids) is Ids else ids.generate_trace_id(),
                        ids.random if type(ids) is Ids else ids.is_trace_id_random(),
                        held,
                        (processors, start_time, context, above),
                    )
                flags = parent.trace_flags
                if flags & TraceFlags.SAMPLED:
                    return self._started(
                        (name, kind, record_exception, set_status_on_exception),
                        parent,
                        parent.trace_id,
                        bool(flags & TraceFlags.RANDOM_TRACE_ID),
                        held,
                        (processors, start_time, context, above),
                    )
        return super().start_span(
            name,
            context,
            kind,
            attributes,
            links,
            start_time,
            record_exception,
            set_status_on_exception,
        )

    def _started(  # noqa: PLR0917 - keywords would cost time in each call
        self,
        said: tuple[str, SpanKind, bool, bool],
        parent: SpanContext | None,
        trace_id: int,
        random_trace_id: bool,
        attributes: BoundedAttributes,
        begin: tuple[GuardedSpanProcessors, int | None, Context | None, Any],
    ) -> Span:
        processors, start_time, context, above = begin
        limits, ids = self._span_limits, self.id_generator
        wall = time.time_ns()
        span: Any = object.__new__(GuardedSpan)
        span.__dict__ = {
            "_name": said[0],
            # As its constructor would; what our generator makes is valid.
            "_context": (tuple.__new__ if type(ids) is Ids else _checked)(
                SpanContext,
                (
                    trace_id,
                    ids.span_id() if type(ids) is Ids else ids.generate_span_id(),
                    False,
                    _RANDOM if random_trace_id else _SAMPLED,
                    DEFAULT_TRACE_STATE if parent is None else parent[4],
                    True,
                ),
            ),
            "_kind": said[1],
            "_instrumentation_info": self.instrumentation_info,
            "_instrumentation_scope": self._instrumentation_scope,
            "_parent": parent,
            "_start_time": wall if start_time is None else start_time,
            "_end_time": None,
            "_attributes": attributes,
            "_resource": self.resource,
            "_status": _UNSET,
            "_sampler": self.sampler,
            "_trace_config": None,
            "_record_exception": said[2],
            "_set_status_on_exception": said[3],
            "_span_processor": processors,
            "_limits": limits,
            "_record_end_metrics": self._tracer_metrics.start_span(
                parent, Decision.RECORD_AND_SAMPLE
            ),
            "_otelier_clocks": (wall, time.monotonic_ns()),
        }
        if not processors.begun(span, context, above):
            processors.on_start(span, context)
        return span  # type: ignore[no-any-return]  # made without its constructor

    def start_as_current_span(  # type: ignore[override]  # noqa: PLR0917 - the SDK's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> "Current":
        """A span that is current inside a `with` block, or in each call of a decorated function."""
        return Current(
            self,
            (name, context, kind, attributes, links, start_time),
            record_exception,
            set_status_on_exception,
            end_on_exit,
        )


def _checked(_: type[SpanContext], parts: tuple[Any, ...]) -> SpanContext:
    """A span context by its constructor, which sees whether foreign ids are valid."""
    return SpanContext(*parts[:5])


def _held(attributes: Any, limits: SpanLimits) -> BoundedAttributes | None:
    """Attributes as a span holds them, if there is nothing in them to clean or to drop."""
    most = limits.max_span_attributes
    if limits.max_span_attribute_length is not None or most is None:
        return None
    own: dict[str, Any] = {}
    if attributes:
        if type(attributes) is not dict or len(attributes) > most:
            return None
        if not _plain(attributes):
            for name, value in attributes.items():
                if type(name) is not str or not name or type(value) not in _PLAIN:
                    return None
        own = attributes.copy()
    held: Any = object.__new__(BoundedAttributes)
    held.__dict__ = {
        "_dict": own,
        "maxlen": most,
        "dropped": 0,
        "max_value_len": None,
        "_lock": threading.Lock(),
        "_immutable": False,
    }
    return held  # type: ignore[no-any-return]  # made without its constructor


class Current:
    """
    What `start_as_current_span` gives.

    Args:
        tracer: starts the span.
        begun: the first arguments of `start_span`.
        record: whether an exception that leaves the block is recorded.
        status: whether it sets the status.
        end: whether the span ends with the block.
    """

    __slots__ = ("_begun", "_end", "_record", "_span", "_status", "_token", "_tracer")

    def __init__(
        self, tracer: QuickTracer, begun: tuple[Any, ...], record: bool, status: bool, end: bool
    ) -> None:
        self._tracer = tracer
        self._begun = begun
        self._record = record
        self._status = status
        self._end = end

    def __enter__(self) -> Any:
        start: Any = self._tracer.start_span
        span = self._span = start(*self._begun, self._record, self._status)
        entries: dict[str, Any] = dict(current_context())
        entries[_SPAN_KEY] = span
        self._token = attach_context(Context(entries))
        return span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        span = self._span
        try:
            detach_context(self._token)
        except (ValueError, RuntimeError):
            detach(self._token)  # left in another context than entered: upstream says so
        try:
            if isinstance(error, Exception) and span.is_recording():
                if self._record:
                    span.record_exception(error)
                if self._status:
                    # Never `str(error)` as it is: what that raises would replace the error itself.
                    described = f"{type(error).__name__}: {_values.text(error)}"
                    span.set_status(Status(StatusCode.ERROR, described))
        finally:
            if self._end:
                span.end()

    def __call__(self, function: Callable[..., Any]) -> Any:
        def again() -> Current:
            return Current(self._tracer, self._begun, self._record, self._status, self._end)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with again():
                    return await function(*args, **kwargs)

            return call_async

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with again():
                return function(*args, **kwargs)

        return call


def _compile() -> None:
    """Let the native core start and end spans (`_core_tracers.h`), which asks for what is rare here."""
    if NATIVE is None:
        return
    NATIVE.know(
        (
            DEFAULT_ON,
            GuardedSpanProcessors,
            GuardedSpan,
            NonRecordingSpan,
            BoundedAttributes,
            SpanContext,
            Ids,
            NoOpTracerMetrics,
            NoOpLoggerMetrics,
            noop,
            _UNSET,
            SpanKind.INTERNAL,
            SpanKind.SERVER,
            SpanKind.CONSUMER,
            _SAMPLED,
            _RANDOM,
            DEFAULT_TRACE_STATE,
            _SPAN_KEY,
            scope.ENTRY,
            request.MARK,
            current_context,
            request.current.get,
            root.ours(),
            logging.root,
            root.ensure,
            threading.Lock,
            stamp,
            _processors.failed,
            guarded_span.lost,
            _values.weigh,
            lambda courier, item, size, matters: courier.put(item, size, important=matters),
            0,
            AUDIT_STREAM,
            records.SEVERITY_TEXT,
        )
    )
    for name, method in zip(IN_PYTHON, NATIVE.methods_of(*IN_PYTHON.values()), strict=True):
        setattr(GuardedSpan, name, method)


_compile()
