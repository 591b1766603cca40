"""
The current context of OpenTelemetry, suppression, and how records of the SDK are read.

The names with an underscore are looked up where they are and fall back to the public call: a release
that moves them costs a little time and nothing else.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import baggage as _baggage
from opentelemetry import context as _context
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value
from opentelemetry.trace import propagation as _propagation

__all__ = [
    "BAGGAGE_KEY",
    "SPAN_KEY",
    "SUPPRESS_KEY",
    "attach_context",
    "attribute",
    "attributes_of",
    "current_context",
    "detach_context",
    "details_of",
    "stamp",
    "suppress",
    "suppressed",
]


def _key_of(make: Callable[[], Context], fallback: str) -> str:
    """Under which key an API function has put its value: contexts are mappings, keys are not public."""
    return next(iter(make()), fallback)


def _span_key() -> str:
    from opentelemetry.trace import INVALID_SPAN, set_span_in_context  # noqa: PLC0415 - once

    return _key_of(lambda: set_span_in_context(INVALID_SPAN, Context()), "current-span")


BAGGAGE_KEY: Final[str] = getattr(_baggage, "_BAGGAGE_KEY", "") or _key_of(
    lambda: _baggage.set_baggage("a", "b", Context()), "baggage"
)
SPAN_KEY: Final[str] = getattr(_propagation, "_SPAN_KEY", "") or _span_key()
SUPPRESS_KEY: Final[str] = getattr(
    _context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"
)

_variable: Any = getattr(getattr(_context, "_RUNTIME_CONTEXT", None), "_current_context", None)
current_context: Callable[[], Context] = (
    _variable.get if isinstance(_variable, ContextVar) else get_current
)
"""`opentelemetry.context.get_current`, without the two calls around the variable."""
attach_context: Callable[[Context], Any] = (
    _variable.set if isinstance(_variable, ContextVar) else attach
)
"""`opentelemetry.context.attach`, as above."""
detach_context: Callable[[Any], None] = (
    _variable.reset if isinstance(_variable, ContextVar) else detach
)
"""`opentelemetry.context.detach`, as above; raises ValueError in another context, and logs nothing."""


def suppress() -> None:
    """From here on, this thread's work is our own and must not be instrumented."""
    attach(set_value(SUPPRESS_KEY, True))


def suppressed() -> bool:
    """Whether the running code is an exporter's, so that its logs are about us."""
    return bool(get_value(SUPPRESS_KEY))


def stamp(span: Any, attributes: dict[str, Any]) -> None:
    """Set attributes that are clean on a span of anybody's, running or not."""
    if attributes and span.is_recording():
        span.set_attributes(attributes)


def attributes_of(record: Any) -> dict[str, Any]:
    """
    The attributes of a span or log record as a dict: look, and change nothing.

    The SDK keeps a dict behind a lock that it takes for each pair; that dict itself where it is
    found, else a copy made by the public way.
    """
    held = getattr(record, "_attributes", None)
    if held is None:
        held = record.attributes
    own = getattr(held, "_dict", held)
    return own if type(own) is dict else dict(own or {})


def details_of(span: Any) -> list[Any]:
    """The events and links of a span; the public properties copy both lists, which most spans leave empty."""
    found: list[Any] = []
    for field, name in (("_events", "events"), ("_links", "links")):
        held = getattr(span, field, None)
        if held is None or len(held):
            found += getattr(span, name)
    return found


def attribute(span: Any, name: str) -> Any:
    """An attribute of a span of anybody's; None when it has none, or there is no span."""
    if getattr(span, "_attributes", None) is None and getattr(span, "attributes", None) is None:
        return None
    return attributes_of(span).get(name)
