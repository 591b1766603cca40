"""
A span that cannot hurt: what a block of ours gets, around the span of the SDK.

The SDK's methods call `str()` on odd values and let what it raises through, and turn numpy scores
into text; a wall clock that is set back gives a negative duration. Here values are converted as log
fields are, numbers stay numbers, a failure costs the one call, and the end is the wall time of the
start plus what a monotonic clock has counted since.

It is a `Span` of the API that hands everything on; what an SDK span has besides (`attributes`,
`name`) is found through it. Spans of the fast path guard themselves and are left as they are, and so
are spans of another package's provider: what other libraries set on their own spans is their affair.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.trace import Span, SpanContext

from telemetry import _diagnostics, _values

GUARDS_ITSELF: Final = "_otelier_guarded"
"""What a span has that needs no guard around it."""


def guard(span: Span) -> Span:
    """The span, with methods that never raise."""
    return span if hasattr(span, GUARDS_ITSELF) else GuardedSpan(span)


class GuardedSpan(Span):
    """
    A span whose methods never raise.

    Args:
        span: the span that everything is handed to, started just now.
    """

    __slots__ = ("_clocks", "_span")

    _otelier_guarded = True

    def __init__(self, span: Span) -> None:
        self._span = span
        self._clocks = (time.time_ns(), time.monotonic_ns())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)

    def __repr__(self) -> str:
        return repr(self._span)

    def get_span_context(self) -> SpanContext:
        """Trace id and span id."""
        return self._span.get_span_context()

    def is_recording(self) -> bool:
        """Whether the span takes attributes and events."""
        return self._span.is_recording()

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at a given time."""
        if end_time is None:
            wall, monotonic = self._clocks
            end_time = wall + time.monotonic_ns() - monotonic
        call(self._span.end, lambda: (end_time,))

    def set_attribute(self, key: Any, value: Any) -> None:
        """Set an attribute to any value."""
        call(self._span.set_attribute, lambda: (name_of(key), _values.clean(value)))

    def set_attributes(self, attributes: Any) -> None:
        """Set attributes to any values, as many as a record may have."""
        call(self._span.set_attributes, lambda: (_values.fields(attributes),))

    def add_event(self, name: Any, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event with any attributes."""
        call(self._span.add_event, lambda: (name_of(name), fields_of(attributes), timestamp))

    def add_link(self, context: Any, attributes: Any = None) -> None:
        """Add a link with any attributes."""
        call(self._span.add_link, lambda: (context, fields_of(attributes)))

    def update_name(self, name: Any) -> None:
        """Change the name."""
        call(self._span.update_name, lambda: (name_of(name),))

    def set_status(self, status: Any, description: Any = None) -> None:
        """Set the status."""
        call(self._span.set_status, lambda: (status, description_of(description)))

    def record_exception(
        self,
        exception: Any,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception as an event of the span."""
        call(
            self._span.record_exception,
            lambda: (exception, fields_of(attributes), timestamp, escaped),
        )


def lost(error: Exception) -> None:
    """Say that a span which has ended goes nowhere."""
    _diagnostics.say("span end", f"a span was lost: {_values.text(error)}", level="error")


def call(method: Callable[..., None], arguments: Callable[[], tuple[Any, ...]]) -> None:
    """Call a method of a span with arguments that are made now; what either raises is said."""
    try:
        method(*arguments())
    except Exception as error:
        _diagnostics.say("span call", f"a call on a span failed: {_values.text(error)}")


def name_of(value: Any) -> str:
    """Any value as the name of a span, an event or an attribute."""
    return value if type(value) is str else _values.text(value, _values.ID_TEXT)


def fields_of(given: Any) -> dict[str, Any] | None:
    """Any value as attributes; None if it is no mapping."""
    return _values.fields(given) if isinstance(given, Mapping) else None


def description_of(given: Any) -> str | None:
    """Any value as the description of a status."""
    return None if given is None else _values.text(given)
