"""
Every private name of the OpenTelemetry packages that we lean on, in one place.

The versions are pinned exactly; when the pin moves, this is the file to check.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from opentelemetry.baggage import _BAGGAGE_KEY as BAGGAGE_KEY
from opentelemetry.context import (
    _RUNTIME_CONTEXT,
    Context,
    attach,
    detach,
    get_current,
    get_value,
    set_value,
)
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS_KEY
from opentelemetry.trace.propagation import _SPAN_KEY as SPAN_KEY

from telemetry import _native

__all__ = [
    "BAGGAGE_KEY",
    "SPAN_KEY",
    "SUPPRESS_KEY",
    "attach_context",
    "attribute",
    "current_context",
    "detach_context",
    "forget_readers",
    "has_exporters",
    "has_observables",
    "pass_metrics",
    "plain",
    "stamp",
    "suppress",
    "suppressed",
]


_stamp: Callable[[Any, dict[str, Any]], bool] | None = getattr(_native.core, "stamp", None)
_variable: Any = getattr(_RUNTIME_CONTEXT, "_current_context", None)
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


def has_observables(meter_provider: Any) -> bool:
    """Whether somebody registered a callback: then metrics exist without any measurement."""
    return bool(meter_provider._measurement_consumer._async_instruments)  # noqa: SLF001 - see above


def has_exporters(provider: Any) -> bool:
    """Whether a provider that somebody else has made has processors or readers already."""
    for name in ("_active_span_processor", "_multi_log_record_processor"):
        processors = getattr(provider, name, None)
        if processors is not None:
            found = getattr(processors, "_span_processors", ())
            return bool(found or getattr(processors, "_log_record_processors", ()))
    return bool(getattr(provider, "_all_metric_readers", ()))


def pass_metrics(meter_provider: Any, through: Callable[[Any], Any]) -> None:
    """Let what any reader of this provider collects go through a function first."""
    consumer = meter_provider._measurement_consumer  # noqa: SLF001 - see above
    collect = consumer.collect

    def collected(*args: Any, **kwargs: Any) -> Any:
        return through(collect(*args, **kwargs))

    consumer.collect = collected


def forget_readers(meter_provider: Any) -> None:
    """
    Drop all metric readers and what they have summed up, with new locks.

    A forked child inherits sums, which would count twice, and locks that a thread of the parent
    may hold for ever (opentelemetry-python#3307, #3885).
    """
    consumer = meter_provider._measurement_consumer  # noqa: SLF001 - see above
    consumer._lock = threading.Lock()  # noqa: SLF001 - see above
    consumer._reader_storages = {}  # noqa: SLF001 - see above


def stamp(span: Any, attributes: dict[str, Any]) -> None:
    """
    Set attributes of a span that are clean already: the SDK would look at each of them once more.

    What is no running span of the SDK, or has limits that these attributes could exceed, is asked
    in the ordinary way.
    """
    if _stamp is not None and _stamp(span, attributes):
        return
    held: Any = getattr(span, "_attributes", None)
    own = getattr(held, "_dict", None)
    if type(own) is dict and held.max_value_len is None and not held.dropped:
        with span._lock:  # noqa: SLF001 - see above
            room = held.maxlen is None or len(own) + len(attributes) <= held.maxlen
            if room and span._end_time is None and not held._immutable:  # noqa: SLF001
                own.update(attributes)
                return
    span.set_attributes(attributes)


def plain(attributes: Any) -> Any:
    """The dict inside the SDK's attributes, which takes a lock for each pair otherwise."""
    return getattr(attributes, "_dict", attributes) or {}


def attribute(span: Any, name: str) -> Any:
    """An attribute of a span of anybody's; None when it has none, or there is no span."""
    # The field and not the property, which makes a proxy for each look.
    held = getattr(span, "_attributes", None) or getattr(span, "attributes", None)
    return plain(held).get(name)
