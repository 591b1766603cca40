"""
Django and Flask: how the WSGI middleware installs itself under `opentelemetry-instrument`.

Nothing is imported: hooks wait until the application imports its framework. `Flask.__call__` and
Django's `WSGIHandler.__call__` are wrapped, outside of every middleware. Two facts come from
inside: the route (Django's `resolve_request`; Flask leaves its rule in `environ`) and the exception
that the framework answers (the signal `got_request_exception` of both).

contrib's instrumentation of Django reads Django's settings when it is switched on. Under the wrapper that is
before `manage.py` or `wsgi.py` has named them, and then it *freezes empty settings*: each
answer is a 500. So without DJANGO_SETTINGS_MODULE it is switched on when Django loads its
middleware, which is when the settings are known.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._logs import root
from telemetry.instrumentation._asgi.options import Options, take
from telemetry.instrumentation._wsgi import exchange as exchanges
from telemetry.instrumentation._wsgi.body import guarded
from telemetry.instrumentation._wsgi.serve import serve

SETTINGS: Final = "DJANGO_SETTINGS_MODULE"
_WRAPPED: Final = "_otelier_wrapped"

_late: list[Callable[[], None]] = []
"""Instrumentations that wait for Django's settings."""


def install() -> None:
    """Install the middleware in every Flask and Django application of this process."""
    import wrapt  # noqa: PLC0415 - a dependency of opentelemetry-instrumentation, needed here only

    flask, django = take(framework="FLASK"), take(framework="DJANGO")
    root.notice_exceptions(logged)
    for module, act in (
        ("flask.app", lambda module: _wrap_call(module.Flask, flask)),
        ("flask.signals", lambda module: _connect(module.got_request_exception)),
        ("django.core.handlers.wsgi", lambda module: _wrap_call(module.WSGIHandler, django)),
        ("django.core.handlers.base", _wrap_django),
        ("django.core.signals", lambda module: _connect(module.got_request_exception)),
    ):
        wrapt.register_post_import_hook(functools.partial(guarded, act), module)


def when_django_is_ready(act: Callable[[], None]) -> None:
    """Switch something on when Django's settings are known."""
    _late.append(act)
    program = " ".join(os.path.basename(word) for word in _command())  # noqa: PTH119 - words, not paths
    if "manage.py" in program or "wsgi" in program or "asgi" in program:
        _diagnostics.say(
            "django settings",
            f"{SETTINGS} is not set while Python starts: contrib's instrumentation of Django, which"
            " would freeze empty settings now, is switched on when Django loads its middleware;"
            f" set {SETTINGS} in the environment to have it from the start",
            always=True,
        )


def _command() -> list[str]:
    return sys.orig_argv[1:6]


def _wrap_call(kind: Any, options: Options) -> None:
    """Have `__call__` of an application class do the middleware's work."""
    inner = kind.__call__
    if getattr(inner, _WRAPPED, False):
        return

    @functools.wraps(inner)
    def call(self: Any, environ: Any, start_response: Any) -> Any:
        return serve(
            functools.partial(inner, self), options, environ, start_response, answers=False
        )

    setattr(call, _WRAPPED, True)
    kind.__call__ = call


def _wrap_django(module: Any) -> None:
    handler = module.BaseHandler
    load, resolve = handler.load_middleware, handler.resolve_request

    @functools.wraps(load)
    def load_middleware(self: Any, *args: Any, **kwargs: Any) -> Any:
        while _late:
            guarded(_late.pop(0))
        return load(self, *args, **kwargs)

    @functools.wraps(resolve)
    def resolve_request(self: Any, request: Any) -> Any:
        match = resolve(self, request)
        guarded(_note_route, request, match)
        return match

    handler.load_middleware, handler.resolve_request = load_middleware, resolve_request


def _note_route(request: Any, match: Any) -> None:
    route = getattr(match, "route", None)
    if isinstance(route, str):
        request.META[exchanges.ROUTE] = (f"/{route.lstrip('^/')}", getattr(match, "func", None))


def _connect(signal: Any) -> None:
    signal.connect(_caught, weak=False)


def _caught(*_: Any, exception: Any = None, **__: Any) -> None:
    """Receiver of `got_request_exception`: Flask passes the exception, Django is handling it."""
    error = exception if isinstance(exception, Exception) else sys.exc_info()[1]
    exchange = exchanges.current.get()
    if exchange is not None and isinstance(error, Exception):
        guarded(exchange.caught, error)


def logged(error: BaseException) -> None:
    exchange = exchanges.current.get()
    if exchange is not None:
        exchange.logged(error)
