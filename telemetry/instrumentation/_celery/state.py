"""
Which attempt runs here, and which failure was recorded last.

Three modules ask: the one that runs attempts, the one that completes them from the main process, and
the log filter. The attempt hangs on the request that Celery pushes for it, so that nothing stays
behind and two runs of one task id are not mixed up.
"""

from collections import deque
from typing import Any, Final, Protocol

from telemetry.instrumentation._celery.message import Message

_KEY: Final = "_otelier_attempt"
_last: list[object] = [None]
_failed: deque[str] = deque(maxlen=64)
"""The last tasks whose failure an attempt has recorded in this process."""


class Running(Protocol):
    """An attempt that runs in this thread, as the main process's receivers see it."""

    message: Message

    def failed(self, error: BaseException) -> None:
        """Note the exception that it ends with."""

    def retried(self, reason: Any) -> None:
        """Note why and when there will be another attempt."""


def running(task: Any) -> Any:
    """The `Running` of this task in this thread, or None."""
    return vars(task.request).get(_KEY)


def begin(task: Any, attempt: Running) -> None:
    """The attempt runs from now on."""
    setattr(task.request, _KEY, attempt)


def end(task: Any) -> None:
    """The attempt is over."""
    vars(task.request).pop(_KEY, None)


def ended(task_id: str) -> None:
    """An attempt of this task has recorded its failure here."""
    _failed.append(task_id)


def forget(task_id: str) -> None:
    """Another attempt of this task begins here."""
    while task_id in _failed:
        _failed.remove(task_id)


def has_ended(task_id: object) -> bool:
    """Whether the failure of this task's last attempt was recorded by the attempt itself, here."""
    return task_id in _failed


def recorded(error: BaseException) -> None:
    """This failure was recorded here."""
    _last[0] = error


def has_recorded(error: object) -> bool:
    """Whether the last failure that was recorded here is this one; Celery logs it once more."""
    return error is not None and error is _last[0]
