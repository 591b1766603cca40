"""Websockets, driven as a server would (no websocket library is a dependency of otelier)."""

import asyncio

import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

import telemetry
from telemetry.instrumentation.asgi import CorrelationIdMiddleware

IDS = [(b"x-request-id", b"req-1"), (b"x-correlation-id", b"corr-1")]
OURS = {"request.id": "req-1", "correlation.id": "corr-1"}
logger = telemetry.get_logger("app")


def application():
    app = FastAPI(telemetry={"operation_spans": False})

    @app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str):
        if room == "closed":
            await websocket.close(4001)
            return
        await websocket.accept(headers=[(b"x-own", b"1")])
        telemetry.set_request_context(conversation_id=room)
        text = await websocket.receive_text()
        logger.info("received")
        if text == "raise":
            raise ValueError("broken")
        if text == "leave":
            raise WebSocketDisconnect(1001)
        await websocket.send_text(text.upper())
        await websocket.close()

    return app


def inside(app):
    app.add_middleware(CorrelationIdMiddleware)
    return app


def connect(app, path, text="hello"):
    """What the application sends to a client that says one thing, and what it raises."""
    sent = []
    incoming = [{"type": "websocket.receive", "text": text}, {"type": "websocket.connect"}]

    async def receive():
        return incoming.pop()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "scheme": "ws",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": IDS,
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    try:
        asyncio.run(app(scope, receive, send))
    except Exception as error:
        return sent, error
    return sent, None


both = pytest.mark.parametrize("make", [inside, CorrelationIdMiddleware], ids=["inside", "outside"])


@both
def test_ids_are_bound_and_returned_when_the_connection_is_accepted(captured, make):
    """A2: the answer to the handshake has both ids and the trace; logs and span have the ids."""
    sent, error = connect(make(application()), "/chat/7")
    (span,) = captured.spans
    trace = f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01".encode()
    assert error is None
    assert (sent[0]["type"], list(sent[0]["headers"])) == (
        "websocket.accept",
        [
            (b"x-own", b"1"),
            (b"x-request-id", b"req-1"),
            (b"x-correlation-id", b"corr-1"),
            (b"traceresponse", trace),
        ],
    )
    assert [message["type"] for message in sent[1:]] == ["websocket.send", "websocket.close"]
    ids = {**OURS, "conversation.id": "7"}
    assert {key: span["attributes"][key] for key in ids} == ids
    (record,) = [log for log in captured.logs if log["logger"] == "app"]
    assert record["attributes"] == ids
    (access,) = [log for log in captured.logs if log["logger"] == "telemetry.access"]
    assert access["attributes"].pop("operation.execution_time_ms") > 0
    assert (access["message"], access["trace_id"], access["attributes"]) == (
        "WS /chat/{room}",
        span["trace_id"],
        {
            **ids,
            "url.path": "/chat/7",
            "http.route": "/chat/{room}",
            "operation.status": "success",
        },
    )


@both
def test_a_refused_connection_is_recorded(captured, make):
    """A close before the accept goes through as it is."""
    sent, error = connect(make(application()), "/chat/closed")
    assert (sent, error) == ([{"type": "websocket.close", "code": 4001, "reason": ""}], None)
    assert [log["message"] for log in captured.logs if log["logger"] == "telemetry.access"] == [
        "WS /chat/{room}"
    ]


@both
def test_an_exception_is_told_once_and_goes_on(captured, make):
    """The server gets the application's exception; one record has its text."""
    _, error = connect(make(application()), "/chat/7", "raise")
    assert str(error) == "broken"
    told = [log for log in captured.logs if log["attributes"].get("exception.message")]
    assert [log["attributes"]["conversation.id"] for log in told] == ["7"]
    (access,) = [log for log in captured.logs if log["message"] == "WS /chat/{room}"]
    assert (access["level"], access["attributes"]["error.type"]) == ("WARN", "ValueError")


@both
def test_a_client_that_leaves_is_no_error(captured, make):
    """Going away (1001) is how websockets end."""
    connect(make(application()), "/chat/7", "leave")
    assert [log["level"] for log in captured.logs if log["logger"] != "asyncio"] == ["INFO", "INFO"]
