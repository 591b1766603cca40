"""
The spans of the fast path: the SDK's, with methods that never raise and an end without a copy.

Same fields and same type checks as the SDK's; a failure costs the one call. Lists of events and links
and the lock are made when they are asked for: most spans need none of them. Where only our processor
is there, an ended span is queued as it is, because nothing can change it any more.
"""

import threading
import time
from typing import Any, Final

from opentelemetry.sdk.trace import _Span, logger
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import StatusCode

from telemetry import _values
from telemetry._attribute_loops import PLAIN, estimated_bytes, needs_no_cleaning
from telemetry._context import request as requests
from telemetry._export.drop_reasons import CONVERSION_ERROR
from telemetry._sdk.span_processor import OVERHEAD, SpanPipeline
from telemetry._traces.guarded_span import call, description_of, fields_of, lost, name_of

_SAMPLED: Final = 1


class _Later:
    """
    A list of a span that is made when it is first asked for: most spans have neither events nor links.

    Args:
        field: its name among the span's fields.
        limit: the name of its limit.
    """

    def __init__(self, field: str, limit: str) -> None:
        self._field = field
        self._limit = limit

    def __get__(self, span: Any, owner: object = None) -> Any:
        if span is None:
            return self
        # Threads may ask together: of two lists, all of them get the one that was there first.
        return span.__dict__.setdefault(
            self._field,
            BoundedList(getattr(span._limits, self._limit)),  # noqa: SLF001 - the SDK's field
        )


class _LockLater:
    """The lock of a span, made when it is first asked for: the native methods need none."""

    def __get__(self, span: Any, owner: object = None) -> Any:
        return self if span is None else span.__dict__.setdefault("_lock", threading.Lock())


class FastSpan(_Span):
    """A span of the SDK, with methods that never raise."""

    _otelier_guarded = True

    _lock: Any = _LockLater()

    _events: Any = _Later("_events", "max_events")
    _links: Any = _Later("_links", "max_links")

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at a given time."""
        clocks = self.__dict__.get("_otelier_clocks")
        if end_time is None and clocks is not None:
            wall, monotonic = clocks
            end_time = wall + time.monotonic_ns() - monotonic
        pipeline: Any = self._span_processor
        if type(pipeline) is not SpanPipeline or pipeline.others:
            super().end(end_time)
            return
        with self._lock:
            if self._start_time is None or self._end_time is not None:
                logger.warning("Calling end() on an ended span.")
                return
            self._end_time = end_time if end_time is not None else time.time_ns()
            attributes: Any = self._attributes
            attributes._immutable = True  # noqa: SLF001 - as the SDK does at the end
        try:
            if self._record_end_metrics:
                self._record_end_metrics()
            _deliver(pipeline, self)
        except Exception as error:
            lost(error)

    def set_attribute(self, key: Any, value: Any) -> None:
        """Set an attribute to any value."""
        if type(key) is str and key and self._stamped({key: value}):
            return
        call(super().set_attribute, lambda: (name_of(key), _values.clean(value)))

    def set_attributes(self, attributes: Any) -> None:
        """Set attributes to any values, as many as a record may have."""
        if type(attributes) is dict and self._stamped(attributes):
            return
        call(super().set_attributes, lambda: (_values.fields(attributes),))

    def _stamped(self, attributes: dict[Any, Any]) -> bool:
        """Set attributes that are plain, if this span has room and no limit of their length."""
        held: Any = self._attributes
        own = getattr(held, "_dict", None)
        if type(own) is not dict or held.max_value_len is not None or held.dropped:
            return False
        if needs_no_cleaning(attributes) != PLAIN:
            return False
        with self._lock:
            room = held.maxlen is None or len(own) + len(attributes) <= held.maxlen
            if not room or self._end_time is not None or held._immutable:  # noqa: SLF001 - as the SDK
                return False
            own.update(attributes)
            return True

    def add_event(self, name: Any, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event with any attributes."""
        call(super().add_event, lambda: (name_of(name), fields_of(attributes), timestamp))

    def add_link(self, context: Any, attributes: Any = None) -> None:
        """Add a link with any attributes."""
        call(super().add_link, lambda: (context, fields_of(attributes)))

    def update_name(self, name: Any) -> None:
        """Change the name."""
        call(super().update_name, lambda: (name_of(name),))

    def set_status(self, status: Any, description: Any = None) -> None:
        """Set the status."""
        call(
            super().set_status,
            lambda: (status, description_of(description)),
        )

    def record_exception(
        self,
        exception: Any,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception as an event of the span."""
        call(
            super().record_exception, lambda: (exception, fields_of(attributes), timestamp, escaped)
        )


def as_fast(span: Any) -> Any:
    """A span that the SDK has started just now, with the methods of these; others as they are."""
    if type(span) is _Span:
        span.__class__ = FastSpan
        span.__dict__["_otelier_clocks"] = (time.time_ns(), time.monotonic_ns())
    return span


def _deliver(pipeline: SpanPipeline, span: Any) -> None:
    """Queue an ended span that is the live one, and not a copy."""
    if not span._context[3] & _SAMPLED:  # noqa: SLF001 - the properties take longer, here and below
        return
    important = span._status.status_code is StatusCode.ERROR  # noqa: SLF001
    request = requests.of_live(span)
    queue = pipeline.queue
    if request is not None or pipeline.redirect is not None:
        pipeline.deliver(span, request, important=important)
    elif queue is not None:
        try:
            size = OVERHEAD + len(span._name)  # noqa: SLF001
            size += estimated_bytes(span._attributes._dict, _values.weigh)  # noqa: SLF001
            fields = span.__dict__  # where lists that were not asked for are not
            for event in fields.get("_events") or ():
                size += OVERHEAD + _values.weigh(event.attributes or {})
            for link in fields.get("_links") or ():
                size += OVERHEAD + _values.weigh(link.attributes or {})
        except Exception:
            queue.lose(CONVERSION_ERROR)
            return
        queue.put(span, size, important=important)
