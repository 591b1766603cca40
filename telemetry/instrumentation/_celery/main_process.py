"""
What only the worker's main process sees: hard time limits, lost processes, revoked and expired
tasks, messages that are no tasks, messages that come twice.

Its receivers complete an attempt from the message: Celery's request object, kept by weak reference
since it came in, still has all headers. The record joins the trace and the ids that travelled with
the message. Celery reports a hard time limit twice, so the request is marked.

In the solo and threads pools the main process is also the one that runs tasks; a failure of an
attempt that still runs here belongs to `attempt`.
"""

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from opentelemetry.context import attach, detach

from telemetry import attributes as names
from telemetry._context import scope as context
from telemetry._context.recorded import already_recorded, is_recorded
from telemetry._traces import span
from telemetry.instrumentation._celery import (
    broker,
    events,
    metrics,
    state,
)
from telemetry.instrumentation._celery import (
    message as celery_message,
)
from telemetry.instrumentation._celery.events import ERROR, INFO, WARN
from telemetry.instrumentation._celery.options import guarded

DEDUPLICATED: Final = "deduplicated"
"""Why Celery skips a task: a copy of it has succeeded before."""

_held: "WeakValueDictionary[str, Any]" = WeakValueDictionary()


def forget() -> None:
    """In a child: what the parent has received is not ours."""
    _held.clear()


@guarded("received")
def received(request: Any = None, **_: Any) -> None:
    """Receiver of `task_received`."""
    message = celery_message.read(request.request_dict, request.app)
    broker.check_eta(message)
    overlapping = _holds(_held.get(request.id), request, message.retries)
    _held[request.id] = request
    if message.redelivered:
        metrics.redelivered(message)
    if overlapping:
        metrics.overlapped(message)
    if overlapping or message.redelivered:
        found = {**message.attributes, names.CELERY_TASK_OVERLAPPING: overlapping}
        with _as_sent(message, request.kwargs):
            events.record(names.CELERY_RECEIVED, "Task received again", found, severity=WARN)


def _holds(other: Any, request: Any, retries: int) -> bool:
    """Whether the worker still has another copy of the same attempt, running or waiting."""
    from celery.worker import state as held_by  # noqa: PLC0415 - only in a worker, where it is there

    if other is None or other is request or other.request_dict.get("retries", 0) != retries:
        return False
    return any(
        other in held
        for held in (
            held_by.active_requests,
            held_by.reserved_requests,
            held_by.scheduled_requests,
        )
    )


@guarded("failure")
def failed(sender: Any = None, task_id: Any = None, exception: Any = None, **_: Any) -> None:
    """Receiver of `task_failure`, here and in the process that runs the task."""
    run = state.running(sender)
    if run is not None and run.message.id == task_id:
        run.failed(exception)
        return
    if type(exception).__name__ == "Reject":
        return  # the process that ran the task has recorded it
    if is_recorded(exception) or state.has_ended(task_id) or _left_an_attempt(exception):
        # The same: what is no Exception, or comes from a hook such as `on_failure`, leaves the attempt
        # after its end, and goes on to the main process. The mark travels with the exception.
        state.recorded(exception)
        return
    request = _held.get(task_id)
    if request is not None:
        _end(request, exception)
        return
    own = sender.request
    if getattr(own, "id", None) == task_id:
        _end_of(celery_message.read(vars(own), sender.app), own.kwargs, exception, None)


def _left_an_attempt(error: Any) -> bool:
    """Whether an exception has come out of an attempt in a child that lives, and that records it."""
    if (
        isinstance(error, (SystemExit, KeyboardInterrupt))
        or type(error).__name__ == "InvalidTaskError"
    ):
        return False
    remote = getattr(error, "__cause__", None)  # as billiard gives it on
    return type(remote).__name__ == "RemoteTraceback" and "in trace_task" in str(remote)


def _end(request: Any, error: BaseException, *, requeued: bool = False) -> None:
    """The end of an attempt whose process could not record it."""
    if already_recorded(request):
        return
    events.inherit()
    message = celery_message.read(request.request_dict, request.app)
    if requeued:
        message.attributes[names.CELERY_TASK_REQUEUED] = True
    _end_of(message, request.kwargs, error, _seconds(request))


def _end_of(
    message: celery_message.Message, kwargs: Any, error: BaseException, seconds: float | None
) -> None:
    state.recorded(error)
    kind = span.error_type(error)
    outcome = "RETRY" if names.CELERY_TASK_RETRY_DELAY in message.attributes else "FAILURE"
    metrics.ended(message, outcome, kind, seconds)
    lost = type(error).__name__ == "WorkerLostError"
    found = {
        **message.attributes,
        names.CELERY_TASK_STATE: outcome,
        names.EXECUTION_STATUS: "error",
        names.ERROR_TYPE: kind,
    }
    if seconds is not None:
        found[names.EXECUTION_TIME_MS] = round(seconds * 1000, 3)
    event, body = (names.CELERY_LOST, "Task lost") if lost else (names.CELERY_FAILED, "Task failed")
    with _as_sent(message, kwargs):
        events.record(event, body, found, severity=ERROR, error=error)


@guarded("retry")
def retried(sender: Any = None, request: Any = None, reason: Any = None, **_: Any) -> None:
    """Receiver of `task_retry`, here and in the process that runs the task."""
    run = state.running(sender)
    if run is not None and run.message.id == getattr(request, "id", None):
        run.retried(reason)
        return
    held = _held.get(getattr(request, "id", ""))
    error = getattr(reason, "exc", None)
    message = celery_message.read(vars(request), sender.app)
    delay = celery_message.retry_delay(getattr(reason, "when", None))
    message.attributes[names.CELERY_TASK_RETRY_DELAY] = 0.0 if delay is None else delay
    if held is not None and already_recorded(held):
        return
    if isinstance(error, BaseException):  # the process was lost, and the task is sent again
        _end_of(message, request.kwargs, error, None if held is None else _seconds(held))
        return
    metrics.ended(message, "RETRY", None, None if held is None else _seconds(held))
    found = {
        **message.attributes,
        names.CELERY_TASK_STATE: "RETRY",
        names.CELERY_TASK_REASON: "cancelled by the worker",
    }
    with _as_sent(message, request.kwargs):
        events.record(names.CELERY_RETRIED, "Task retrying", found, severity=WARN)


@guarded("revoked")
def revoked(
    sender: Any = None,
    request: Any = None,
    terminated: Any = False,
    expired: Any = False,
    **_: Any,
) -> None:
    """Receiver of `task_revoked`."""
    message = celery_message.read(vars(request), sender.app)
    why = "expired" if expired else "terminated" if terminated else "revoked"
    held = _held.get(message.id)
    seconds = None
    if held is not None:
        already_recorded(held)  # the mark keeps a later signal from recording it again
        seconds = _seconds(held) if terminated else None
    if terminated:
        events.inherit()
    metrics.ended(message, "REVOKED", why, seconds)
    found = {
        **message.attributes,
        names.CELERY_TASK_STATE: "REVOKED",
        names.CELERY_TASK_REASON: why,
        names.ERROR_TYPE: why,
        names.EXECUTION_STATUS: "error",
    }
    if seconds is not None:
        found[names.EXECUTION_TIME_MS] = round(seconds * 1000, 3)
    with _as_sent(message, request.kwargs):
        severity = WARN if expired or terminated else INFO
        events.record(names.CELERY_REVOKED, "Task revoked", found, severity=severity)


@guarded("unknown task")
def unknown(
    sender: Any = None,
    message: Any = None,
    name: Any = None,
    id: Any = None,  # noqa: A002 - Celery's name
    **_: Any,
) -> None:
    """Receiver of `task_unknown`: a message for a task that this worker does not have."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    about = {**headers, "delivery_info": message.delivery_info, "hostname": sender.hostname}
    read = celery_message.read({"id": id, "task": name, **about}, sender.app)
    kind = "celery.exceptions.NotRegistered"
    metrics.unknown(read.queue, "FAILURE", kind)
    found = {
        **read.attributes,
        names.CELERY_TASK_STATE: "FAILURE",
        names.ERROR_TYPE: kind,
        names.EXECUTION_STATUS: "error",
        names.CELERY_TASK_REASON: "the worker has no task of this name: check its imports",
    }
    with _as_sent(read, None):
        events.record(names.CELERY_FAILED, "Task failed", found, severity=ERROR)


@guarded("rejected message")
def rejected(sender: Any = None, message: Any = None, exc: Any = None, **_: Any) -> None:
    """Receiver of `task_rejected`: a message that is no task."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    about = {**headers, "delivery_info": message.delivery_info, "hostname": sender.hostname}
    read = celery_message.read(about, sender.app)
    kind = "_OTHER" if exc is None else span.error_type(exc)
    metrics.unknown(read.queue, "REJECTED", kind)
    found = {
        **read.attributes,
        names.CELERY_TASK_STATE: "REJECTED",
        names.ERROR_TYPE: kind,
        names.EXECUTION_STATUS: "error",
        names.CELERY_TASK_REASON: "the message is no task" if exc is None else events.reason(exc),
    }
    if not headers.get("id"):
        found.pop(names.TASK_ID, None)
        found.pop(names.CELERY_TASK_NAME, None)
    with _as_sent(read, None):
        events.record(names.CELERY_REJECTED, "Task rejected", found, severity=WARN)


def wrap_request(original: Any) -> Any:
    """
    `Request.on_failure`, followed by the record of a lost process.

    Celery sends no signal when a lost task goes back to the queue (`reject_on_worker_lost`).
    """

    @functools.wraps(original)
    def on_failure(self: Any, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, exc_info, *args, **kwargs)
        _after_failure(self, exc_info)
        return result

    return on_failure


def wrap_requests(original: Any) -> Any:
    """
    `create_request_cls` of `celery.worker.strategy`: its class also records what Celery skipped.

    A copy of a task that has succeeded is not run again (`worker_deduplicate_successful_tasks`), and
    no signal is sent. Its success is the only one that took no time at all.
    """

    def create_request_cls(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        succeed = made.on_success

        @functools.wraps(succeed)
        def on_success(self: Any, outcome: Any, **more: Any) -> Any:
            _before_success(self, outcome)
            result = succeed(self, outcome, **more)
            _after_success(self, outcome)
            return result

        made.on_success = on_success
        return made

    return create_request_cls


@guarded("returned failure")
def _before_success(request: Any, outcome: Any) -> None:
    """A failure that a living child returns has been recorded there, if its attempt ever began."""
    if not outcome[0]:
        return
    error = outcome[1].exception
    error = getattr(error, "exc", error)
    if type(error).__name__ != "InvalidTaskError":
        already_recorded(request)
        state.recorded(error)


@guarded("skipped task")
def _after_success(request: Any, outcome: Any) -> None:
    failed, _, seconds = outcome
    if failed or seconds is not None:
        return
    message = celery_message.read(request.request_dict, request.app)
    metrics.ended(message, "IGNORED", DEDUPLICATED, None)
    found = {
        **message.attributes,
        names.CELERY_TASK_STATE: "IGNORED",
        names.CELERY_TASK_REASON: DEDUPLICATED,
        names.EXECUTION_STATUS: "success",
    }
    with _as_sent(message, request.kwargs):
        events.record(names.CELERY_IGNORED, "Task ignored", found, severity=WARN)


@guarded("lost task")
def _after_failure(request: Any, exc_info: Any) -> None:
    error = exc_info.exception
    error = getattr(error, "exc", error)
    if type(error).__name__ == "WorkerLostError" and not getattr(
        request, "_already_revoked", False
    ):
        _end(request, error, requeued=True)


def _seconds(request: Any) -> float | None:
    """For how long a request has been running; None if it never began."""
    started = request.time_start
    return None if started is None else max(time.time() - started, 0.0)


@contextmanager
def _as_sent(message: celery_message.Message, kwargs: Any) -> Iterator[None]:
    """The ids and the trace that travelled with a message, for one record."""
    ids = celery_message.complete(
        message.ids,
        task=None,
        args=None,
        kwargs=kwargs,
        fallback=message.attributes.get(names.CELERY_TASK_ROOT_ID) or message.id,
    )
    scope = context.enter_empty()
    token = attach(message.context)
    try:
        name = message.attributes.get(names.CELERY_TASK_NAME)
        operation = f"task.{name}" if name else None
        own: dict[str, Any] = {"task_id": message.id or None, "operation": operation}
        with context.log_context(**{**ids, **own}):
            yield
    finally:
        detach(token)
        context.leave(scope)
