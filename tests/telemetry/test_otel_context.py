"""What leans on private names of the SDK keeps the SDK's rules."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from telemetry import _otel_context


def started(**limits):
    provider = TracerProvider(span_limits=SpanLimits(**limits), shutdown_on_exit=False)
    return provider.get_tracer("test").start_span("a", attributes={"old": 1, "kept": "x"})


def test_a_stamp_is_an_attribute():
    """Stamping adds and replaces, as set_attributes does."""
    span = started()
    _otel_context.stamp(span, {"old": 2, "steps": {"one_ms": 0.5}})
    span.end()
    assert dict(span.attributes) == {"old": 2, "kept": "x", "steps": {"one_ms": 0.5}}


@pytest.mark.filterwarnings("ignore")
def test_limits_of_the_sdk_hold():
    """Where attributes are limited in number or length, the SDK drops and cuts as ever."""
    few, short = started(max_span_attributes=2), started(max_span_attribute_length=3)
    for span in (few, short):
        _otel_context.stamp(span, {"new": "a long text"})
        span.end()
    assert dict(few.attributes) == {"kept": "x", "new": "a long text"}
    assert few.dropped_attributes == 1
    assert dict(short.attributes) == {"old": 1, "kept": "x", "new": "a l"}


def test_an_ended_span_stays_as_it_is():
    """Nothing is added to what may have been sent."""
    span = started()
    span.end()
    _otel_context.stamp(span, {"late": True})
    assert dict(span.attributes) == {"old": 1, "kept": "x"}


def test_a_span_that_records_nothing():
    """A span of no SDK takes a stamp without complaint."""
    _otel_context.stamp(trace.INVALID_SPAN, {"a": 1})
    assert not trace.INVALID_SPAN.is_recording()
