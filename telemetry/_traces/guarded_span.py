"""
Spans whose methods cannot hurt: what `span()` gives to a block, and every other recording span.

The SDK's methods call `str()` on odd values and let what it raises through, turn numpy scores into
text, and print a warning for each attribute beyond the limit; a wall clock that is set back gives
them a negative duration. A span is made by the SDK's tracer; as
it starts, its class becomes this one, which differs in nothing else: same fields, same type checks.
Values are converted as log fields are, numbers stay numbers, and a failure costs the one call. The
end is the wall time of the start plus what a monotonic clock has counted since.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.sdk.trace import _Span, logger
from opentelemetry.sdk.util import BoundedList

from telemetry import _diagnostics, _native, _values


def guard(span: object) -> None:
    """Make a span that was just started one of these; spans of other classes are left alone."""
    if type(span) is _Span:
        span.__class__ = GuardedSpan
        span.__dict__["_otelier_clocks"] = (time.time_ns(), time.monotonic_ns())


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


class GuardedSpan(_Span):
    """A span of the SDK, with methods that never raise."""

    _lock: Any = _LockLater()

    _events: Any = _Later("_events", "max_events")
    _links: Any = _Later("_links", "max_links")

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at a given time."""
        clocks = self.__dict__.get("_otelier_clocks")
        if end_time is None and clocks is not None:
            wall, monotonic = clocks
            end_time = wall + time.monotonic_ns() - monotonic
        delivery = getattr(self._span_processor, "delivery", None)
        if delivery is None:
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
            delivery.ended(self)
        except Exception as error:
            lost(error)

    def set_attribute(self, key: Any, value: Any) -> None:
        """Set an attribute to any value."""
        if type(key) is str and key and self._stamped({key: value}):
            return
        _call(super().set_attribute, lambda: (_name(key), _values.clean(value)))

    def set_attributes(self, attributes: Any) -> None:
        """Set attributes to any values, as many as a record may have."""
        if type(attributes) is dict and self._stamped(attributes):
            return
        _call(super().set_attributes, lambda: (_values.fields(attributes),))

    def _stamped(self, attributes: dict[Any, Any]) -> bool:
        """Set attributes that are plain, if this span has room and no limit of their length."""
        held: Any = self._attributes
        own = getattr(held, "_dict", None)
        if type(own) is not dict or held.max_value_len is not None or held.dropped:
            return False
        if _native.fast_plain(attributes) != _native.PLAIN:
            return False
        with self._lock:
            room = held.maxlen is None or len(own) + len(attributes) <= held.maxlen
            if not room or self._end_time is not None or held._immutable:  # noqa: SLF001 - as the SDK
                return False
            own.update(attributes)
            return True

    def add_event(self, name: Any, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event with any attributes."""
        _call(super().add_event, lambda: (_name(name), _fields(attributes), timestamp))

    def add_link(self, context: Any, attributes: Any = None) -> None:
        """Add a link with any attributes."""
        _call(super().add_link, lambda: (context, _fields(attributes)))

    def update_name(self, name: Any) -> None:
        """Change the name."""
        _call(super().update_name, lambda: (_name(name),))

    def set_status(self, status: Any, description: Any = None) -> None:
        """Set the status."""
        _call(
            super().set_status,
            lambda: (status, None if description is None else _values.text(description)),
        )

    def record_exception(
        self,
        exception: Any,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception as an event of the span."""
        _call(
            super().record_exception, lambda: (exception, _fields(attributes), timestamp, escaped)
        )


def lost(error: Exception) -> None:
    """Say that a span which has ended goes nowhere."""
    _diagnostics.say("span end", f"a span was lost: {_values.text(error)}", level="error")


def _call(method: Callable[..., None], arguments: Callable[[], tuple[Any, ...]]) -> None:
    try:
        method(*arguments())
    except Exception as error:
        _diagnostics.say("span call", f"a call on a span failed: {_values.text(error)}")


def _name(value: Any) -> str:
    return value if type(value) is str else _values.text(value, _values.ID_TEXT)


def _fields(given: Any) -> dict[str, Any] | None:
    return _values.fields(given) if isinstance(given, Mapping) else None
