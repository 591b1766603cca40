"""Which ids a request gets, and that they are on everything that it causes."""

import asyncio
import uuid

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from opentelemetry import propagate
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import telemetry
from telemetry.instrumentation.asgi import CorrelationIdMiddleware
from tests.telemetry.asgi.driving import ask, get, http_get, serving

IDS = (("x-request-id", "req-1"), ("x-correlation-id", "corr-1"))
logger = telemetry.get_logger("app")


async def plain(scope, receive, send):
    """A plain ASGI application that answers with its ids."""
    ids = telemetry.current_context()
    text = f"{ids['request_id']} {ids['correlation_id']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": text})


def fastapi_app():
    app = FastAPI()

    @app.get("/")
    async def root():
        ids = telemetry.current_context()
        return PlainTextResponse(f"{ids['request_id']} {ids['correlation_id']}")

    return app


def starlette_app():
    async def root(_):
        ids = telemetry.current_context()
        return PlainTextResponse(f"{ids['request_id']} {ids['correlation_id']}")

    return Starlette(routes=[Route("/", root)])


def inside(app):
    app.add_middleware(CorrelationIdMiddleware)
    return app


APPS = {
    "plain": lambda: CorrelationIdMiddleware(plain),
    "fastapi outside": lambda: CorrelationIdMiddleware(fastapi_app()),
    "fastapi inside": lambda: inside(fastapi_app()),
    "starlette outside": lambda: CorrelationIdMiddleware(starlette_app()),
    "starlette inside": lambda: inside(starlette_app()),
}
every_app = pytest.mark.parametrize("make", APPS.values(), ids=APPS)


@every_app
def test_good_ids_are_taken_over_and_returned(make):
    """A2: both ids of the client are bound and come back, once each."""
    answer = get(make(), headers=IDS)
    assert answer.body == b"req-1 corr-1"
    assert (answer["x-request-id"], answer["x-correlation-id"]) == ("req-1", "corr-1")


@every_app
def test_missing_ids_are_made(make):
    """A2: without headers both are new UUIDs, and what is bound is what comes back."""
    answers = [get(make()) for _ in range(2)]
    for answer in answers:
        request_id, correlation_id = answer["x-request-id"], answer["x-correlation-id"]
        assert answer.body.decode() == f"{request_id} {correlation_id}"
        assert {uuid.UUID(request_id).version, uuid.UUID(correlation_id).version} == {4}
    assert (
        len({answer[name] for answer in answers for name in ("x-request-id", "x-correlation-id")})
        == 4
    )


BAD = {
    "empty": "",
    "long": "x" * 129,
    "space": "a b",
    "quote": 'a"b',
    "list": "a,b",
    "lookup": "${jndi:ldap://evil}",
    "markup": "<script>",
    "escape code": "a\x1b[31m",
    "nul": "a\x00b",
    "line break": "a\r\nset-cookie: x=1",
    "non-ascii": "h\xe9",
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", ["x-request-id", "x-correlation-id"])
def test_bad_ids_are_replaced(name, value):
    """B60: an id that is too long or has a character that could do harm never goes any further."""
    answer = get(CorrelationIdMiddleware(plain), headers=[(name, value)])
    assert uuid.UUID(answer[name]).version == 4
    assert answer.status == 200


def test_contradicting_ids_are_nobodys():
    """The same header with two values is replaced; with one value twice it counts."""
    answer = get(
        CorrelationIdMiddleware(plain),
        headers=[
            ("x-request-id", "one"),
            ("X-Request-ID", "two"),
            ("x-correlation-id", "same"),
            ("X-Correlation-Id", "same"),
        ],
    )
    assert uuid.UUID(answer["x-request-id"]).version == 4
    assert answer["x-correlation-id"] == "same"


def test_the_applications_own_header_stays():
    """An id that the application itself puts on its answer is neither changed nor doubled."""

    async def proxy(scope, receive, send):
        headers = [(b"X-Request-ID", b"of-upstream")]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body"})

    answer = get(CorrelationIdMiddleware(proxy), headers=IDS)
    assert answer.headers == [(b"X-Request-ID", b"of-upstream"), (b"x-correlation-id", b"corr-1")]


def test_a_corrected_correlation_id_is_returned_only_if_it_is_fit():
    """The application may choose the id; what does not fit a header does not get into one."""
    chosen = iter(["conversation-7", "a\r\nx: y"])

    async def app(scope, receive, send):
        telemetry.set_request_context(correlation_id=next(chosen))
        await plain(scope, receive, send)

    wrapped = CorrelationIdMiddleware(app)
    assert get(wrapped, headers=IDS)["x-correlation-id"] == "conversation-7"
    assert get(wrapped, headers=IDS)["x-correlation-id"] == "corr-1"


def test_ids_reach_everything_below(captured):
    """A3: logs of endpoint, dependency, thread, generator and background task have all ids."""
    app = FastAPI(telemetry={"operation_spans": False})

    def tenant():
        telemetry.set_request_context(organization_id="org-1")  # in a worker thread

    def later():
        logger.info("later")

    @app.get("/all", dependencies=[Depends(tenant)])
    async def endpoint(background: BackgroundTasks):
        logger.info("endpoint")
        await asyncio.to_thread(logger.info, "thread")
        background.add_task(later)

        async def pieces():
            logger.info("piece")
            yield b"x"

        return StreamingResponse(pieces(), background=background)

    assert get(CorrelationIdMiddleware(app), "/all", headers=IDS).status == 200
    ids = {"request.id": "req-1", "correlation.id": "corr-1", "organization.id": "org-1"}
    assert [
        (log["message"], log["attributes"]) for log in captured.logs if log["logger"] == "app"
    ] == [
        ("endpoint", ids),
        ("thread", ids),
        ("piece", ids),
        ("later", ids),
    ]
    (span,) = captured.spans
    assert {key: span["attributes"][key] for key in ids} == ids


@pytest.mark.parametrize("make", [inside, CorrelationIdMiddleware], ids=["inside", "outside"])
def test_the_server_span_has_the_ids_and_its_record_the_trace(captured, make):
    """A2, D1: span, log and header lead from correlation id to trace id and back."""
    answer = get(make(fastapi_app()), headers=IDS)
    (span,) = [span for span in captured.spans if span["kind"] == "SERVER"]
    (record,) = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert (span["attributes"]["request.id"], span["attributes"]["correlation.id"]) == (
        "req-1",
        "corr-1",
    )
    assert answer["traceresponse"] == f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01"
    duration = record["attributes"].pop("operation.execution_time_ms")
    assert duration > 0
    assert record == {
        "time": record["time"],
        "level": "INFO",
        "logger": "telemetry.access",
        "message": "GET / 200",
        "trace_id": span["trace_id"],
        "span_id": span["span_id"],
        "attributes": {
            "request.id": "req-1",
            "correlation.id": "corr-1",
            "url.path": "/",
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "http.route": "/",
            "operation.status": "success",
        },
    }


def test_the_scope_ends_with_the_request():
    """After the answer the ids of the caller are as they were before."""

    async def run():
        telemetry.bind_context(tenant_id="caller")
        seen = []

        async def app(scope, receive, send):
            seen.append(telemetry.current_context())
            telemetry.bind_context(user_id="u-1")
            telemetry.set_request_context(organization_id="org-1")
            await plain(scope, receive, send)

        await ask(CorrelationIdMiddleware(app), headers=IDS)
        return seen, telemetry.current_context()

    assert asyncio.run(run()) == (
        [{"request_id": "req-1", "correlation_id": "corr-1"}],
        {"tenant_id": "caller"},
    )


def test_a_request_within_a_request_keeps_to_itself(captured):
    """An application that calls another in the same process: each span has its own request's id."""
    inner = CorrelationIdMiddleware(fastapi_app())
    outer = FastAPI(telemetry={"operation_spans": False})

    @outer.get("/outer")
    async def endpoint():
        await ask(inner, headers=[("x-request-id", "inner")])
        return telemetry.current_context()

    answer = get(CorrelationIdMiddleware(outer), "/outer", headers=IDS)
    assert answer.body == b'{"request_id":"req-1","correlation_id":"corr-1"}'
    found = {
        span["name"]: span["attributes"]["request.id"]
        for span in captured.spans
        if span["kind"] == "SERVER"
    }
    assert found == {"GET /outer": "req-1", "GET /": "inner"}


def test_the_correlation_id_goes_out_with_calls(captured):
    """A client that injects the context sends the id as baggage and as a header of its own."""
    carrier = {}

    async def app(scope, receive, send):
        propagate.inject(carrier)
        await plain(scope, receive, send)

    get(CorrelationIdMiddleware(app), headers=IDS)
    assert carrier == {"baggage": "correlation.id=corr-1", "x-correlation-id": "corr-1"}


def baggage_of(trust, captured, make):
    answer = get(
        make(trust_baggage=trust), headers=[("baggage", "correlation.id=theirs,color=red")]
    )
    (span,) = [span for span in captured.spans if span["kind"] == "SERVER"]
    assert span["attributes"]["correlation.id"] == answer["x-correlation-id"]
    return answer["x-correlation-id"]


MAKERS = {
    "inside": lambda **options: (
        app := fastapi_app(),
        app.add_middleware(CorrelationIdMiddleware, **options),
    )[0],
    "outside": lambda **options: CorrelationIdMiddleware(fastapi_app(), **options),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_baggage_counts_only_where_it_is_trusted(captured, make):
    """A correlation id in baggage is used if the operator trusts the clients, and else never."""
    assert baggage_of(True, captured, make) == "theirs"
    captured.spans.clear()
    assert uuid.UUID(baggage_of(False, captured, make)).version == 4


def test_it_works_over_a_real_server(captured):
    """A2: uvicorn with httptools, one request per connection; ids, trace and answer agree."""
    with serving(CorrelationIdMiddleware(fastapi_app())) as port:
        status, headers, body = http_get(
            port, headers=[("X-Request-ID", "r"), ("X-Correlation-ID", "c")]
        )
    (span,) = [span for span in captured.spans if span["kind"] == "SERVER"]
    assert (status, body) == (200, b"r c")
    assert headers[-4:-1] == [
        ("x-request-id", "r"),
        ("x-correlation-id", "c"),
        ("traceresponse", f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01"),
    ]


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("traceresponse", ["traceresponse"]),
        ("server-timing", ["server-timing"]),
        ("both", ["traceresponse", "server-timing"]),
        ("none", []),
    ],
)
def test_the_trace_header_can_be_chosen(captured, how, names):
    """`server-timing` is the form that scripts in a browser can read."""
    answer = get(CorrelationIdMiddleware(fastapi_app(), trace_header=how))
    text = "00-" + f"{1:032x}-{1:016x}-01"
    values = {"traceresponse": text, "server-timing": f'traceparent;desc="{text}"'}
    found = [(key.decode(), value.decode()) for key, value in answer.headers[-len(names) or 99 :]]
    assert [pair for pair in found if pair[0] in values] == [(name, values[name]) for name in names]
