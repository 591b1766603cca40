"""
FastAPI and Starlette: how the middleware installs itself, and who owns the server span.

`install` is what the distro calls under `opentelemetry-instrument`. It imports neither package: it
waits until the application does, and then wraps `__call__` of the two classes. That place is
outside of the whole middleware stack and of FastAPI's own telemetry, so that every answer carries
the ids and the server span has them from its start; and it works for each instance and subclass,
however early `FastAPI` was imported. An application that adds `CorrelationIdMiddleware` itself
chooses the options; the work is still done out here.

Exactly one component owns the server span. FastAPI from 0.142 on traces itself and stands down
when contrib's middleware is in its stack. What it does not see is solved here: a span made by a
wrapper outside of the application, and Starlette's own tracing middleware inside of it.

FastAPI's operation spans (`fastapi.dependencies`, ...) are switched off by the constructor's
argument where the application did not say otherwise: then they are never made, and the spans of the
application hang below the server span.
"""

import functools
import inspect
import os
import weakref
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import trace

from telemetry import _diagnostics, _values
from telemetry._context import request
from telemetry.instrumentation._asgi.exchange import STATE, Scope
from telemetry.instrumentation._asgi.options import Options, read, take
from telemetry.instrumentation.asgi import CorrelationIdMiddleware, Receive, Send, flushing, serve

FASTAPI: Final = "FastAPI's own telemetry"
CONTRIB: Final = "opentelemetry-instrumentation-asgi"
STARLETTE: Final = "Starlette's OpenTelemetryMiddleware"
NO_OWNER: Final = "nobody"

_NATIVE_STATE: Final = "fastapi.telemetry"
_STARLETTE_STATE: Final = "starlette.opentelemetry"
_LAYERS: Final = {
    ("opentelemetry.instrumentation.asgi", "OpenTelemetryMiddleware"): CONTRIB,
    ("starlette.middleware.opentelemetry", "OpenTelemetryMiddleware"): STARLETTE,
}
_AUTO: Final = "FASTAPI_OTEL_AUTO_CONFIGURE"
_WRAPPED: Final = "_otelier_wrapped"


@dataclass(frozen=True)
class Plan:
    """What was found out about an application."""

    options: Options
    owner: str
    rivals: tuple[str, ...]
    native: bool


_plans: "weakref.WeakKeyDictionary[Any, Plan]" = weakref.WeakKeyDictionary()


def install() -> None:
    """Install the middleware in every Starlette and FastAPI application of this process."""
    import wrapt  # noqa: PLC0415 - a dependency of opentelemetry-instrumentation, needed here only

    options = take()
    wrapt.register_post_import_hook(
        lambda module: _guarded(_wrap_call, module.Starlette, options), "starlette.applications"
    )
    wrapt.register_post_import_hook(
        lambda module: _guarded(_wrap_fastapi, module.FastAPI, options), "fastapi.applications"
    )


def problems() -> list[str]:
    """What `telemetry doctor` says about this environment."""
    found = read()[1]
    if os.environ.get(_AUTO, "").strip().lower() == "true":
        found.append(
            f"{_AUTO}=true: FastAPI adds exporters of its own, and everything is sent twice; unset it"
        )
    return found


def server_span_owner(app: Any) -> tuple[str, tuple[str, ...]]:
    """
    Who makes the server span of an application, and who else could.

    Args:
        app: a Starlette or FastAPI application whose middleware stack has been built.
    """
    found = []
    layer = getattr(app, "middleware_stack", None)
    for _ in range(100):
        if layer is None:
            break
        name = _LAYERS.get((type(layer).__module__, type(layer).__name__))
        if name is not None and name not in found:
            found.append(name)
        layer = getattr(layer, "app", None)
    native = getattr(app, "_native_telemetry", None)
    if native is not None and native.config.get("tracing") and native.enabled():
        found.append(FASTAPI)
    for name in (CONTRIB, FASTAPI, STARLETTE):
        if name in found:
            return name, tuple(other for other in found if other != name)
    return NO_OWNER, ()


def _wrap_fastapi(kind: Any, options: Options) -> None:
    if "telemetry" in inspect.signature(kind.__init__).parameters and not options.operation_spans:
        inner = kind.__init__

        @functools.wraps(inner)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            given = kwargs.get("telemetry")
            if given is None or isinstance(given, dict):
                kwargs["telemetry"] = {"operation_spans": False, **(given or {})}
            inner(self, *args, **kwargs)

        kind.__init__ = init
    _wrap_call(kind, options)


def _wrap_call(kind: Any, options: Options) -> None:
    """Have `__call__` of an application class do the middleware's work."""
    inner = kind.__call__
    if getattr(inner, _WRAPPED, False):
        return

    @functools.wraps(inner)
    async def call(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await inner(self, scope, receive, _reporting(self, options, send))
        elif STATE in scope or scope["type"] not in ("http", "websocket"):
            await inner(self, scope, receive, send)
        else:
            plan = _guarded(_planned, self, options)
            if plan is not None:
                _guarded(_one_owner, plan, scope)
            chosen = options if plan is None else plan.options
            await serve(functools.partial(inner, self), chosen, scope, receive, send)

    setattr(call, _WRAPPED, True)
    kind.__call__ = call


def _planned(app: Any, options: Options) -> Plan:
    plan = _plans.get(app)
    if plan is None:
        if app.middleware_stack is None:
            app.middleware_stack = app.build_middleware_stack()
        for middleware in app.user_middleware:
            if middleware.cls is CorrelationIdMiddleware:
                options = take(middleware.kwargs)
        owner, rivals = server_span_owner(app)
        plan = _plans[app] = Plan(options, owner, rivals, hasattr(app, "_native_telemetry"))
        _say(plan)
    return plan


def _one_owner(plan: Plan, scope: Scope) -> None:
    """Have all but the owner stand down, by the marks that they look for themselves."""
    if _traced_outside(scope):
        _diagnostics.say(
            "server span outside",
            "server span: made by a wrapper outside of the application, so FastAPI's own telemetry"
            " stands down; to have FastAPI's, take the wrapper away",
            level="info",
        )
        if plan.native:
            scope.setdefault(_NATIVE_STATE, None)
        scope[_STARLETTE_STATE] = True
    elif STARLETTE in plan.rivals:
        scope[_STARLETTE_STATE] = True


def _traced_outside(scope: Scope) -> bool:
    """Whether the span that runs is the server span of this very request, made by a wrapper."""
    span: Any = trace.get_current_span()
    if not span.is_recording() or getattr(span, "kind", None) is not trace.SpanKind.SERVER:
        return False
    if request.current.get() is not None:
        return False  # a request that calls another application in the same process
    attributes = span.attributes or {}
    path = scope["path"]
    target = attributes.get("url.path") or attributes.get("http.target") or ""
    return str(target).partition("?")[0] in (path, scope.get("root_path", "") + path)


def _reporting(app: Any, options: Options, send: Send) -> Send:
    """Say who owns the server span when the application has started, and flush at its end."""

    async def sending(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            _guarded(_planned, app, options)
        await send(message)

    return flushing(sending)


def _say(plan: Plan) -> None:
    text = f"server span: {plan.owner}"
    if plan.rivals:
        text += f"; {', '.join(plan.rivals)} installed as well and standing down"
    if plan.owner == NO_OWNER:
        text += (
            " makes one; FastAPI 0.142 and later do, for Starlette add"
            " starlette.middleware.opentelemetry.OpenTelemetryMiddleware"
        )
    _diagnostics.say("server span", text, level="info", always=True)
    for problem in problems():
        _diagnostics.say("asgi problem", problem, always=True)


def _guarded(call: Any, *args: Any) -> Any:
    """Call; what it raises is said, not raised."""
    try:
        return call(*args)
    except Exception as error:
        text = f"installing CorrelationIdMiddleware: {call.__name__}: {_values.text(error)}"
        _diagnostics.say("asgi install", text, level="error")
        return None
