"""
Spans on the SDK path: what `telemetry` does at the start and the end of each.

One `SpanProcessor`, given to the SDK's `TracerProvider` as its active one (or added to a provider
that was made before ours). At the start it puts the ids of the scope on the span; at the end
it queues the span for delivery. Whatever goes wrong in here is said once and costs that step only:
an exception would come out of `start_span()`, and at the end it would replace the application's own
(opentelemetry-python#5624, #5626).

Processors of others are called by this one, guarded in the same way, and get the span as it may
leave the process: redacted once, and the same object is what we deliver. Without them redaction is
left to the thread that sends.

`capture()` of the test kit sets `redirect`: then spans go there instead of to the queue.
"""

from collections.abc import Callable
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
)
from opentelemetry.trace import SpanKind, StatusCode

from telemetry import _diagnostics, _otel_context, _values
from telemetry._attribute_loops import estimated_bytes
from telemetry._context import request as requests
from telemetry._context import scope
from telemetry._export.drop_reasons import CONVERSION_ERROR
from telemetry._export.queue import ExportQueue
from telemetry._export.record_redactor import RecordRedactor, Redacted
from telemetry._otel_context import SPAN_KEY, current_context

ENTRIES: Final = (SpanKind.SERVER, SpanKind.CONSUMER)
OVERHEAD: Final = 200
"""About how many bytes a span, an event or a link has besides its attributes."""
LIVE: Final = 4096
"""Of so many running server spans the live object is remembered; then the oldest is forgotten."""


def failed(error: Exception, name: str = "SpanPipeline") -> None:
    """Say what a processor raised."""
    _diagnostics.say(
        f"processor {name}", f"{name} raised {type(error).__name__}: {_values.text(error)}"
    )


class SpanPipeline(SynchronousMultiSpanProcessor):
    """
    The span processor of `telemetry`, with the processors of others inside.

    Args:
        queue: takes ended spans; None where spans go nowhere.
        redactor: what may leave the process.
        flush: sends what waits within so many seconds.
        ensure_handlers: puts our logging handlers back where they were removed.
    """

    def __init__(
        self,
        queue: ExportQueue | None,
        redactor: RecordRedactor,
        *,
        flush: Callable[[float], bool],
        ensure_handlers: Callable[[], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the SDK has no annotation here
        self.others: tuple[SpanProcessor, ...] = ()
        self._starting: tuple[Any, ...] = ()
        self._ending: tuple[Any, ...] = ()
        self.redirect: SpanProcessor | None = None
        self.redactor = redactor
        self.queue = queue
        self._flush = flush
        self.ensure_handlers = ensure_handlers
        self._live: dict[int, Span] = {}

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor of another package."""
        super().add_span_processor(span_processor)
        self.others = (*self.others, span_processor)
        self._starting = _with_own(self.others, "on_start")
        self._ending = _with_own(self.others, "_on_ending")

    # --- the start ---

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Put the ids of the scope on the span; what is bound later is put there by the binding."""
        try:
            self.begin(span, parent_context)
        except Exception as error:
            failed(error)
        for processor in self._starting:
            try:
                processor.on_start(span, parent_context)
            except Exception as error:
                failed(error, type(processor).__name__)
        if self.redirect is not None:
            self.redirect.on_start(span, parent_context)

    def begin(self, span: Span, parent_context: Context | None) -> None:
        """Our own part of a start."""
        request = requests.current.get()
        if request is not None:
            request.started(span)
        self.ensure_handlers()
        ids = scope.effective(parent_context)
        if ids:
            span.set_attributes(ids)
        kind = span.kind
        if kind in ENTRIES:
            setattr(span, scope.ENTRY, span)
        else:
            context = current_context() if parent_context is None else parent_context
            entry = getattr(context.get(SPAN_KEY), scope.ENTRY, None)
            if entry is not None:
                setattr(span, scope.ENTRY, entry)
        if kind is SpanKind.SERVER or (request is not None and requests.of_live(span) is not None):
            # `on_end` gets a copy without our marks, and a request may mark its server span later.
            if len(self._live) >= LIVE:
                self._live.pop(next(iter(self._live)), None)
            self._live[span.get_span_context().span_id] = span

    def _on_ending(self, span: Span) -> None:
        """Pass on the hook that newer SDKs have before `on_end`."""
        for processor in self._ending:
            try:
                processor._on_ending(span)  # noqa: SLF001 - the SDK's hook, passed on
            except Exception as error:
                failed(error, type(processor).__name__)

    # --- the end ---

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, if it is sampled."""
        try:
            redacted = self._shown(span) if self.others else None
            context = span.context
            if context is None or not context.trace_flags.sampled:
                return
            live = self._live.pop(context.span_id, None) if self._live else None
            request = None if live is None else requests.of_live(live)
            item: Any = span if redacted is None else Redacted(redacted)
            important = span.status.status_code is StatusCode.ERROR
            if request is None:
                self._put(item, important=important)
            else:
                self.deliver(item, request, important=important)
        except Exception as error:
            if self.queue is not None:
                self.queue.lose(CONVERSION_ERROR)
            _diagnostics.say("span end", f"a span was lost: {_values.text(error)}", level="error")

    def deliver(self, item: Any, request: requests.Request | None, *, important: bool) -> None:
        """
        Queue a span, unless its request holds it back.

        Args:
            item: the ended span; `Redacted` if it may leave as it is.
            request: that it belongs to, if the records of that do not just pass.
            important: whether it gets the last of the room.
        """
        if request is not None and request.takes(
            lambda held: self._put(held, important=important), item, important=important
        ):
            return
        self._put(item, important=important)

    def _put(self, item: Any, *, important: bool) -> None:
        span = item.record if type(item) is Redacted else item
        if self.redirect is not None:
            self.redirect.on_end(span if span is not item else self.redactor.shown.span(span))
        elif self.queue is not None:
            try:
                size = size_of(span)
            except Exception:
                self.queue.lose(CONVERSION_ERROR)
                return
            self.queue.put(item, size, important=important)

    def _shown(self, span: ReadableSpan) -> ReadableSpan | None:
        """Show the span to the processors of others, as it may leave the process."""
        seen = self.redactor.span_now(span)
        for processor in self.others:
            try:
                processor.on_end(seen)
            except Exception as error:
                failed(error, type(processor).__name__)
        return seen

    def shutdown(self) -> None:
        """End the processors of others; our queues end together: see `telemetry.shutdown`."""
        for processor in self.others:
            try:
                processor.shutdown()
            except Exception as error:
                failed(error, type(processor).__name__)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits, within the time; processors of others first."""
        done = all([_flushed(processor, timeout_millis) for processor in self.others])  # noqa: C419 - none is skipped
        return self._flush(timeout_millis / 1000) and done


def _with_own(processors: tuple[SpanProcessor, ...], name: str) -> tuple[Any, ...]:
    """The processors that do something in a hook; the SDK's own methods of that name do nothing."""
    empty = getattr(SpanProcessor, name, None)
    return tuple(
        processor
        for processor in processors
        if getattr(type(processor), name, empty) is not empty or name in vars(processor)
    )


def size_of(span: ReadableSpan) -> int:
    """About how many bytes a span is."""
    size = OVERHEAD + len(span.name)
    size += estimated_bytes(_otel_context.attributes_of(span), _values.weigh)
    for detail in _otel_context.details_of(span):
        size += OVERHEAD + _values.weigh(detail.attributes or {})
    return size


def _flushed(processor: Any, timeout_millis: int) -> bool:
    try:
        return processor.force_flush(timeout_millis) is not False
    except Exception as error:
        failed(error, type(processor).__name__)
        return False
