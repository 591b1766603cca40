"""
`CorrelationIdMiddleware`: request id and correlation id for every ASGI application.

Pure ASGI, so that context variables reach the endpoint and background tasks (BaseHTTPMiddleware
runs the application in another task, Kludex/starlette#1678). It creates no span: exactly one
component may own the server span, and that is FastAPI or contrib's instrumentation. It works
around the application and within its middleware stack; the outermost one does the work, an inner
one steps aside. What it does is in `_asgi_exchange`; how it installs itself is in `fastapi`.

Nothing of it raises into the application: each step is guarded by itself, and the application runs
also when every step has failed. What the application raises goes on, the same object.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from telemetry import _diagnostics, _values
from telemetry._config import configure
from telemetry.instrumentation._asgi import error_responses
from telemetry.instrumentation._asgi.exchange import STATE, Exchange, Message, Scope
from telemetry.instrumentation._asgi.options import Options, take

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class CorrelationIdMiddleware:
    """
    Takes over or makes X-Request-ID and X-Correlation-ID, and binds, returns and records them.

    Example:
        app.add_middleware(CorrelationIdMiddleware, sample={"GET /poll": 0.01})

    Args:
        app: the ASGI application, or the next one in the stack.
        options: exclude, sample, slow, access_log, trust_baggage, trace_header; each has an
            environment variable: see docs/tutorial/fastapi.md.
    """

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        self.app = app
        self._options = take(options)
        self._covered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, connection or lifespan."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, flushing(send))
            return
        if scope["type"] not in ("http", "websocket") or STATE in scope:
            await self.app(scope, receive, send)
            return
        if not self._covered:
            self._covered = True
            error_responses.cover(scope.get("app"))
        await serve(self.app, self._options, scope, receive, send)


async def serve(app: ASGIApp, options: Options, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application for one request, with ids."""
    try:
        exchange = Exchange(options, scope)
    except Exception as error:
        _fault(error)
        await app(scope, receive, send)
        return

    async def receiving() -> Message:
        message = await receive()
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            exchange.disconnected = True
        return message

    async def sending(message: Message) -> None:
        changed = message
        try:
            changed = exchange.sending(message)
        except Exception as error:
            _fault(error)
        await send(changed)
        try:
            exchange.sent(message)
        except Exception as error:
            _fault(error)

    try:
        await app(scope, receiving, sending)
    except BaseException as error:
        try:
            exchange.failed(error)
        except Exception as failure:
            _fault(failure)
        if isinstance(error, Exception):
            await error_responses.answer(exchange, send)
        raise
    finally:
        try:
            exchange.end()
        except Exception as failure:
            _fault(failure)


def flushing(send: Send) -> Send:
    """
    Deliver what waits when the application has shut down.

    A server that was stopped by a signal raises the signal again after that, and then the process
    ends without running an exit hook (uvicorn from 0.29 on).
    """

    async def sending(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            pipeline = configure.pipeline()
            if pipeline is not None:
                configure.flush(pipeline.settings.exit_timeout)
        await send(message)

    return sending


def _fault(error: Exception) -> None:
    text = f"a step of CorrelationIdMiddleware failed and was skipped: {_values.text(error)}"
    _diagnostics.say("asgi", text, level="error")
