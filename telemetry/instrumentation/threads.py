"""
Threads and executors: what is started within a request or a block has its ids and its trace.

`asyncio.to_thread` copies the context and `run_in_executor`, `ThreadPoolExecutor.submit` and `map`,
`threading.Thread` and `Timer` do not (threads of Python 3.14 may). So `Thread.start` and `submit` note
what is bound here, and the thread, or the one call in the pool, begins with it and puts back what was
there before. Carried are the ids of the scope and OpenTelemetry's context, and no context variables of
others: a web framework would take the thread for a part of its request. Together with
OpenTelemetry's own threading instrumentation the trace is carried twice, which is the same as once.

Threads that serve everybody (of this library, of exporters, drivers and pools) take nothing over from
whoever happened to need them first. TELEMETRY_THREADS=false switches all of it off.
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import thread as pools
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry.context import Context, attach, detach, get_current

from telemetry import _diagnostics, _values
from telemetry._config import kinds
from telemetry._context import request, scope

__all__ = ["install", "uninstall"]

VARIABLE: Final = "TELEMETRY_THREADS"
SERVING: Final = frozenset(
    (
        *("telemetry", "opentelemetry", "concurrent", "multiprocessing", "asyncio", "pymongo"),
        *("logfire", "sentry_sdk", "redis", "kombu", "celery", "grpc", "urllib3", "apscheduler"),
        *("socketserver", "uvicorn", "gunicorn", "watchdog", "watchfiles", "ddtrace", "kafka"),
    )
)
"""Packages whose threads belong to no request."""
_CARRIED: Final = "_otelier_carried"
_WRAPPED: Final = "_otelier_wrapped"
_VARIABLES: Final[tuple[ContextVar[Any], ...]] = (scope._scope, scope._shared, request.current)  # noqa: SLF001 - the three that make up a scope


class Carried:
    """What is bound where a thread or a call is handed over."""

    __slots__ = ("_context", "_values")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._values = [variable.get() for variable in _VARIABLES]

    def run(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call with it bound, and put back what was bound before."""
        tokens = [
            (variable, variable.set(value))
            for variable, value in zip(_VARIABLES, self._values, strict=True)
        ]
        token = attach(self._context)
        try:
            return call(*args, **kwargs)
        finally:
            detach(token)
            for variable, before in tokens:
                variable.reset(before)


def here() -> Carried | None:
    """What is bound here; None when nothing is."""
    context = get_current()
    if not context and not scope.bound() and request.current.get() is None:
        return None
    return Carried(context)


def install() -> None:
    """Carry ids and trace into threads and executors, unless TELEMETRY_THREADS says no."""
    given = os.environ.get(VARIABLE, "").strip()
    try:
        if given and not kinds.FLAG.read(given):
            return
    except (TypeError, ValueError):
        text = f"{VARIABLE}={given!r} cannot be used; give {kinds.FLAG.words}, or leave it out"
        _diagnostics.say(VARIABLE, text, level="error", always=True)
    _wrap(threading.Thread, "start", _starting)
    _wrap(pools.ThreadPoolExecutor, "submit", _submitting)


def uninstall() -> None:
    """Take the wrappers off, where they are still on top."""
    for owner, name in ((threading.Thread, "start"), (pools.ThreadPoolExecutor, "submit")):
        original = getattr(getattr(owner, name), _WRAPPED, None)
        if original is not None:
            setattr(owner, name, original)


def _wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, _WRAPPED):
        wrapper = functools.wraps(original)(make(original))
        setattr(wrapper, _WRAPPED, original)
        setattr(owner, name, wrapper)


def _starting(original: Any) -> Any:
    def start(self: threading.Thread) -> None:
        try:
            carried = None if _serves(self) else here()
            if carried is not None:
                # On the object, so that a `run` of a subclass is carried too, and pickling is not
                # disturbed: a started thread is not pickled.
                self.run = functools.partial(carried.run, self.run)  # type: ignore[method-assign]
        except Exception as error:
            _say(error)
        original(self)

    return start


def _submitting(original: Any) -> Any:
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            carried = here()
        except Exception as error:
            _say(error)
            carried = None
        if carried is None:
            return original(self, fn, *args, **kwargs)
        return original(self, carried.run, fn, *args, **kwargs)

    return submit


def _serves(thread: threading.Thread) -> bool:
    """Whether a thread belongs to a library, by its class and by what it runs."""
    target = getattr(thread, "_target", None)
    names = (type(thread).__module__, getattr(target, "__module__", None))
    return any(isinstance(name, str) and name.partition(".")[0] in SERVING for name in names)


def _say(error: Exception) -> None:
    text = f"a thread starts without ids: {_values.text(error)}"
    _diagnostics.say("threads", text, level="error")
