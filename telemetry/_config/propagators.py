"""
Stand-ins for propagators that are not installed, so that `opentelemetry-instrument` starts.

The wrapper imports `opentelemetry.propagate` before any code of ours, and that raises for a name in
OTEL_PROPAGATORS that no package has registered: the program would not start. So the known names are
registered by us too (entry points of group `opentelemetry_propagator`). Where the real package is there, it
does the work, whichever of the two is found first. Where it is not, one line names it, and trace context and
baggage are used, which are the default.
"""

import sys
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from telemetry import _diagnostics
from telemetry._config.standard_variables import PACKAGES
from telemetry._version import NAME

_WRAPPER: Final = "opentelemetry.instrumentation.auto_instrumentation"


def _made(name: str) -> TextMapPropagator:
    for point in entry_points(group="opentelemetry_propagator", name=name):
        if point.dist is None or point.dist.name != NAME:
            real: Any = point.load()()
            return real  # type: ignore[no-any-return]  # as the group promises
    if _WRAPPER in sys.modules:  # the configurator says it with the other wrong settings, once
        return _default()
    _diagnostics.say(
        f"propagator {name}",
        f"OTEL_PROPAGATORS={name}: it is not installed; pip install {PACKAGES[name]}."
        " Until then trace context and baggage are used, the default",
        level="error",
        always=True,
    )
    return _default()


def _default() -> TextMapPropagator:
    return CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


def xray() -> TextMapPropagator:
    """AWS X-Ray."""
    return _made("xray")


def xray_lambda() -> TextMapPropagator:
    """AWS X-Ray within a Lambda."""
    return _made("xray-lambda")


def b3() -> TextMapPropagator:
    """Zipkin's header."""
    return _made("b3")


def b3multi() -> TextMapPropagator:
    """Zipkin's headers."""
    return _made("b3multi")


def jaeger() -> TextMapPropagator:
    """Jaeger's header."""
    return _made("jaeger")


def ottrace() -> TextMapPropagator:
    """OpenTracing's headers."""
    return _made("ottrace")


def gcp_trace_context() -> TextMapPropagator:
    """Google Cloud's header."""
    return _made("gcp_trace_context")
