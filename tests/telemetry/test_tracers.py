"""The short way to a span: it is the SDK's span in every field, and used where nothing can differ."""

import asyncio
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from telemetry import Redaction
from telemetry._processors import GuardedSpanProcessors
from telemetry._redaction_records import Gate
from telemetry._tracers import QuickTracer, Tracers

STATE = TraceState([("vendor", "x")])


def provider(kind=Tracers, **options):
    processors = GuardedSpanProcessors(Gate(Redaction()))
    return kind(shutdown_on_exit=False, active_span_processor=processors, **options)


def remote(*, sampled=True, random=False):
    flags = TraceFlags((1 if sampled else 0) | (2 if random else 0))
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext(7, 8, is_remote=True, trace_flags=flags, trace_state=STATE))
    )


def facts(span):
    """All fields of a span, those that differ by their nature compared by kind only."""
    if not span.is_recording():
        return span.get_span_context().trace_flags
    fields = dict(vars(span))
    context = fields.pop("_context")
    fields.pop("_otelier_clocks", None)
    for name in ("_start_time", "_span_processor", "_resource", "_record_end_metrics"):
        fields[name] = type(fields[name])
    fields["_lock"] = type(fields["_lock"])
    held = vars(fields.pop("_attributes"))
    fields["attributes"] = {**held, "_lock": type(held["_lock"])}
    for name in ("_events", "_links"):
        fields.pop(name, None)
        kept = getattr(span, name)  # made when it is asked for
        fields[name] = (list(kept), kept.dropped, kept._dq.maxlen)
    limits = fields.pop("_limits")
    fields["limits"] = vars(limits)
    same_trace = context.trace_id if fields["_parent"] is not None else "new"
    described = (
        same_trace,
        context.is_remote,
        context.trace_flags,
        context.trace_state.to_header(),
    )
    status = fields.pop("_status")
    return {**fields, "context": described, "status": (status.status_code, status.description)}


CASES = {
    "nothing": {},
    "attributes": {"attributes": {"a": 1, "b": "x", "c": 2.5, "d": True, "e": b"y", "f": None}},
    "a list": {"attributes": {"list": ["a", "b"]}},
    "a map": {"attributes": {"map": {"a": 1}}},
    "an odd value": {"attributes": {"odd": object}},
    "an empty name": {"attributes": {"": 1, "b": 2}},
    "too many": {"attributes": {f"k{number}": number for number in range(200)}},
    "server": {"kind": SpanKind.SERVER},
    "link": {"links": [Link(SpanContext(1, 2, is_remote=True))]},
    "time": {"start_time": 5},
    "no exceptions": {"record_exception": False, "set_status_on_exception": False},
    "parent": {"context": remote()},
    "parent with a random id": {"context": remote(random=True)},
    "parent that is not sampled": {"context": remote(sampled=False)},
}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_a_span_is_the_sdks_span(case, caplog):
    """Each field has what the SDK's own tracer would give it."""
    ours = provider().get_tracer("t", "1.0").start_span("work", **CASES[case])
    stock = provider(TracerProvider).get_tracer("t", "1.0").start_span("work", **CASES[case])
    assert facts(ours) == facts(stock)


@pytest.mark.parametrize(
    "sampler", [DEFAULT_ON, ALWAYS_OFF, TraceIdRatioBased(0.0)], ids=["default", "off", "ratio"]
)
def test_samplers_decide(sampler):
    """Any sampler that somebody has set is asked."""
    span = provider(sampler=sampler).get_tracer("t").start_span("work")
    assert span.is_recording() is (sampler is DEFAULT_ON)


def test_tracers_are_found_again():
    """The same scope has the same tracer, which is the SDK's with another class."""
    tracers = provider()
    found = tracers.get_tracer("t")
    assert (found, type(found)) == (tracers.get_tracer("t"), QuickTracer)
    assert isinstance(found, Tracer)
    assert tracers.get_tracer("t", "1.0") is tracers.get_tracer("t", "1.0") is not found


def test_the_block_has_the_span_and_nothing_remains():
    """Inside the span is current; behind the block what was current before is again."""
    tracer = provider().get_tracer("t")
    with tracer.start_as_current_span("outer") as outer:
        with tracer.start_as_current_span("inner") as inner:
            assert trace.get_current_span() is inner
            assert inner.parent == outer.get_span_context()
        assert trace.get_current_span() is outer
        assert not inner.is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(
    ("options", "status", "events"),
    [
        ({}, StatusCode.ERROR, ["exception"]),
        ({"record_exception": False}, StatusCode.ERROR, []),
        ({"set_status_on_exception": False}, StatusCode.UNSET, ["exception"]),
        ({"record_exception": False, "set_status_on_exception": False}, StatusCode.UNSET, []),
    ],
)
def test_exceptions_of_the_block(options, status, events):
    """They leave the block as they are, and are noted as upstream notes them."""
    error = ValueError("no")
    with (
        pytest.raises(ValueError, match="no") as raised,
        provider().get_tracer("t").start_as_current_span("work", **options) as span,
    ):
        raise error
    assert raised.value is error
    assert (span.status.status_code, [event.name for event in span.events]) == (status, events)
    assert span.end_time is not None


class Mute(Exception):
    """It cannot be told."""

    def __str__(self):
        raise LookupError("no words")


@pytest.mark.parametrize("how", ["block", "function", "coroutine"])
def test_an_exception_that_cannot_be_told_stays_itself(how):
    """What its `__str__` raises never replaces it: telemetry does not change what the program sees."""
    scope = provider().get_tracer("t").start_as_current_span("work")
    error = Mute()

    def fail():
        raise error

    async def fail_later():
        raise error

    def in_a_block():
        with scope:
            fail()

    ways = {
        "block": in_a_block,
        "function": scope(fail),
        "coroutine": lambda: asyncio.run(scope(fail_later)()),
    }
    with pytest.raises(Mute) as raised:
        ways[how]()
    assert raised.value is error


def test_stopping_is_no_error():
    """KeyboardInterrupt and cancellation end the span without a status, as upstream does."""
    with (
        pytest.raises(KeyboardInterrupt),
        provider().get_tracer("t").start_as_current_span("work") as span,
    ):
        raise KeyboardInterrupt
    assert (span.status.status_code, list(span.events)) == (StatusCode.UNSET, [])


def test_the_span_may_outlive_the_block():
    """`end_on_exit=False` leaves the end to somebody else."""
    with provider().get_tracer("t").start_as_current_span("work", end_on_exit=False) as span:
        pass
    assert span.is_recording()
    span.end()


def test_as_a_decorator():
    """Each call of a function, and of a coroutine function until it is done, is a span."""
    tracer = provider().get_tracer("t")
    seen = []

    @tracer.start_as_current_span("sync")
    def work():
        seen.append(trace.get_current_span().name)

    @tracer.start_as_current_span("async")
    async def work_later():
        await asyncio.sleep(0)
        seen.append(trace.get_current_span().name)

    work()
    work()
    asyncio.run(work_later())
    assert seen == ["sync", "sync", "async"]


def test_ids_differ_between_threads_and_calls():
    """No two spans of many threads have the same id."""
    tracer = provider().get_tracer("t")
    ids = []

    def work():
        ids.extend(tracer.start_span("work").get_span_context().span_id for _ in range(500))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 2000
