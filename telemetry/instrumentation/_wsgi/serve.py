"""
One call of a WSGI application with ids: begin, answer, body, end.

Nothing of it raises into the application. What the application raises goes on to the server, unless
the middleware was put around the application by hand: then it is answered here with 500 and the
ids, since nobody outside knows them, and its traceback goes to `wsgi.errors` as servers do it.
"""

import traceback
from collections.abc import Callable
from typing import Any

from telemetry.instrumentation._asgi.options import Options
from telemetry.instrumentation._wsgi.body import guarded, until_closed
from telemetry.instrumentation._wsgi.exchange import STATE, WsgiExchange

_BODY = b"Internal Server Error"


def serve(
    app: Callable[..., Any],
    options: Options,
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    *,
    answers: bool,
) -> Any:
    """
    Run the application for one request.

    Args:
        app: the WSGI application.
        options: of the middleware.
        environ: of the request.
        start_response: of the server.
        answers: whether an exception is answered here.
    """
    if STATE in environ:  # an outer one of ours does the work
        return app(environ, start_response)
    exchange: WsgiExchange | None = guarded(WsgiExchange, options, environ)
    if exchange is None:
        return app(environ, start_response)

    begun = []

    def starting(status: str, headers: Any, *exc_info: Any) -> Any:
        changed = guarded(exchange.starting, status, headers)
        begun.append(status)
        return start_response(status, headers if changed is None else changed, *exc_info)

    try:
        body = app(environ, starting)
    except BaseException as error:
        guarded(exchange.failed, error)
        mine = answers and isinstance(error, Exception) and not begun
        own = guarded(exchange.answer) if mine else None
        try:
            if own is None:
                raise
            return _answer(own, error, environ, start_response)
        finally:
            guarded(exchange.end)
    return until_closed(body, environ, exchange)


def _answer(
    headers: list[tuple[str, str]],
    error: BaseException,
    environ: dict[str, Any],
    start_response: Callable[..., Any],
) -> list[bytes]:
    """A 500 with the ids."""
    guarded(_complain, environ, error)
    plain = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_BODY)))]
    info = (type(error), error, error.__traceback__)
    start_response("500 Internal Server Error", [*plain, *headers], info)
    return [_BODY]


def _complain(environ: dict[str, Any], error: BaseException) -> None:
    traceback.print_exception(error, file=environ["wsgi.errors"])
