"""
Ids on answers that the application does not send itself: the 500 after an unhandled exception.

Within a Starlette stack that answer is sent by `ServerErrorMiddleware`, which stands outside of all
middlewares of the user, with a `send` that we never see. So its three ways to make the answer get
the headers added; the exception itself goes its way. Around a plain application only the server
would answer, without ids: there we answer as `ServerErrorMiddleware` would, and the exception goes
on to the server, which logs it.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from telemetry import _diagnostics, _values
from telemetry.instrumentation._asgi import headers as asgi_headers
from telemetry.instrumentation._asgi.exchange import STATE, Exchange

_BODY: Final = b"Internal Server Error"


def cover(app: Any) -> None:
    """Have a Starlette application's answers to unhandled exceptions carry the ids."""
    try:
        layer = getattr(app, "middleware_stack", None)
        for _ in range(100):  # a stack is no ring, but it is not ours
            if layer is None:
                return
            if _is_server_error(layer):
                for name in ("handler", "error_response", "debug_response"):
                    maker = getattr(layer, name, None)
                    if maker is not None:
                        setattr(layer, name, _with_ids(maker))
            layer = getattr(layer, "app", None)
    except Exception as error:
        text = f"answers of 500 carry no ids: {_values.text(error)}"
        _diagnostics.say("asgi errors", text, level="error")


def _is_server_error(layer: object) -> bool:
    kind = type(layer)
    return any(
        base.__name__ == "ServerErrorMiddleware"
        and base.__module__ == "starlette.middleware.errors"
        for base in kind.__mro__
    )


def _with_ids(maker: Callable[..., Any]) -> Callable[..., Any]:
    """`maker(request, exception)`, sync or async, with our headers on its response."""

    def add(request: Any, response: Any) -> Any:
        try:
            headers = request.scope.get(STATE)
            if headers:
                response.raw_headers[:] = asgi_headers.added(response.raw_headers, headers)
        except Exception as error:
            text = f"an answer of 500 carries no ids: {_values.text(error)}"
            _diagnostics.say("asgi errors", text, level="error")
        return response

    if inspect.iscoroutinefunction(maker) or inspect.iscoroutinefunction(
        getattr(maker, "__call__", None)  # noqa: B004 - as Starlette looks at it
    ):

        @functools.wraps(maker)
        async def make_async(request: Any, error: Exception) -> Any:
            return add(request, await maker(request, error))

        return make_async

    @functools.wraps(maker)
    def make(request: Any, error: Exception) -> Any:
        return add(request, maker(request, error))

    return make


async def answer(exchange: Exchange, send: Callable[[Any], Awaitable[None]]) -> None:
    """After an unhandled exception: answer 500 where no other code can do it with ids."""
    try:
        headers = exchange.fill_headers()
        if exchange.started or exchange.websocket or exchange.inside or exchange.disconnected:
            return
        own = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(_BODY)).encode()),
        ]
        exchange.started = True
        exchange.status = 500
        await send({"type": "http.response.start", "status": 500, "headers": [*own, *headers]})
        await send({"type": "http.response.body", "body": _BODY})
    except Exception as error:
        _diagnostics.say("asgi errors", f"a 500 could not be sent: {_values.text(error)}")
