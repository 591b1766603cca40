"""
The body of a WSGI answer: the request lasts until it is closed, and its parts are made with its ids.

A server iterates the body after the application has returned, mostly in the same thread, where the
ids are bound still. Where it is another context (a bridge to ASGI, a pool), each part is made in
the context of the request. The server span may have ended with the application (Flask's does): it
is made current again, so that what a generator logs belongs to the trace.
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach, detach

from telemetry import _diagnostics, _values
from telemetry._context import request as requests
from telemetry.instrumentation._wsgi.exchange import WsgiExchange


class Body:
    """
    A body whose end is the end of its request.

    Args:
        body: what the application returned.
        exchange: of the request.
    """

    def __init__(self, body: Iterable[bytes], exchange: WsgiExchange) -> None:
        self._body = body
        self._exchange = exchange
        self._context: Context = copy_context()
        self._parts: Iterator[bytes] | None = None
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part: bytes = self._within(self._next)
            return part
        except StopIteration:
            guarded(self._exchange.finished)
            raise
        except BaseException as error:
            guarded(self._exchange.failed, error)
            raise

    def close(self) -> None:
        """Close the application's body, and end the request."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                self._within(close)
        except BaseException as error:
            guarded(self._exchange.failed, error)
            raise
        finally:
            self._end()

    def __del__(self) -> None:
        if not self._ended:  # a server that does not close what it has sent
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            guarded(self._exchange.end)

    def _next(self) -> bytes:
        if self._parts is None:
            self._parts = iter(self._body)
        return next(self._parts)

    def _within(self, call: Callable[[], Any]) -> Any:
        if requests.current.get() is not self._exchange.request:
            return self._context.run(self._traced, call)
        return self._traced(call)

    def _traced(self, call: Callable[[], Any]) -> Any:
        entry = self._exchange.request.entry
        if entry is None or trace.get_current_span().get_span_context().is_valid:
            return call()
        token = attach(trace.set_span_in_context(entry))
        try:
            return call()
        finally:
            detach(token)


def until_closed(body: Any, environ: dict[str, Any], exchange: WsgiExchange) -> Any:
    """
    What the server gets in the place of the application's body.

    A list is complete already. A file wrapper of the server's own stays what it is, since the
    server sends it in its own way; its `close` ends the request.
    """
    if isinstance(body, (list, tuple)):
        guarded(exchange.finished)
        guarded(exchange.end)
        return body
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        closing = getattr(body, "close", None)

        def close() -> None:
            try:
                if closing is not None:
                    closing()
            finally:
                guarded(exchange.finished)
                guarded(exchange.end)

        try:
            body.close = close  # type: ignore[attr-defined]  # as Django does with such a wrapper
        except AttributeError:
            close_now = exchange
            guarded(close_now.finished)
            guarded(close_now.end)
        return body
    return Body(body, exchange)


def guarded(call: Callable[..., Any], *args: Any) -> Any:
    """Call; what it raises is said, not raised."""
    try:
        return call(*args)
    except Exception as error:
        text = f"a step of the WSGI middleware failed and was skipped: {_values.text(error)}"
        _diagnostics.say("wsgi", text, level="error")
        return None
