"""
Daemon threads for blocking calls: handlers that are plain functions, fsync, file replacement.

Not a ThreadPoolExecutor: the interpreter joins its threads at exit, so that one handler that never
returns would keep the process for ever. A thread whose call is given up stays busy until the call
returns; new threads make up for it, up to the limit, beyond which calls wait for a free one.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Result = tuple[bool, Any]
"""(True, what the call returned) or (False, what it raised)."""
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Result]", Callable[[], Any]]


class Threads:
    """
    Runs calls in threads.

    Args:
        limit: how many threads at most.
        name: of the threads.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def submit(self, call: Callable[[], Any]) -> "asyncio.Future[Result]":
        """Run `call` with the context variables of now; the future never raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        context = contextvars.copy_context()
        self._jobs.put((loop, future, lambda: context.run(call)))
        if not self._idle.acquire(blocking=False) and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads as they become free; waits for none."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            loop, future, call = job
            result: Result
            try:
                result = True, call()
            except BaseException as error:
                result = False, error
            try:
                loop.call_soon_threadsafe(_answer, future, result)
            except RuntimeError:
                return  # the loop was closed meanwhile: nothing waits for this any more
            del job, loop, future, call, result

    def _next(self) -> _Job | None:
        """The next job; a thread counts as idle only when it has to wait for one."""
        with contextlib.suppress(queue.Empty):
            return self._jobs.get_nowait()
        self._idle.release()
        return self._jobs.get()


def _answer(future: "asyncio.Future[Result]", result: Result) -> None:
    if not future.done():
        future.set_result(result)
