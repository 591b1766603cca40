"""Ids of a scope: where they come from, where they go, and that they end."""

import asyncio
import concurrent.futures
import contextvars

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, attach, detach

import telemetry
from telemetry import _otel_context, attributes
from telemetry._context import scope as _context


@pytest.fixture(autouse=True)
def _own_scope(captured):
    """Each test begins without ids and records what it emits."""


def test_ids_nest_and_are_restored_exactly():
    """A block adds to what is known and leaves things as they were (C3)."""
    telemetry.bind_context(tenant_id="t-1", shelf="a")
    with telemetry.log_context(user_id="u-1", tenant_id="t-2"):
        with telemetry.log_context(user_id="u-2"):
            inner = telemetry.current_context()
        between = telemetry.current_context()
    assert inner == {"tenant_id": "t-2", "shelf": "a", "user_id": "u-2"}
    assert between == {"tenant_id": "t-2", "shelf": "a", "user_id": "u-1"}
    assert telemetry.current_context() == {"tenant_id": "t-1", "shelf": "a"}


def test_every_id_of_the_table_is_a_keyword():
    """The keywords of the API are the values of attributes.CONTEXT; ids become text."""
    given = {keyword: index for index, keyword in enumerate(attributes.CONTEXT.values())}
    with telemetry.log_context(**given):
        assert telemetry.current_context() == {key: str(value) for key, value in given.items()}


def test_none_means_not_known():
    """A header that is missing does not wipe out the id that is known."""
    telemetry.bind_context(correlation_id="c-1")
    telemetry.set_request_context(correlation_id=None, user_id=7)
    with telemetry.log_context(correlation_id=None):
        assert telemetry.current_context() == {"correlation_id": "c-1", "user_id": "7"}


def test_clear_forgets_everything():
    """After clear_context nothing is left, and a block around it still restores its outside."""
    telemetry.bind_context(tenant_id="t")
    with telemetry.log_context(user_id="u"):
        telemetry.clear_context()
        assert telemetry.current_context() == {}
    assert telemetry.current_context() == {"tenant_id": "t"}


def test_a_block_that_raises_restores_and_does_not_touch_the_exception():
    """The application's exception comes out as the same object."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, telemetry.log_context(user_id="u"):
        raise error
    assert caught.value is error
    assert telemetry.current_context() == {}


def test_decorator_of_functions_and_coroutines():
    """Each call runs in a scope of its own, and the function keeps its name and result."""

    @telemetry.log_context(operation="add")
    def add(a, b):
        return a + b, telemetry.current_context()

    @telemetry.log_context(operation="wait")
    async def wait():
        await asyncio.sleep(0)
        return telemetry.current_context()

    assert add(1, b=2) == (3, {"operation": "add"})
    assert add.__name__ == "add"
    assert asyncio.run(wait()) == {"operation": "wait"}
    assert telemetry.current_context() == {}


def test_a_generator_is_left_alone(capsys):
    """A scope held over a yield would leak to whoever runs in between: the decorator says no."""

    @telemetry.log_context(user_id="u")
    def numbers():
        yield telemetry.current_context()

    assert list(numbers()) == [{}]


@pytest.mark.anyio
async def test_interleaved_tasks_do_not_see_each_other():
    """A thousand interleaved tasks of different tenants each see their own ids only (A7)."""

    async def work(number):
        async with telemetry.log_context(tenant_id=number):
            await asyncio.sleep(0)
            async with telemetry.log_context(user_id=f"u-{number}"):
                await asyncio.sleep(0)
                seen = telemetry.current_context()
            await asyncio.sleep(0)
            return seen, telemetry.current_context()

    results = await asyncio.gather(*(work(number) for number in range(1000)))
    assert results == [
        ({"tenant_id": str(n), "user_id": f"u-{n}"}, {"tenant_id": str(n)}) for n in range(1000)
    ]
    assert telemetry.current_context() == {}


def test_threads_start_without_ids():
    """An executor's thread does not inherit ids by accident, and leaves none behind."""
    telemetry.bind_context(tenant_id="t")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(telemetry.current_context).result() == {}
        carried = contextvars.copy_context()
        assert pool.submit(carried.run, telemetry.current_context).result() == {"tenant_id": "t"}
        assert pool.submit(telemetry.current_context).result() == {}


def test_left_in_another_context_than_entered():
    """A block whose generator is closed elsewhere ends quietly and changes nothing there."""

    def holding():
        with telemetry.log_context(user_id="u", correlation_id="c"):
            yield

    generator = holding()
    contextvars.Context().run(next, generator)
    telemetry.bind_context(tenant_id="t")
    generator.close()
    assert telemetry.current_context() == {"tenant_id": "t"}


@pytest.mark.parametrize(
    "value", [object(), "x" * 10_000_000, "\ud800", [[]], float("nan"), b"\xff", lambda: 1]
)
def test_hostile_values_are_bounded(value):
    """Whatever is bound, the scope stays small text or a bounded value (G01)."""
    with telemetry.log_context(tenant_id=value, own=value):
        context = telemetry.current_context()
    assert len(context["tenant_id"]) <= 256
    assert "\ud800" not in context["tenant_id"]


def test_the_number_of_keys_is_bounded():
    """A scope repeats its keys on every span, so it keeps the newest 32."""
    for number in range(100):
        telemetry.bind_context(**{f"key_{number}": number})
    assert telemetry.current_context() == {f"key_{n}": n for n in range(68, 100)}


def test_ids_are_on_spans_and_logs(captured):
    """Spans get the ids at their start, log records when they are made (D1)."""
    with telemetry.log_context(correlation_id="c-1", tenant_id="t-1", shelf=3), telemetry.span("a"):
        telemetry.get_logger("app").info("hello")
    ids = {"correlation.id": "c-1", "tenant.id": "t-1", "shelf": 3}
    assert captured.spans == [
        {
            "name": "a",
            "trace_id": 1,
            "span_id": 1,
            "parent_id": None,
            "start": 1,
            "end": 3,
            "kind": "INTERNAL",
            "status": "UNSET",
            "attributes": ids,
        }
    ]
    assert captured.logs == [
        {
            "time": 2,
            "level": "INFO",
            "logger": "app",
            "message": "hello",
            "trace_id": 1,
            "span_id": 1,
            "attributes": ids,
        }
    ]


def test_ids_that_arrive_late_reach_the_span_and_its_server_span(captured):
    """What is bound inside goes on the running span and on the request's span above it (D1)."""
    tracer = trace.get_tracer("framework")
    with (
        tracer.start_as_current_span("GET /", kind=trace.SpanKind.SERVER),
        tracer.start_as_current_span("endpoint"),
    ):
        telemetry.set_request_context(user_id="u-1")
        with telemetry.log_context(order_id="o-1", operation="check"), telemetry.span("step"):
            pass
    server, endpoint, step = (span["attributes"] for span in captured.spans)
    assert server == {"user.id": "u-1", "order.id": "o-1"}
    assert endpoint == {"user.id": "u-1", "order.id": "o-1", "operation.name": "check"}
    assert step == {"user.id": "u-1", "order.id": "o-1", "operation.name": "check"}


def test_bind_corrects_and_a_block_does_not(captured):
    """bind_context overwrites an id on the running span; a block only adds what is missing."""
    with telemetry.span("a"):
        telemetry.bind_context(user_id="first")
        telemetry.bind_context(user_id="second")
        with telemetry.log_context(user_id="inner"):
            pass
    assert [span["attributes"] for span in captured.spans] == [{"user.id": "second"}]


def test_only_listed_ids_leave_in_baggage():
    """The correlation id travels to other services; tenant and user do not (notes 4)."""
    telemetry.bind_context(correlation_id="c 1", tenant_id="t-1", user_id="u-1")
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    assert carrier == {"baggage": "correlation.id=c+1"}


def test_a_block_puts_the_correlation_id_into_baggage_and_takes_it_out():
    """Inside the block the application's own baggage readers see the id."""
    with telemetry.log_context(correlation_id="c-1", tenant_id="t-1"):
        assert dict(baggage.get_all()) == {"correlation.id": "c-1"}
    assert dict(baggage.get_all()) == {}


@pytest.mark.parametrize(
    ("header", "adopted"),
    [
        ("correlation.id=c-9,tenant.id=evil", {"correlation_id": "c-9"}),
        ("correlation.id=" + "x" * 129, {}),
        ("correlation.id=a%0Ab", {}),
        ("other=1", {}),
    ],
)
def test_an_arriving_correlation_id_is_adopted(captured, header, adopted):
    """An id in the baggage header is on spans and logs, if it is listed and looks like an id."""
    token = attach(propagate.extract({"baggage": header}))
    try:
        with telemetry.span("a"):
            telemetry.get_logger("app").info("hello")
        assert telemetry.current_context() == adopted
    finally:
        detach(token)
    ids = {attributes.CORRELATION_ID: adopted["correlation_id"]} if adopted else {}
    assert [span["attributes"] for span in captured.spans] == [ids]
    assert [record["attributes"] for record in captured.logs] == [ids]


def test_an_own_id_wins_over_an_arriving_one():
    """What is bound here is nearer than what came by header."""
    token = attach(propagate.extract({"baggage": "correlation.id=theirs"}))
    try:
        telemetry.bind_context(correlation_id="ours")
        assert telemetry.current_context() == {"correlation_id": "ours"}
    finally:
        detach(token)


def test_new_correlation_ids_differ():
    """A new id is a UUID, and never the same twice."""
    assert len({telemetry.new_correlation_id() for _ in range(100)}) == 100


IDS = st.dictionaries(
    st.sampled_from(["correlation.id", "user.id", "shelf", "n"]),
    st.sampled_from(["c-1", "x", 7, None, 2.5]),
    max_size=3,
)
SCOPES = st.tuples(
    IDS,
    st.none() | IDS,
    st.dictionaries(
        st.sampled_from(["correlation.id", "tenant.id", "other"]),
        st.sampled_from(["c-9", "not an id", "t"]),
    ),
    st.sampled_from([("correlation_id",), (), ("correlation_id", "tenant_id")]),
)


@settings(deadline=None)
@given(SCOPES, IDS)
def test_what_is_entered_is_in_force_until_it_is_left(scope, ids):
    """Whatever is bound and has arrived: the nearer id wins, and leaving puts back what was there (C3)."""
    bound, shared, arrived, carried = scope
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    may_arrive = {name.replace("_", ".") for name in carried}

    def live():
        if shared is not None:
            _context.begin_request(_context.Shared(dict(shared)))
        for name, value in bound.items():
            _context.put(name, value)
        context = {}
        for name, value in arrived.items():
            context = baggage.set_baggage(name, value, context)
        attach(Context(context))
        before = (_context.effective(), dict(_otel_context.current_context()))
        tokens = _context.enter(span, dict(ids), Context(context))
        inside = (_context.effective(), trace.get_current_span(), baggage.get_all())
        _otel_context.detach_context(tokens[1])
        _context.leave(tokens[0])
        return before, inside, (_context.effective(), dict(_otel_context.current_context()))

    try:
        _context.carry(carried)
        before, inside, after = contextvars.Context().run(live)
    finally:
        _context.carry(("correlation_id",))
    ours = {
        **{n: v for n, v in arrived.items() if n in may_arrive and " " not in v},
        **(shared or {}),
        **bound,
    }
    travelling = {name: str(value) for name, value in ids.items() if name in may_arrive}
    assert before[0] == ours
    assert inside == (ours | travelling | ids, span, {**arrived, **travelling})
    assert after == before


def test_more_ids_than_a_scope_holds():
    """The oldest keys make room."""
    ids = {f"k{number}": number for number in range(40)}
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    tokens = _context.enter(span, ids, Context())
    inside = _context.effective()
    _otel_context.detach_context(tokens[1])
    _context.leave(tokens[0])
    assert inside == {f"k{number}": number for number in range(8, 40)}
