"""Silent routes, sampled routes, and what is kept of them all the same."""

import asyncio

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

import telemetry
from telemetry._context import request
from telemetry.instrumentation.asgi import CorrelationIdMiddleware
from tests.telemetry.asgi.driving import ask, get

logger = telemetry.get_logger("app")


def application():
    app = FastAPI(telemetry={"operation_spans": False})

    @app.get("/poll")
    @app.get("/health")
    async def quiet(how: str = ""):
        with telemetry.span("step"):
            logger.info("step")
        if how == "raise":
            raise ValueError("broken")
        if how == "log":
            logger.error("bad")
        if how == "many":
            for number in range(request.LIMIT):
                logger.info("line %d", number)
        if how == "status":
            return PlainTextResponse("no", 503)
        return PlainTextResponse("ok")

    return app


def emitted(captured):
    """Names of spans, and messages of the application's and our records."""
    names = [span["name"] for span in captured.spans]
    return names, [
        log["message"] for log in captured.logs if log["logger"] in ("app", "telemetry.access")
    ]


def inside(**options):
    app = application()
    app.add_middleware(CorrelationIdMiddleware, **options)
    return app


def outside(**options):
    return CorrelationIdMiddleware(application(), **options)


both = pytest.mark.parametrize("make", [inside, outside])
ALL = (["GET /poll", "step"], ["step", "GET /poll 200"])


@both
@pytest.mark.parametrize(
    "path", ["/health", "/health/", "/healthz", "/livez", "/readyz", "/metrics"]
)
def test_health_routes_are_silent(captured, make, path):
    """A6: no span and no log record, of the request or of what it does, and no trace is named."""
    answer = get(make(), path)
    assert emitted(captured) == ([], [])
    assert answer["x-request-id"]
    assert b"traceresponse" not in dict(answer.headers)


@both
def test_a_failing_health_route_is_silent_too(captured, make):
    """A6: what fails there is the server's and the orchestrator's to tell; the ids are returned."""
    answer = get(make(), "/health?how=raise")
    assert (answer.status, str(answer.error)) == (500, "broken")
    assert emitted(captured) == ([], [])


@both
def test_the_list_of_silent_routes_can_be_changed(captured, make):
    """Patterns may have a method, a placeholder and an end that is open."""
    app = make(exclude=["POST /poll", "/{any}/live", "/internal/*"])
    get(app, "/health")
    assert emitted(captured) == (["GET /health", "step"], ["step", "GET /health 200"])
    captured.spans.clear()
    captured.logs.clear()
    for path in ("/a/live", "/internal/x/y"):
        get(app, path)
    get(app, "/poll", method="POST")
    assert emitted(captured) == ([], [])
    get(app, "/a/b/live")
    get(app, "/internal")
    assert emitted(captured)[1] == ["GET (no route) 404"] * 2


@both
def test_a_rate_decides_what_is_kept(captured, make):
    """A6: of a route with rate 0 nothing is kept, with rate 1 everything, in its order."""
    get(make(sample={"GET /poll": 0}), "/poll")
    assert emitted(captured) == ([], [])
    get(make(sample={"GET /poll": 1}), "/poll")
    assert emitted(captured) == ALL
    captured.spans.clear()
    captured.logs.clear()
    get(make(sample={"POST /poll": 0, "/other": 0}), "/poll")
    assert emitted(captured) == ALL


@both
@pytest.mark.parametrize(
    ("how", "messages"),
    [
        ("raise", ["step", "GET /poll 500"]),
        ("status", ["step", "GET /poll 503"]),
        ("log", ["step", "bad", "GET /poll 200"]),
    ],
)
def test_errors_of_a_sampled_route_are_kept_whole(captured, make, how, messages):
    """A6: an exception, a 5xx or a record at ERROR keeps all that the request emitted before."""
    get(make(sample={"GET /poll": 0}), f"/poll?how={how}")
    names, found = emitted(captured)
    assert names == ["GET /poll", "step"]
    assert [text for text in found if text != "unhandled exception in a request"] == messages


@both
def test_slow_requests_of_a_sampled_route_are_kept(captured, make):
    """A6: from `slow` seconds on a request is kept."""
    get(make(sample={"GET /poll": 0}, slow=0), "/poll")
    assert emitted(captured) == ALL


@both
def test_what_waits_is_bounded(captured, make):
    """A request of a sampled route that emits more than the limit is kept: memory stays bounded."""
    get(make(sample={"GET /poll": 0}), "/poll?how=many")
    names, messages = emitted(captured)
    assert (names, len(messages)) == (["GET /poll", "step"], request.LIMIT + 2)


def test_the_trace_id_decides_so_services_agree(captured):
    """Of 200 traces numbered from 1, a rate of half keeps those in the lower half of all ids."""
    app = outside(sample={"GET /poll": 0.5})

    async def run():
        low, high = "0" * 16 + "7" + "f" * 15, "0" * 16 + "8" + "0" * 15
        for trace_id in (low, high):
            header = ("traceparent", f"00-{trace_id}-00000000000000ab-01")
            await ask(app, "/poll", headers=[header])
        return int(low, 16)

    kept = asyncio.run(run())
    assert {span["trace_id"] for span in captured.spans} == {kept}


def test_after_the_decision_errors_pass(captured):
    """A background task of a dropped request that logs an error is heard; its other lines are not."""
    app = application()

    def later():
        logger.info("fine")
        logger.error("bad")

    @app.get("/then")
    async def then():
        from starlette.background import BackgroundTask

        return PlainTextResponse("ok", background=BackgroundTask(later))

    get(CorrelationIdMiddleware(app, sample={"/then": 0}), "/then")
    assert emitted(captured) == ([], ["bad"])


def test_the_access_record_can_be_left_out(captured):
    """Without it spans and the application's records stay."""
    get(outside(access_log=False), "/poll")
    assert emitted(captured) == (["GET /poll", "step"], ["step"])


@pytest.mark.parametrize("method", ["get", "BREW", "\x1b[31m"])
def test_unknown_methods_are_other(captured, method):
    """B21: the method on the record is one of few words."""
    get(outside(), "/poll", method=method)
    (record,) = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert record["message"] == "_OTHER /poll 405"
    assert record["attributes"]["http.request.method"] == "_OTHER"


def test_secrets_in_a_query_are_masked(captured):
    """The server span's `url.query` has the keys, and of secret ones not the values."""
    get(outside(), "/poll?a=1&api_key=abcd-efgh&Token=ijkl-mnop&password=s5s5&b=2&flag")
    (span,) = [span for span in captured.spans if span["kind"] == "SERVER"]
    assert span["attributes"]["url.query"] == (
        "a=1&api_key=[REDACTED]&Token=[REDACTED]&password=[REDACTED]&b=2&flag="
    )
