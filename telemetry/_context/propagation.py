"""
What leaves with an outgoing call: the carried ids of the scope, in the `baggage` header.

`Propagator` stands in the place of the global propagator and asks the one that was there; so every
instrumentation that injects headers sends our ids too. The correlation id has a header of its own,
for services that do not trust baggage or do not know it. Baggage is redacted on its way out, as
everything that leaves the process; if that fails, it stays here.
"""

from typing import Final

from opentelemetry import baggage
from opentelemetry.context import Context, get_current
from opentelemetry.propagators import textmap

from telemetry import _diagnostics
from telemetry._context import scope
from telemetry._redaction import redactor
from telemetry.attributes import CORRELATION_ID

CORRELATION_HEADER: Final = "x-correlation-id"
"""Carries the correlation id to services that do not trust baggage, or do not know it."""


def _leaving(context: Context) -> Context:
    """The context with its baggage as it may leave the process."""
    entries = baggage.get_all(context)
    seen = redactor.local().attributes(entries)
    if seen is entries:
        return context
    context = baggage.clear(context)
    for name, value in seen.items():
        context = baggage.set_baggage(name, str(value), context)
    return context


class Propagator(textmap.TextMapPropagator):
    """The global propagator, with the carried ids of the scope added to the baggage on its way out."""

    def __init__(self, inner: textmap.TextMapPropagator) -> None:
        self.inner = inner

    def extract(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        getter: textmap.Getter[textmap.CarrierT] = textmap.default_getter,
    ) -> Context:
        """What the inner propagator extracts."""
        return self.inner.extract(carrier, context, getter)

    def inject(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        setter: textmap.Setter[textmap.CarrierT] = textmap.default_setter,
    ) -> None:
        """What the inner propagator injects, with the carried ids in the baggage."""
        context = get_current() if context is None else context
        try:
            own, carried = scope.bound(), scope.carried()
            for name in carried:
                if name in own:
                    context = baggage.set_baggage(name, str(own[name]), context)
            if CORRELATION_ID in carried and CORRELATION_ID in own:
                value = str(own[CORRELATION_ID])
                if scope.SAFE.fullmatch(value):
                    setter.set(carrier, CORRELATION_HEADER, value)
            context = _leaving(context)
        except Exception as error:
            _diagnostics.fault("inject", error)
            context = baggage.clear(context)
        self.inner.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        """The headers that the inner propagator sets."""
        return self.inner.fields
