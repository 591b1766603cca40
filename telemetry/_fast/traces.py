"""
The fast path of a span: the SDK's tracers, with a shorter way to a span that is like all others.

`start_as_current_span`: upstream builds it from two generators, one inside the other, each with a
decorator's machinery around it; that is a quarter of what a span costs. Here it is one object with
`__enter__` and `__exit__`, which does the same, also as a decorator; an exception whose `__str__`
fails leaves the block as it is, where upstream's would put another in its place.

`start_span`: under the default sampler, and below a parent that is sampled, the answer is known; and
attributes that are plain need no cleaning. Then the span gets the fields that the SDK would give it
(tests/telemetry/fast/test_traces.py compares all of them; the lists of events and links are made when
they are asked for). Every other case is the SDK's.
"""

import functools
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context, detach
from opentelemetry.sdk.trace import SpanLimits, Tracer
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision
from opentelemetry.trace import (
    Link,
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
from telemetry._attribute_loops import needs_no_cleaning as _plain
from telemetry._context import request, scope
from telemetry._fast.spans import FastSpan, as_fast
from telemetry._otel_context import attach_context, current_context, detach_context
from telemetry._sdk.id_generator import Ids
from telemetry._sdk.span_processor import ENTRIES, SpanPipeline, failed

TRACERS: Final = 2000
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_PLAIN: Final = frozenset((str, int, float, bool, bytes, type(None)))
_UNSET: Final = Status(StatusCode.UNSET)


def install(providers: Any) -> bool:
    """
    Let the tracers of a provider start spans on the fast path.

    Args:
        providers: of the process; no tracer was asked for yet.
    """
    quicken(providers.tracers)
    return True


def quicken(provider: Any) -> None:
    """Have a provider of the SDK give `FastTracer`s, found by their name alone where that is all."""
    slow = provider.get_tracer
    known: dict[str, Any] = {}

    def get_tracer(
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Any:
        if instrumenting_library_version is None and schema_url is None and attributes is None:
            found = known.get(instrumenting_module_name)
            if found is None:
                found = _fast(slow(instrumenting_module_name))
                if len(known) >= TRACERS:
                    known.clear()
                known[instrumenting_module_name] = found
            return found
        return _fast(
            slow(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        )

    provider.get_tracer = get_tracer


def _fast(tracer: Any) -> Any:
    if type(tracer) is Tracer:
        tracer.__class__ = FastTracer
    return tracer


class FastTracer(Tracer):
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
            and type(processors) is SpanPipeline
        ):
            above: Any = (current_context() if context is None else context).get(_SPAN_KEY)
            if type(above) is not FastSpan:
                above = get_current_span(context)
            parent = above.get_span_context()
            held = _held(attributes, self._span_limits)
            if held is not None and type(parent) is SpanContext:
                if not parent.is_valid:
                    return self._started(
                        (name, kind, record_exception, set_status_on_exception),
                        None,
                        ids.generate_trace_id(),
                        ids.is_trace_id_random(),
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
        started: Span = as_fast(
            super().start_span(
                name,
                context,
                kind,
                attributes,
                links,
                start_time,
                record_exception,
                set_status_on_exception,
            )
        )
        return started

    def _started(  # noqa: PLR0917 - keywords would cost time in each call
        self,
        said: tuple[str, SpanKind, bool, bool],
        parent: SpanContext | None,
        trace_id: int,
        random_trace_id: bool,
        attributes: BoundedAttributes,
        begin: tuple[SpanPipeline, int | None, Context | None, Any],
    ) -> Span:
        processors, start_time, context, above = begin
        limits, ids = self._span_limits, self.id_generator
        wall = time.time_ns()
        span: Any = object.__new__(FastSpan)
        span.__dict__ = {
            "_name": said[0],
            # As its constructor would; what our generator makes is valid.
            "_context": (tuple.__new__ if type(ids) is Ids else _checked)(
                SpanContext,
                (
                    trace_id,
                    ids.generate_span_id(),
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
        if processors.others or processors.redirect is not None:
            processors.on_start(span, context)
        else:
            _begin(processors, span, context, above)
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


def _begin(pipeline: SpanPipeline, span: Any, context: Context | None, above: Any) -> None:
    """What `SpanPipeline.begin` does, where the span above is known and the span is live to its end."""
    try:
        running = request.current.get()
        if running is not None:
            running.started(span)
        pipeline.ensure_handlers()
        ids = scope.effective(context)
        if ids:
            span.set_attributes(ids)
        if span._kind in ENTRIES:  # noqa: SLF001 - the property takes longer
            setattr(span, scope.ENTRY, span)
        else:
            entry = getattr(above, scope.ENTRY, None)
            if entry is not None:
                setattr(span, scope.ENTRY, entry)
    except Exception as error:
        failed(error)


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
        self, tracer: FastTracer, begun: tuple[Any, ...], record: bool, status: bool, end: bool
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
