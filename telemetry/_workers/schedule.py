"""
When statistics are due although no order comes, and at the end of the process.

One daemon thread per process serves all workers; the first order of a process starts it, so that
importing and forking start nothing. The exit hook is registered once the pipeline of `telemetry`
exists: hooks run in reverse order, so ours writes before the pipeline sends what is left. A child
of multiprocessing leaves without exit hooks but runs finalizers, so it gets one.

A worker that is not closed is kept until the end of the process, since its last numbers are due
then; beyond 256 of them the oldest is closed.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from telemetry import _diagnostics, _values
from telemetry._config import configure

KEPT: Final = 256
_LONGEST_S: Final = 3600.0


class Due(Protocol):
    """Something that has statistics to write at times."""

    def due(self) -> float:
        """When, in monotonic seconds."""

    def tick(self) -> None:
        """Write what is due."""

    def close(self) -> None:
        """Write the last statistics."""


_workers: dict[int, Due] = {}
_changed = threading.Condition(threading.RLock())
_state = {"thread": False, "exit": False}


def watch(worker: Due) -> bool:
    """
    Keep an eye on a worker, from its first order in this process on.

    Returns:
        Whether the exit of the process is taken care of; if not, call again.
    """
    oldest = None
    with _changed:
        if id(worker) not in _workers:
            _workers[id(worker)] = worker
            if len(_workers) > KEPT:
                oldest = _workers.pop(next(iter(_workers)))
            if not _state["thread"]:
                _state["thread"] = _start()
            _changed.notify_all()
        if not _state["exit"] and configure.pipeline() is not None:
            _state["exit"] = True
            _at_the_end()
    if oldest is not None:
        _guarded(oldest.close)
    return _state["exit"]


def forget(worker: Due) -> None:
    """The worker is closed."""
    with _changed:
        _workers.pop(id(worker), None)


def _start() -> bool:
    try:
        threading.Thread(target=_run, name="otelier-workers", daemon=True).start()
    except RuntimeError:
        return False  # the interpreter is going down: the exit hook writes what is due
    return True


def _run() -> None:
    pid = os.getpid()
    while os.getpid() == pid:
        with _changed:
            now = time.monotonic()
            late = [worker for worker in _workers.values() if worker.due() <= now]
            if not late:
                first = min(
                    (worker.due() for worker in _workers.values()), default=now + _LONGEST_S
                )
                _changed.wait(min(first - now, _LONGEST_S))
        for worker in late:
            _guarded(worker.tick)


def _at_the_end() -> None:
    atexit.register(_close_all)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing import util  # noqa: PLC0415 - loaded already, in such a child

        # finalizers of a higher priority run first; that of the pipeline has 100
        util.Finalize(None, _close_all, exitpriority=200)


def _close_all() -> None:
    with _changed:
        workers = list(_workers.values())
    for worker in workers:
        _guarded(worker.close)


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:
        _diagnostics.say("statistics", f"statistics were not written: {_values.text(error)}")


def _after_fork() -> None:
    global _changed  # noqa: PLW0603 - another thread of the parent may have held its lock
    _changed = threading.Condition(threading.RLock())
    _workers.clear()
    _state.update(thread=False, exit=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
