"""
One request of a WSGI application: the ASGI exchange, fed from `environ` and `start_response`.

The request is shown to the exchange as a scope of ASGI, so that both kinds of applications have the
same ids, headers, records and rules. What the exchange takes out of the headers (baggage of
strangers) is taken out of `environ` too.

Frameworks answer exceptions themselves. Their signals say which exception it was (`caught`); the
record with which they log it is then the one in full, and where they log none, ours is.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from telemetry._traces.span import error_type
from telemetry.instrumentation._asgi import headers as asgi_headers
from telemetry.instrumentation._asgi.exchange import Exchange
from telemetry.instrumentation._asgi.options import Options

ROUTE: Final = "otelier.route"
"""Where in `environ` a framework's route is noted: (template, endpoint)."""
STATE: Final = "otelier.request"
_PLAIN: Final = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}

current: ContextVar["WsgiExchange | None"] = ContextVar("otelier_wsgi_exchange", default=None)


class WsgiExchange(Exchange):
    """
    What is known of one request.

    Args:
        options: of the middleware.
        environ: of the request; it loses the headers that must not be believed.
    """

    def __init__(self, options: Options, environ: dict[str, Any]) -> None:
        self.environ = environ
        scope = _scope(environ)
        super().__init__(options, scope)
        kept = {name for name, _ in scope["headers"]}
        values = dict(scope["headers"])
        for name, variable in ((b"baggage", "HTTP_BAGGAGE"), (b"tracestate", "HTTP_TRACESTATE")):
            if variable not in environ:
                continue
            if name in kept:
                environ[variable] = values[name].decode("latin-1")
            else:
                del environ[variable]
        environ[STATE] = self.headers
        self._caught: Exception | None = None
        self._current = current.set(self)

    def starting(self, status: str, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The headers of the answer, with ours."""
        self._find_route()
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        code = int(status[:3]) if status[:3].isdigit() else 0
        message = {"type": "http.response.start", "status": code, "headers": own}
        changed = self.sending(message)["headers"]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in changed]

    def answer(self) -> list[tuple[str, str]]:
        """The headers of an answer of ours, after an exception that nobody has answered."""
        self.started, self.status = True, 500
        return [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in self.fill_headers()
        ]

    def finished(self) -> None:
        """Notice that the whole body has been produced."""
        self.sent({"type": "http.response.body", "more_body": False})

    def caught(self, error: Exception) -> None:
        """Notice an exception that the framework answers."""
        self._caught = error
        self.request.error_type = error_type(error)
        self.request.keep()

    def logged(self, error: BaseException) -> None:
        """Notice that a log record has an exception in full."""
        if error is self._caught:
            self.request.recorded = True

    def end(self) -> None:
        """Record what is not recorded yet, and leave the scope."""
        try:
            self._find_route()
            caught = self._caught
            if caught is not None and self._error is None and (self.status or 500) >= 500:
                self._tell(caught)
        finally:
            try:
                current.reset(self._current)
            except ValueError:
                current.set(None)  # closed in another context
            super().end()

    def _find_route(self) -> None:
        """The route that the framework has chosen meanwhile."""
        if "route" in self._scope:
            return
        template, endpoint = self.environ.get(ROUTE) or _of_flask(self.environ)
        if template:
            self._scope["route"] = _Route(template)
            self._scope["endpoint"] = endpoint


class _Route:
    """What the exchange asks a route for."""

    def __init__(self, path: str) -> None:
        self.path = path


def _of_flask(environ: dict[str, Any]) -> tuple[str, Any]:
    """The rule and the view of a Flask request."""
    request = environ.get("werkzeug.request")
    rule = getattr(getattr(request, "url_rule", None), "rule", None)
    return (rule, None) if isinstance(rule, str) else ("", None)


def _scope(environ: dict[str, Any]) -> dict[str, Any]:
    """The request as a scope of ASGI."""
    root = _text(environ.get("SCRIPT_NAME", ""))
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    ]
    headers += [
        (header, environ[name].encode("latin-1", "replace"))
        for name, header in _PLAIN.items()
        if isinstance(environ.get(name), str) and environ[name]
    ]
    return {
        "type": "http",
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "method": environ.get("REQUEST_METHOD", "GET"),
        "root_path": root,
        "path": root + _text(environ.get("PATH_INFO", "")) or "/",
        "server": (environ.get("SERVER_NAME", ""), environ.get("SERVER_PORT")),
        "headers": headers,
    }


def _text(path: str) -> str:
    """A path of `environ`, whose bytes stand as Latin-1, as text."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


__all__ = ["ROUTE", "STATE", "WsgiExchange", "asgi_headers", "current"]
