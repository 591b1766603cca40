"""
`Middleware`: request id and correlation id for every WSGI application.

The twin of `CorrelationIdMiddleware` for Django, Flask and any other application of PEP 3333: the
same ids, headers, records, rules and options. Under `opentelemetry-instrument` Django and Flask
have it already (`_wsgi/frameworks`); around anything else it is put by hand:

    application = Middleware(application)

The ids are bound while the application runs and while the server iterates the body; the request
ends when the server closes it. It creates no span: contrib's instrumentations own the server span.
"""

from collections.abc import Callable, Iterable
from typing import Any

from telemetry._logs import root
from telemetry.instrumentation._asgi.options import take
from telemetry.instrumentation._wsgi import frameworks
from telemetry.instrumentation._wsgi.serve import serve

__all__ = ["Middleware", "install"]

install = frameworks.install
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Middleware:
    """
    Takes over or makes X-Request-ID and X-Correlation-ID, and binds, returns and records them.

    Example:
        app.wsgi_app = Middleware(app.wsgi_app, exclude="/health")

    Args:
        app: the WSGI application.
        options: exclude, sample, slow, access_log, trust_baggage, trace_header: as for
            `CorrelationIdMiddleware`, with the same environment variables.
    """

    def __init__(self, app: WSGIApp, **options: Any) -> None:
        self.app = app
        self._options = take(options)
        root.notice_exceptions(frameworks.logged)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Serve one request."""
        answered: Iterable[bytes] = serve(
            self.app, self._options, environ, start_response, answers=True
        )
        return answered
