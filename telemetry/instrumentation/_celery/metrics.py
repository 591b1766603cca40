"""
The metrics of tasks: few labels with few values, and buckets in seconds.

Labels are task, queue, state and `error.type`. A label never takes more than a bounded number of
values, since routing keys and exception classes come from data; what is beyond becomes `_OTHER`.

Attempts that run are counted by the worker's main process, which sees its children die: a child
that was killed could never take back what it had counted. The other instruments belong to the
process that saw the end of an attempt.
"""

import functools
import os
from collections import Counter
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from telemetry import _diagnostics, _values
from telemetry import attributes as names
from telemetry.instrumentation._celery.message import Message

OTHER: Final = "_OTHER"
VALUES: Final = 200
"""So many different values may a label have."""

_seen: dict[str, set[str]] = {}
_active_seen: set[tuple[str, str]] = set()
_observed_by = 0


def bounded(label: str, value: str) -> str:
    """The value, or `_OTHER` when the label has too many."""
    seen = _seen.setdefault(label, set())
    if value in seen:
        return value
    if len(seen) >= VALUES:
        return OTHER
    seen.add(value)
    return value


def waited(message: Message, seconds: float) -> None:
    """An attempt began that had waited so long."""
    _wait().record(seconds, _labels(message))


def ended(message: Message, state: str, error: str | None, seconds: float | None) -> None:
    """An attempt ended; `seconds` is None when it never began."""
    labels = {**_labels(message), names.CELERY_TASK_STATE: state}
    if error is not None:
        labels[names.ERROR_TYPE] = bounded(names.ERROR_TYPE, error)
    _outcomes().add(1, labels)
    if seconds is not None:
        more = {
            names.MESSAGING_SYSTEM: message.attributes[names.MESSAGING_SYSTEM],
            names.MESSAGING_OPERATION_NAME: "process",
        }
        _duration().record(seconds, {**labels, **more})


def unknown(queue: str, state: str, error: str) -> None:
    """A message ended that is no task of this worker."""
    labels = {
        names.CELERY_TASK_NAME: OTHER,
        names.MESSAGING_DESTINATION: bounded(names.MESSAGING_DESTINATION, queue),
        names.CELERY_TASK_STATE: state,
        names.ERROR_TYPE: bounded(names.ERROR_TYPE, error),
    }
    _outcomes().add(1, labels)


def redelivered(message: Message) -> None:
    """A message came again."""
    _redeliveries().add(1, _labels(message))


def overlapped(message: Message) -> None:
    """A message came whose task the worker holds already."""
    _overlaps().add(1, _labels(message))


def observe_active() -> None:
    """Count what runs, in this process and not in its children."""
    global _observed_by  # noqa: PLW0603 - one main process per worker
    first = _observed_by == 0
    _observed_by = os.getpid()
    if first:
        metrics.get_meter("telemetry").create_observable_up_down_counter(
            names.CELERY_TASK_ACTIVE, [_active], "{task}", "Attempts that run now."
        )


def _active(_: CallbackOptions) -> list[Observation]:
    if _observed_by != os.getpid():
        return []
    try:
        from celery.worker import state  # noqa: PLC0415 - only in a worker, where it is there

        running: Counter[tuple[str, str]] = Counter()
        for request in list(state.active_requests):
            queue = request.delivery_info.get("routing_key") or ""
            name = bounded(names.CELERY_TASK_NAME, _values.text(request.type, _values.ID_TEXT))
            running[name, bounded(names.MESSAGING_DESTINATION, str(queue))] += 1
        _active_seen.update(running)
        return [
            Observation(
                running[name, queue],
                {names.CELERY_TASK_NAME: name, names.MESSAGING_DESTINATION: queue},
            )
            for name, queue in sorted(_active_seen)
        ]
    except Exception as error:
        _diagnostics.say("celery active", f"active tasks: {_values.text(error)}", level="error")
        return []


def _labels(message: Message) -> dict[str, Any]:
    return {
        names.CELERY_TASK_NAME: bounded(names.CELERY_TASK_NAME, message.name),
        names.MESSAGING_DESTINATION: bounded(names.MESSAGING_DESTINATION, message.queue),
    }


@functools.cache
def _duration() -> metrics.Histogram:
    return metrics.get_meter("telemetry").create_histogram(
        names.MESSAGING_PROCESS_DURATION,
        "s",
        "How long attempts took.",
        explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_S,
    )


@functools.cache
def _wait() -> metrics.Histogram:
    return metrics.get_meter("telemetry").create_histogram(
        names.CELERY_TASK_WAIT_DURATION,
        "s",
        "How long tasks waited for a worker.",
        explicit_bucket_boundaries_advisory=names.WAIT_BUCKETS_S,
    )


@functools.cache
def _outcomes() -> metrics.Counter:
    return metrics.get_meter("telemetry").create_counter(
        names.CELERY_TASK_OUTCOMES, "{task}", "How attempts ended."
    )


@functools.cache
def _redeliveries() -> metrics.Counter:
    return metrics.get_meter("telemetry").create_counter(
        names.CELERY_TASK_REDELIVERIES, "{task}", "Messages that had been delivered before."
    )


@functools.cache
def _overlaps() -> metrics.Counter:
    return metrics.get_meter("telemetry").create_counter(
        names.CELERY_TASK_OVERLAPS, "{task}", "Messages whose task the worker held already."
    )
