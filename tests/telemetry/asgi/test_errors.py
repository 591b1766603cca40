"""Answers of 500 carry ids, exceptions are told once, and the application's own stays its own."""

import asyncio

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import telemetry
from telemetry.instrumentation.asgi import CorrelationIdMiddleware
from tests.telemetry.asgi.driving import Answer, ask, get, http_get, serving

IDS = (("x-request-id", "req-1"), ("x-correlation-id", "corr-1"))


def fastapi_app(error, **config):
    app = FastAPI(telemetry={"operation_spans": False}, **config)

    @app.get("/boom")
    async def boom():
        raise error

    return app


def starlette_app(error, **config):
    async def boom(_):
        raise error

    return Starlette(routes=[Route("/boom", boom)], **config)


def plain_app(error):
    async def app(scope, receive, send):
        raise error

    return app


def inside(app):
    app.add_middleware(CorrelationIdMiddleware)
    return app


async def own_handler(request, error):
    return JSONResponse({"own": str(error)}, 500, headers={"x-own": "1"})


def own_plain_handler(request, error):
    return PlainTextResponse("own", 500)


HANDLERS = {Exception: own_handler}
APPS = {
    "plain": (lambda e: CorrelationIdMiddleware(plain_app(e)), b"Internal Server Error"),
    "fastapi inside": (lambda e: inside(fastapi_app(e)), b"Internal Server Error"),
    "fastapi outside": (
        lambda e: CorrelationIdMiddleware(fastapi_app(e)),
        b"Internal Server Error",
    ),
    "starlette inside": (lambda e: inside(starlette_app(e)), b"Internal Server Error"),
    "own handler": (
        lambda e: inside(fastapi_app(e, exception_handlers=HANDLERS)),
        b'{"own":"broken"}',
    ),
    "own sync handler": (
        lambda e: inside(starlette_app(e, exception_handlers={500: own_plain_handler})),
        b"own",
    ),
}


@pytest.mark.parametrize(("make", "body"), APPS.values(), ids=APPS)
def test_an_unhandled_exception_is_answered_with_ids(captured, make, body):
    """A2: the 500 has both ids, from the first request on, and the exception goes its way."""
    error = ValueError("broken")
    app = make(error)
    for _ in range(2):
        answer = get(app, "/boom", headers=IDS)
        assert (answer.status, answer.body) == (500, body)
        assert (answer["x-request-id"], answer["x-correlation-id"]) == ("req-1", "corr-1")
        assert answer.error is error


def test_the_debug_page_has_ids(captured):
    """Starlette's page for developers carries them too."""
    answer = get(inside(starlette_app(ValueError("broken"), debug=True)), "/boom", headers=IDS)
    assert (answer.status, answer["x-request-id"]) == (500, "req-1")
    assert b"ValueError: broken" in answer.body


@pytest.mark.parametrize("make", [inside, CorrelationIdMiddleware], ids=["inside", "outside"])
@pytest.mark.parametrize("kind", [fastapi_app, starlette_app])
def test_an_exception_is_told_once(captured, make, kind):
    """G01: one record has the text of the exception; the request's own record only its type."""
    get(make(kind(ValueError("broken"))), "/boom", headers=IDS)
    full = [log for log in captured.logs if log["attributes"].get("exception.message") == "broken"]
    assert [(log["event"], log["attributes"]["exception.type"]) for log in full] == [
        ("http.server.request.exception", "ValueError")
    ]
    (record,) = [log for log in captured.logs if log["message"] == "GET /boom 500"]
    assert (record["level"], record["attributes"]["error.type"]) == ("WARN", "ValueError")
    assert record["attributes"]["operation.status"] == "error"
    assert {log["attributes"]["correlation.id"] for log in (record, *full)} == {"corr-1"}


def test_what_a_block_has_told_is_not_told_again(captured):
    """The innermost LogContext tells the exception; FastAPI's own record then has its type only."""
    app = FastAPI(telemetry={"operation_spans": False})

    @app.get("/boom")
    async def boom():
        with telemetry.LogContext("flow"):
            raise ValueError("broken")

    get(CorrelationIdMiddleware(app), "/boom")
    told = [
        (log["message"], "exception.message" in log["attributes"])
        for log in captured.logs
        if "exception.type" in log["attributes"]
    ]
    assert told == [("flow failed", True), ("Unhandled exception in FastAPI request", False)]


def test_a_chosen_500_is_an_error_of_the_request(captured):
    """A 503 that the application answers itself is told by the request's record, as an ERROR."""
    get(CorrelationIdMiddleware(fastapi_app(HTTPException(503))), "/boom")
    (record,) = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert (record["level"], record["message"]) == ("ERROR", "GET /boom 503")
    assert record["attributes"]["error.type"] == "503"


def test_a_client_error_is_a_success_of_the_server(captured):
    """A 404 has no route, no error type and level INFO."""
    get(CorrelationIdMiddleware(fastapi_app(None)), "/nowhere")
    (record,) = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert (record["level"], record["message"]) == ("INFO", "GET (no route) 404")
    assert "http.route" not in record["attributes"]
    assert "error.type" not in record["attributes"]


def test_a_cancelled_request_is_no_error(captured):
    """A cancelled task goes on being cancelled; the record says so, and nothing is an ERROR."""

    async def run():
        started = asyncio.Event()

        async def app(scope, receive, send):
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(ask(CorrelationIdMiddleware(app), "/slow"))
        await started.wait()
        task.cancel()
        return await task

    answer = asyncio.run(run())
    assert isinstance(answer.error, asyncio.CancelledError)
    assert answer == Answer(error=answer.error)
    (record,) = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert (record["level"], record["message"]) == ("INFO", "GET (no route) without an answer")
    assert record["attributes"]["operation.status"] == "cancelled"


def test_a_failing_background_task_is_told(captured):
    """A3: the answer has gone out with 200; the exception of the task after it is still told once."""
    app = FastAPI(telemetry={"operation_spans": False})

    def fail():
        raise ValueError("broken")

    @app.get("/later")
    async def later():
        from starlette.background import BackgroundTask

        return PlainTextResponse("ok", background=BackgroundTask(fail))

    answer = get(CorrelationIdMiddleware(app), "/later", headers=IDS)
    assert (answer.status, str(answer.error)) == (200, "broken")
    told = [log for log in captured.logs if log["attributes"].get("exception.message")]
    assert [log["attributes"]["request.id"] for log in told] == ["req-1"]
    assert [log["message"] for log in captured.logs if log["logger"] == "telemetry.access"] == [
        "GET /later 200"
    ]


class Nasty(Exception):
    """An exception that cannot be looked at."""

    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    "error",
    [
        Nasty(),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        ExceptionGroup("g", [ValueError()]),
    ],
)
def test_the_applications_exception_is_never_replaced(captured, error):
    """G01: whatever the application raises is what the server gets, the same object."""
    answer = get(CorrelationIdMiddleware(plain_app(error)), "/boom")
    assert answer.error is error


BROKEN = {
    "no headers": {"headers": None},
    "half a header": {"headers": [(b"x-request-id",)]},
    "text headers": {"headers": [("x-request-id", "text")]},
    "path": {"path": None},
    "method": {"method": None},
    "root": {"root_path": None},
    "route": {"route": object()},
}


@pytest.mark.parametrize("extra", BROKEN.values(), ids=BROKEN)
def test_a_broken_scope_does_not_keep_the_application_from_running(captured, extra):
    """G01: a server that breaks the ASGI rules gets the application's answer all the same."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def broken(scope, receive, send):
        await CorrelationIdMiddleware(app)({**scope, **extra}, receive, send)

    answer = get(broken)
    assert (answer.status, answer.error) == (204, None)


def test_a_broken_answer_is_left_to_the_server(captured):
    """Headers that are none go on as they are: the server complains, as without the middleware."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": 7})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "path": "/", "headers": [], "method": "GET"}
    asyncio.run(CorrelationIdMiddleware(app)(scope, receive, send))
    assert sent == [{"type": "http.response.start", "status": 200, "headers": 7}]


def test_a_lifespan_passes_through():
    """Startup and shutdown go through unchanged."""
    sent = []

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        sent.append((scope, receive))
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    scope = {"type": "lifespan"}
    asyncio.run(CorrelationIdMiddleware(app)(scope, print, send))
    assert sent == [
        (scope, print),
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_the_500_of_a_plain_application_has_ids_over_a_real_server(captured):
    """A2: where only the server could answer, the answer is ours, and the server still logs."""
    with serving(CorrelationIdMiddleware(plain_app(ValueError("broken")))) as port:
        status, headers, body = http_get(port, headers=[("X-Request-ID", "req-1")])
    assert (status, body) == (500, b"Internal Server Error")
    assert ("x-request-id", "req-1") in headers
    assert [log["message"] for log in captured.logs if log["logger"] == "uvicorn.error"].count(
        "Exception in ASGI application\n"
    ) == 1
