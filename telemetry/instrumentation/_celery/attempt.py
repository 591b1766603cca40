"""
One attempt, in the process that runs it: from `task_prerun` to `task_postrun`.

Everything about an attempt hangs on the request that Celery pushes for it, so that two runs of one
task id, and eager tasks inside tasks, cannot be mixed up, and nothing stays behind.

The attempt begins in an empty scope: what a task before has left in this thread is gone. Trace and
baggage come from the message in each mode; in link mode only the parent span is taken out, and a
link is kept. An eager task is a call, not a message: it keeps its caller's scope and trace.

An attempt that a signal broke off leaves no record here: the main process writes it, because it does
so also for a child that could not.
"""

import os
import sys
import time
from contextvars import Token
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current

from telemetry import attributes
from telemetry._context import scope
from telemetry._context.recorded import already_recorded
from telemetry._logs import root
from telemetry._traces import span
from telemetry.instrumentation._celery import (
    events,
    logs,
    message,
    metrics,
    options,
    publish,
)
from telemetry.instrumentation._celery import (
    state as attempts,
)
from telemetry.instrumentation._celery.options import guarded

_CALLED_OFF: Final = (SystemExit, KeyboardInterrupt)


class Attempt:
    """
    An attempt that runs here.

    Args:
        task: the task.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    def __init__(self, task: Any, args: Any, kwargs: Any) -> None:
        request = task.request
        self.message = message.read(vars(request), task.app)
        self.message.name = task.name
        self.facts = self.message.attributes
        self.facts[attributes.CELERY_TASK_NAME] = task.name
        self._task = task
        self._arguments = (args, kwargs)
        self._eager = bool(request.is_eager)
        self._fallback = request.root_id or request.id
        self._link = self._links(request)
        self._span: trace.Span = trace.INVALID_SPAN
        self._scope: Token[Any] | None = None
        self._token: Token[Context] | None = None
        self._before = _resources() if options.current().resources else None
        self._begun = time.perf_counter()
        self.error: BaseException | None = None
        self.expected = False
        self.delay: float | None = None

    def _links(self, request: Any) -> bool:
        mode = options.mode_of(self._task)
        if mode == "auto":
            waits = bool(request.eta) or self.message.retries > 0
            # the body of a chord has the group too, but no place in it
            return waits or (bool(request.group) and request.group_index is not None)
        return mode == "link"

    def begin(self) -> None:
        """Attach scope and trace, start the span, record that it began."""
        known = scope.current_context() if self._eager else {}
        self._scope = scope.enter_empty()
        base = get_current() if self._eager else self.message.context
        remote = trace.get_current_span(base).get_span_context()
        links = []
        if self._link and not self._eager and remote.is_valid:
            links = [trace.Link(remote)]
            base = trace.set_span_in_context(trace.INVALID_SPAN, base)
        # Without a current span at first: the ids that follow are facts about the new span only.
        self._token = attach(trace.set_span_in_context(trace.INVALID_SPAN, base))
        args, kwargs = self._arguments
        ids = message.complete(
            {**self.message.ids},
            task=self._task,
            args=args,
            kwargs=kwargs,
            fallback=self._fallback,
            skip={*known, *_arrived(base)},
        )
        operation = f"task.{self._task.name}"
        scope.bind_context(**{**known, **ids, "task_id": self.message.id, "operation": operation})
        waited = None if self._eager else self.message.waited(time.time())
        if waited is not None:
            self.facts[attributes.CELERY_TASK_WAIT_MS] = round(waited * 1000, 3)
            metrics.waited(self.message, waited)
        self._span = message.tracer().start_span(
            f"process {self._task.name}",
            context=base,
            kind=trace.SpanKind.CONSUMER,
            links=links,
            attributes={
                **self.facts,
                attributes.MESSAGING_OPERATION_NAME: "process",
                attributes.MESSAGING_OPERATION_TYPE: "process",
            },
        )
        attach(trace.set_span_in_context(self._span, base))
        self._record(attributes.CELERY_STARTED, "Task started", "STARTED")
        if not self._eager and message.pool:
            events.hurry()

    def end(self, outcome: Any, retval: Any) -> None:
        """Record how it ended, end the span, and put scope and trace back."""
        try:
            self._finish(outcome, retval)
        finally:
            self._span.end()
            if self._token is not None:
                detach(self._token)
            if self._scope is not None:
                scope.leave(self._scope)

    def _finish(self, outcome: Any, retval: Any) -> None:
        seconds = time.perf_counter() - self._begun
        self.facts[attributes.EXECUTION_TIME_MS] = round(seconds * 1000, 3)
        self.facts[attributes.EXECUTION_STATUS] = (
            "success" if outcome in ("SUCCESS", "IGNORED") else "error"
        )
        if self._before is not None:
            cpu, memory = _resources()
            self.facts[attributes.CELERY_TASK_CPU_S] = round(cpu - self._before[0], 6)
            self.facts[attributes.CELERY_TASK_MEMORY_DELTA] = memory - self._before[1]
        if outcome not in _ENDS:
            current = sys.exc_info()[1]
            if current is None or isinstance(current, _CALLED_OFF):
                # a time limit, `revoke(terminate=True)`, a worker that stops: the main process records it
                kind = "_OTHER" if current is None else span.error_type(current)
                self._mark(error_type=kind, failed=True)
                return
            outcome, self.error = "FAILURE", self.error or current
        if outcome == "RETRY" and self.error is None:
            self._explain_retry(retval)
        if outcome == "REJECTED":
            self.facts[attributes.CELERY_TASK_REQUEUED] = bool(getattr(retval, "requeue", False))
        if outcome in ("REJECTED", "IGNORED"):
            why = getattr(retval, "reason", None) or (
                retval.args[0] if isinstance(retval, BaseException) and retval.args else None
            )
            if why is not None:
                self.facts[attributes.CELERY_TASK_REASON] = events.reason(why)
        cause = None if self.error is None else span.error_type(self.error)
        self._mark(error_type=cause, failed=outcome == "FAILURE")
        metrics.ended(self.message, outcome, cause, seconds)
        event, body, severity = _ENDS[outcome]
        if self.expected:
            severity = events.WARN
        if outcome == "FAILURE":
            attempts.ended(self.message.id)
        recorded = self.error is None or outcome == "RETRY" or already_recorded(self.error)
        self._record(event, body, outcome, severity, None if recorded else self.error)
        # What is under way here goes on to the main process, and its mark with it.
        already_recorded(sys.exc_info()[1])

    def _mark(self, *, error_type: str | None, failed: bool) -> None:
        """Put on the span what is known at the end."""
        if failed:
            self._span.set_status(trace.StatusCode.ERROR)
        if error_type is not None:
            self.facts[attributes.ERROR_TYPE] = error_type
        self._span.set_attributes(self.facts)

    def _record(
        self,
        event: str,
        body: str,
        outcome: str,
        severity: Any = events.INFO,
        error: BaseException | None = None,
    ) -> None:
        self._span.set_attribute(attributes.CELERY_TASK_STATE, outcome)
        found = {
            **self.facts,
            attributes.CELERY_TASK_STATE: outcome,
            attributes.OPERATION: f"task.{self._task.name}",
        }
        events.record(event, body, found, severity=severity, error=error)

    def retried(self, reason: Any) -> None:
        """Note why and when there will be another attempt."""
        self._explain_retry(reason)

    def _explain_retry(self, reason: Any) -> None:
        self.error = getattr(reason, "exc", None)
        self.delay = message.retry_delay(getattr(reason, "when", None))
        if self.delay is not None:
            self.facts[attributes.CELERY_TASK_RETRY_DELAY] = self.delay
        why = self.error if self.error is not None else getattr(reason, "message", None)
        if why is not None:
            self.facts[attributes.CELERY_TASK_REASON] = events.reason(why)

    def failed(self, error: BaseException) -> None:
        """Note the exception; that of the task itself, where Celery passes a stand-in on."""
        current = sys.exc_info()[1]
        self.error = error if current is None else current
        throws = getattr(self._task, "throws", None) or ()
        self.expected = isinstance(self.error, throws)


_ENDS: Final = {
    "SUCCESS": (attributes.CELERY_SUCCEEDED, "Task completed", events.INFO),
    "FAILURE": (attributes.CELERY_FAILED, "Task failed", events.ERROR),
    "RETRY": (attributes.CELERY_RETRIED, "Task retrying", events.WARN),
    "REJECTED": (attributes.CELERY_REJECTED, "Task rejected", events.WARN),
    "IGNORED": (attributes.CELERY_IGNORED, "Task ignored", events.INFO),
}


@guarded("prerun")
def begin(task: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    """Receiver of `task_prerun`."""
    root.ensure()
    logs.ensure()
    attempt = Attempt(task, args, kwargs)
    attempts.forget(attempt.message.id)
    attempts.begin(task, attempt)  # first, so that postrun resets what a failure here leaves
    attempt.begin()


@guarded("postrun")
def end(task: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
    """Receiver of `task_postrun`."""
    publish.finish(None)
    attempt = attempts.running(task)
    if attempt is not None:
        attempts.end(task)
        attempt.end(state, retval)


def _arrived(base: Context) -> set[str]:
    """The keywords of the ids that the baggage brings."""
    names = scope.arrived_ids(base)
    return {attributes.CONTEXT.get(name, name) for name in names}


def _resources() -> tuple[float, int]:
    """CPU seconds of this thread, and resident bytes of this process."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - five times faster than Path
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        resident = 0
    return time.thread_time(), resident
