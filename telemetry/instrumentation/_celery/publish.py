"""
Publishing: a PRODUCER span `send <queue>`, and the headers that go with the message.

Runs wherever a task is published: web process, script, beat, or a worker that retries or chains.
`before_task_publish` starts the span and writes the headers, `after_task_publish` ends it. A publish
that fails sends no second signal, so `Celery.send_task` is wrapped: it ends what is still open, with
the error, and knows the application, which the signals do not. `Scheduler.apply_async` of beat is
wrapped for the name of the schedule's entry, which Celery does not pass on.
"""

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace

from telemetry import _values
from telemetry import attributes as names
from telemetry._traces import span as spans
from telemetry.instrumentation._celery import chatter, message
from telemetry.instrumentation._celery.options import guarded

WRAPPED: Final = "_otelier_wrapped"

_ATTRIBUTE: Final = {keyword: name for name, keyword in names.CONTEXT.items()}
_open: ContextVar[trace.Span | None] = ContextVar("otelier_publishing", default=None)
_app: ContextVar[Any] = ContextVar("otelier_publishing_app", default=None)
_entry: ContextVar[str | None] = ContextVar("otelier_beat_entry", default=None)


@guarded("publish")
def before(
    sender: Any = None,
    body: Any = None,
    headers: Any = None,
    routing_key: Any = None,
    exchange: Any = None,
    **_: Any,
) -> None:
    """Receiver of `before_task_publish`."""
    if not isinstance(headers, dict):
        return
    finish(None)
    old = isinstance(body, dict)  # version 1 of the protocol has everything in the body
    about: Mapping[str, Any] = body if old else headers
    args, kwargs = (about.get("args"), about.get("kwargs")) if old else (body[0], body[1])
    task_id = about.get("id")
    name = _values.text(sender or about.get("task"), _values.ID_TEXT)
    queue = _values.text(routing_key or getattr(exchange, "name", exchange) or "", _values.ID_TEXT)
    app = _app.get() or _current_app()
    ids = message.complete(
        message.ids_here(),
        task=None,
        args=args,
        kwargs=kwargs,
        fallback=about.get("root_id") or task_id,
    )
    attributes: dict[str, Any] = {
        **{_ATTRIBUTE[keyword]: value for keyword, value in ids.items()},
        names.MESSAGING_SYSTEM: message.system(app),
        names.MESSAGING_OPERATION_NAME: "send",
        names.MESSAGING_OPERATION_TYPE: "send",
        names.MESSAGING_DESTINATION: queue,
        names.MESSAGING_MESSAGE_ID: _values.text(task_id, _values.ID_TEXT),
        names.CELERY_TASK_NAME: name,
    }
    for key, attribute in (
        ("retries", names.CELERY_TASK_RETRIES),
        ("eta", names.CELERY_TASK_ETA),
        ("root_id", names.CELERY_TASK_ROOT_ID),
        ("parent_id", names.CELERY_TASK_PARENT_ID),
        ("group", names.CELERY_TASK_GROUP_ID),
    ):
        if about.get(key):
            attributes[attribute] = _values.clean(about[key])
    entry = _entry.get()
    if entry is not None:
        attributes[names.CELERY_BEAT_ENTRY] = entry
    span = message.tracer().start_span(
        f"send {queue}", kind=trace.SpanKind.PRODUCER, attributes=attributes
    )
    # Published from within a task, the span is stamped with the id of the task that publishes.
    span.set_attribute(names.TASK_ID, attributes[names.MESSAGING_MESSAGE_ID])
    _open.set(span)
    message.write(headers, ids, trace.set_span_in_context(span), entry)


@guarded("publish")
def after(**_: Any) -> None:
    """Receiver of `after_task_publish`."""
    finish(None)


def finish(error: BaseException | None) -> None:
    """End the span of the publish that runs here, if one does."""
    span = _open.get()
    if span is None:
        return
    _open.set(None)
    if error is not None:
        span.set_status(trace.StatusCode.ERROR)
        span.set_attribute(names.ERROR_TYPE, spans.error_type(error))
    span.end()


def wrap_app(module: Any) -> None:
    """Wrap `Celery.send_task` of `celery.app.base`."""
    wrap(module.Celery, "send_task", _send_task)


def wrap_beat(module: Any) -> None:
    """Wrap `Scheduler.apply_async` of `celery.beat`."""
    wrap(module.Scheduler, "apply_async", _apply_entry)


def unwrap(owner: Any, name: str) -> None:
    """Take a wrapper off, if it is still on top."""
    original = getattr(getattr(owner, name, None), WRAPPED, None)
    if original is not None:
        setattr(owner, name, original)


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a method by what `make` makes of it, once."""
    original = getattr(owner, name)
    if hasattr(original, WRAPPED):
        return
    wrapper = functools.wraps(original)(make(original))
    setattr(wrapper, WRAPPED, original)
    setattr(owner, name, wrapper)


def _send_task(inner: Any) -> Any:
    original = chatter.quiet(inner)

    def send_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _app.set(self)
        try:
            return original(self, *args, **kwargs)
        except BaseException as error:
            _failed(error)
            raise
        finally:
            _app.reset(token)

    return send_task


@guarded("publish")
def _failed(error: BaseException) -> None:
    finish(error)


def _apply_entry(original: Any) -> Any:
    def apply_async(self: Any, entry: Any, *args: Any, **kwargs: Any) -> Any:
        token = _entry.set(_values.text(getattr(entry, "name", ""), _values.ID_TEXT) or None)
        try:
            return original(self, entry, *args, **kwargs)
        finally:
            _entry.reset(token)

    return apply_async


def _current_app() -> Any:
    from celery import current_app  # noqa: PLC0415 - Celery is there when this runs

    return current_app._get_current_object()  # noqa: SLF001 - what is behind Celery's own proxy
