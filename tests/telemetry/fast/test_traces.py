"""The fast path of a span: it is the SDK's span in every field, and used where nothing can differ."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import attach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, Tracer, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
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

from telemetry import Redaction, _diagnostics
from telemetry._context import request as requests
from telemetry._context import scope as _context
from telemetry._export.record_redactor import RecordRedactor
from telemetry._fast import traces
from telemetry._fast.spans import FastSpan
from telemetry._fast.traces import FastTracer
from telemetry._logs import root
from telemetry._sdk.id_generator import Ids
from telemetry._sdk.span_processor import SpanPipeline

STATE = TraceState([("vendor", "x")])


class Bin:
    """A queue that keeps what it gets."""

    def __init__(self):
        self.got = []

    def put(self, item, size, *, important=False):
        self.got.append((item, size, important))

    def lose(self, reason):
        self.got.append(reason)


def provider(path="fast", queue=None, **options):
    """A provider of its own, on one of the two paths."""
    options.setdefault("id_generator", Ids(RandomIdGenerator()))
    pipeline = SpanPipeline(
        queue,
        RecordRedactor(Redaction()),
        flush=lambda _: True,
        ensure_handlers=root.ensure,
    )
    made = TracerProvider(shutdown_on_exit=False, active_span_processor=pipeline, **options)
    if path == "fast":
        traces.quicken(made)
    return made


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
    for name in ("_otelier_clocks", "_otelier_entry", "_otelier_request", "_lock"):
        fields.pop(name, None)
    for name in ("_start_time", "_span_processor", "_resource", "_record_end_metrics"):
        fields[name] = type(fields[name])
    fields["_lock"] = type(span._lock)  # made when it is asked for
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
    stock = provider("sdk").get_tracer("t", "1.0").start_span("work", **CASES[case])
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
    assert (found, type(found)) == (tracers.get_tracer("t"), FastTracer)
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


NAMES = st.sampled_from(["a", "b", "c", "d", "", "größe", 7])
VALUES = st.sampled_from(
    [1, 2**70, "x", "é", "y" * 2000, True, None, 1.5, b"z", [1], {"k": "v"}, object]
)
CALLS = st.one_of(
    st.tuples(st.just("set_attribute"), st.tuples(NAMES, VALUES)),
    st.tuples(
        st.just("set_attributes"),
        st.tuples(st.dictionaries(NAMES, VALUES, max_size=3) | st.just([1])),
    ),
    st.tuples(st.just("end"), st.sampled_from([(), (None,), (2**62,)])),
    st.sampled_from(
        [
            ("add_event", ("it",)),
            ("update_name", ("other",)),
            ("set_status", (StatusCode.ERROR, "bad")),
            ("set_status", (StatusCode.OK,)),
        ]
    ),
)
STARTS = st.fixed_dictionaries(
    {},
    optional={
        "attributes": st.dictionaries(NAMES, VALUES, max_size=3) | st.none(),
        "kind": st.sampled_from(SpanKind),
        "context": st.sampled_from([None, remote(), remote(sampled=False), remote(random=True)]),
        "links": st.sampled_from([(), None, [], [Link(SpanContext(1, 2, is_remote=True))]]),
        "start_time": st.sampled_from([None, 5]),
        "record_exception": st.booleans(),
    },
)
SCOPES = st.fixed_dictionaries(
    {
        "bound": st.dictionaries(st.sampled_from(["user_id", "correlation_id", "a"]), st.just("1")),
        "shared": st.none() | st.dictionaries(st.sampled_from(["user.id", "b"]), st.just("2")),
        "arrived": st.none() | st.sampled_from(["c-9", "not an id", "ü"]),
        "gate": st.none() | st.sampled_from([requests.PASS, requests.HELD, requests.SILENT]),
        "above": st.booleans(),
    }
)


PLAIN_NAMES = st.sampled_from(["a", "b", "c", "d", "größe"])
PLAIN_VALUES = st.sampled_from([1, "x", "é", True, 1.5])
PLAIN_CALLS = st.one_of(
    st.tuples(st.just("set_attribute"), st.tuples(PLAIN_NAMES, PLAIN_VALUES)),
    st.tuples(
        st.just("set_attributes"), st.tuples(st.dictionaries(PLAIN_NAMES, PLAIN_VALUES, max_size=3))
    ),
    st.tuples(st.just("end"), st.sampled_from([(), (2**62,)])),
    st.sampled_from(
        [
            ("add_event", ("it",)),
            ("update_name", ("other",)),
            ("set_status", (StatusCode.ERROR, "bad")),
            ("set_status", (StatusCode.OK,)),
        ]
    ),
)
PLAIN_STARTS = st.fixed_dictionaries(
    {},
    optional={
        "attributes": st.dictionaries(PLAIN_NAMES, PLAIN_VALUES, max_size=3) | st.none(),
        "kind": st.sampled_from(SpanKind),
        "context": st.sampled_from([None, remote(), remote(sampled=False), remote(random=True)]),
        "links": st.sampled_from([(), [Link(SpanContext(1, 2, is_remote=True))]]),
        "start_time": st.sampled_from([None, 5]),
        "record_exception": st.booleans(),
    },
)
NOWHERE = {"bound": {}, "shared": None, "arrived": None, "gate": None, "above": False}
FAILED = [("set_status", (StatusCode.ERROR, "bad")), ("end", ())]


@settings(deadline=None, max_examples=100)
@pytest.mark.filterwarnings("ignore")
@given(PLAIN_STARTS, st.lists(PLAIN_CALLS, max_size=6), SCOPES, st.sampled_from([2, 128]))
@example({}, FAILED, NOWHERE, 128)
@example({"attributes": {"a": 1, "b": 2}}, [], {**NOWHERE, "bound": {"user_id": "1"}}, 2)
@example({"kind": SpanKind.SERVER}, [], {**NOWHERE, "gate": requests.PASS}, 128)
def test_both_paths_deliver_the_same_span(start, calls, scope, most):
    """Any start in any scope, any calls with plain values, any limit: the same span, the same size."""
    made = [lived(path, start, calls, scope, most)[:4] for path in ("fast", "sdk")]
    assert made[0] == made[1]


@settings(deadline=None, max_examples=100)
@pytest.mark.filterwarnings("ignore")
@given(STARTS, st.lists(CALLS, max_size=6), SCOPES, st.sampled_from([2, 128, None]))
def test_no_call_on_a_span_raises(start, calls, scope, most):
    """Any values on the fast path: nothing raises, and what is recorded has numbers as numbers."""
    *_, span = lived("fast", start, calls, scope, most)
    for value in (getattr(span, "attributes", None) or {}).values():
        assert isinstance(value, (str, bool, int, float, bytes, tuple, list, Mapping, type(None)))


def lived(path, start, calls, scope, most):
    """All that can be seen of a span that is started in a scope and called, and the span."""
    queue = Bin()
    limits = SpanLimits(max_span_attributes=most) if most else SpanLimits(max_attribute_length=3)
    tracer = provider(path, queue=queue, span_limits=limits).get_tracer("t")
    request = None if scope["gate"] is None else requests.Request(scope["gate"])
    here = {} if scope["above"] else {"context": start.get("context")}

    def live():
        if scope["arrived"]:
            attach(baggage.set_baggage("correlation.id", scope["arrived"]))
        if scope["shared"] is not None:
            _context.begin_request(_context.Shared(dict(scope["shared"])))
        requests.current.set(request)
        _context.bind_context(**scope["bound"])
        if scope["above"]:
            attach(trace.set_span_in_context(tracer.start_span("above", kind=SpanKind.CONSUMER)))
        span = tracer.start_span("work", **{**start, **here})
        for name, arguments in calls:
            getattr(span, name)(*arguments)
        return span

    span = contextvars.Context().run(live)
    fields = vars(span)
    entry = fields.get(_context.ENTRY)
    marks = (
        entry is None,
        entry is span,
        fields.get(requests.MARK) is request,
        request is not None and request.entry is span,
    )
    got = [item if isinstance(item, str) else (facts_of(item[0]), *item[1:]) for item in queue.got]
    held = len(request._held) if request is not None else 0
    return facts_of(span), marks, got, held, span


def facts_of(span):
    """What the public properties of a span say, without what differs by its nature."""
    if not hasattr(span, "attributes"):
        return type(span).__name__
    return (
        span.name,
        dict(span.attributes),
        span.dropped_attributes,
        [event.name for event in span.events],
        len(span.links),
        (span.status.status_code, span.status.description),
        span.end_time is None or span.end_time == 2**62 or span.end_time >= span.start_time,
        span.kind,
        span.start_time if span.start_time == 5 else None,
        span.parent is None,
        span.get_span_context().trace_flags,
    )


def test_what_a_processor_of_ours_raises_costs_the_span_nothing(capsys, monkeypatch):
    """A request that cannot take note of the span: said, and the span is there."""
    monkeypatch.setattr(_diagnostics, "_said", {})

    class Broken(requests.Request):
        __slots__ = ()

        def started(self, span):
            raise LookupError(span.name)

    token = requests.current.set(Broken(requests.HELD))
    try:
        span = provider(queue=Bin()).get_tracer("t").start_span("work")
    finally:
        requests.current.reset(token)
    assert span.is_recording()
    assert "SpanPipeline raised LookupError: work" in capsys.readouterr().err


def test_a_queue_that_raises_costs_the_span_only(capsys, caplog, monkeypatch):
    """The block goes on, and the loss is said."""
    monkeypatch.setattr(_diagnostics, "_said", {})

    class Broken(Bin):
        def put(self, item, size, *, important=False):
            raise LookupError("no room")

    with provider(queue=Broken()).get_tracer("t").start_as_current_span("work") as span:
        pass
    assert not span.is_recording()
    assert "a span was lost: no room" in capsys.readouterr().err
    assert caplog.text == ""  # it was not ended once more


def test_an_interrupt_is_not_swallowed():
    """Ctrl-C in the middle of a start or an end goes where Ctrl-C goes."""

    class Stopping(RandomIdGenerator):
        def generate_span_id(self):
            raise KeyboardInterrupt

    class StoppingBin(Bin):
        def put(self, item, size, *, important=False):
            raise KeyboardInterrupt

    tracer = provider(id_generator=Ids(Stopping())).get_tracer("t")
    with pytest.raises(KeyboardInterrupt):
        tracer.start_span("work")
    span = provider(queue=StoppingBin()).get_tracer("t").start_span("work")
    with pytest.raises(KeyboardInterrupt):
        span.end()


def test_one_end_of_many(caplog):
    """Threads that end a span and set its attributes: it is delivered once, and nothing is set after."""
    queue = Bin()
    tracer = provider(queue=queue, span_limits=SpanLimits(max_span_attributes=10_000)).get_tracer(
        "t"
    )
    for _ in range(50):
        span, go = tracer.start_span("work"), threading.Barrier(4)

        def set_and_end(thread, span=span, go=go):
            go.wait()
            for number in range(20):
                span.set_attribute(f"{thread}.{number}", number)
                FastSpan._stamped(span, {"both": number})
            span.end()

        threads = [threading.Thread(target=set_and_end, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(queue.got) == 50
    assert len({id(item) for item, _, _ in queue.got}) == 50
    assert all(len(item.attributes) >= 21 for item, _, _ in queue.got)


def test_a_handler_that_was_removed_is_put_back(monkeypatch):
    """The start of a span looks after our handlers."""
    handler = logging.NullHandler()
    monkeypatch.setattr(root, "_ours", root.ours())
    root.ours().append(handler)
    try:
        provider(queue=Bin()).get_tracer("t").start_span("work")
        assert handler in logging.root.handlers
    finally:
        root.ours().remove(handler)
        logging.root.removeHandler(handler)


def test_replaced_parts_count_from_the_next_span_on():
    """A resource, limits or a sampler that the SDK exchanges in a tracer are not remembered."""
    tracer = provider(queue=Bin()).get_tracer("t")
    before = tracer.start_span("work")
    tracer.resource = Resource({"service.name": "other"})
    tracer._span_limits = SpanLimits(max_span_attributes=1)
    after = tracer.start_span("work", attributes={"a": 1, "b": 2})
    tracer.sampler = ALWAYS_OFF
    assert before.resource is not after.resource is tracer.resource
    assert (len(after.attributes), after.dropped_attributes) == (1, 1)
    assert not tracer.start_span("work").is_recording()


def test_a_disabled_tracer_and_a_capture_are_noticed():
    """What the SDK asks, and what a test's capture wants to see, comes first."""
    queue = Bin()
    tracer = provider(queue=queue).get_tracer("t")
    pipeline, seen = tracer.span_processor, []

    class Redirect:
        def on_start(self, span, parent_context=None):
            seen.append(("start", span.name))

        def on_end(self, span):
            seen.append(("end", span.name))

    pipeline.redirect = Redirect()
    tracer.start_span("work").end()
    pipeline.redirect = None
    tracer._tracer_config = type(tracer._tracer_config)(is_enabled=False)
    assert not tracer.start_span("off").is_recording()
    assert (seen, queue.got) == ([("start", "work"), ("end", "work")], [])


def test_wrong_arguments_are_told_as_the_sdk_tells_them():
    """A call that the SDK would refuse is refused, with its words."""
    tracer = provider().get_tracer("t")
    for arguments, named in (
        ((), {}),
        (("a",), {"colour": 1}),
        (("a",), {"name": "b"}),
        ((1,) * 9, {}),
    ):
        with pytest.raises(TypeError, match="start_span"):
            tracer.start_span(*arguments, **named)
    with pytest.raises(TypeError, match="end"):
        tracer.start_span("a").end(1, 2)
