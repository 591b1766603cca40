"""
The one thread that changes the durable log: group commits, and jobs between them.

Whatever was given while the last group was forced to disk becomes the next group, in order, so one
fsync serves all requests that wait. Jobs (opening, removing segments, new readers) run in the same
thread and the same order, which is why the log needs no lock.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from collector.wal.format import Record
from collector.wal.segments import Log

T = TypeVar("T")

GROUP_BYTES: Final = 16 << 20
"""A group stops growing here, which bounds how long its first request waits."""


@dataclass(slots=True)
class Append:
    """One record on its way to the disk; `future` gets its number."""

    record: Record
    future: "asyncio.Future[int]"


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    future: "asyncio.Future[Any]"
    then: Callable[[Any], None] | None = None


Settle = Callable[[Sequence[Append], Sequence[Record] | Exception, int], None]
"""(group, its records with numbers or what went wrong, microseconds), called on the loop."""


class Writer:
    """
    The thread.

    Args:
        name: of the thread.
        log: what it works on.
        settle: called for each group.
    """

    def __init__(self, name: str, log: Log, settle: Settle) -> None:
        self._log = log
        self._settle = settle
        self._work: queue.SimpleQueue[Append | _Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work for the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread when it has done what it was given."""
        self._work.put(None)

    def append(self, append: Append) -> None:
        """Write a record with the next group."""
        self._work.put(append)

    def job(
        self, work: Callable[[], T], then: Callable[[T], None] | None = None
    ) -> "asyncio.Future[T]":
        """Run something in the thread; `then` runs on the loop before anything that follows."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.put(_Job(work, future, then))
        return future

    def _run(self) -> None:
        waiting: deque[Append | _Job | None] = deque()
        loop = self._loop
        while loop is not None:
            waiting.append(self._work.get())
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(self._work.get_nowait())
            while waiting:
                first = waiting.popleft()
                if first is None:
                    return
                back: Callable[[], None]
                if isinstance(first, _Job):
                    back = self._do(first)
                else:
                    group, size = [first], len(first.record.payload)
                    while waiting and isinstance(waiting[0], Append) and size < GROUP_BYTES:
                        group.append(waiting[0])
                        size += len(waiting[0].record.payload)
                        waiting.popleft()
                    back = self._commit(group)
                try:
                    loop.call_soon_threadsafe(back)
                except RuntimeError:
                    return  # the loop is closed: nothing waits any more

    def _commit(self, group: Sequence[Append]) -> Callable[[], None]:
        """Write a group; what the loop is to do then."""
        began = time.perf_counter_ns()
        outcome: Sequence[Record] | Exception
        try:
            outcome = self._log.write([each.record for each in group])
        except Exception as error:
            outcome = error
        micros = (time.perf_counter_ns() - began) // 1000
        return lambda: self._settle(group, outcome, micros)

    def _do(self, job: _Job) -> Callable[[], None]:
        """Run a job; what the loop is to do then."""
        try:
            result = job.work()
        except BaseException as error:
            failure = error
            return lambda: None if job.future.done() else job.future.set_exception(failure)

        def finish() -> None:
            if job.future.done():
                return
            if job.then is not None:
                job.then(result)
            job.future.set_result(result)

        return finish
