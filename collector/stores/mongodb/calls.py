"""Blocking calls of the driver in a few threads of their own, never traced, until the store closes."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from opentelemetry.instrumentation.utils import suppress_instrumentation

from collector.errors import Retryable

T = TypeVar("T")


class Calls:
    """
    Some threads.

    Args:
        name: of the threads.
        threads: how many.
        closed: what a call is told that comes too late.
    """

    def __init__(self, name: str, threads: int, closed: str) -> None:
        self.closing = False
        """Whether calls are refused by now."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._closed = closed

    async def all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Run calls at once; when one fails, its error, after all have ended."""
        if self.closing:
            raise Retryable(self._closed)
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._run, call) for call in calls),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value] # no exception is left in it

    async def one(self, call: Callable[[], T]) -> T:
        """Run one call."""
        (found,) = await self.all([call])
        return found

    async def stop(self) -> None:
        """Let running calls end (each has its deadline), refuse those that wait."""
        self.closing = True
        await asyncio.to_thread(self._pool.shutdown)

    def abandon(self, last: Callable[[], None]) -> None:
        """Refuse what waits and wait for nothing; `last` runs behind the running call."""
        self.closing = True
        with contextlib.suppress(RuntimeError):  # stopped: then the client ends it
            self._pool.submit(last)
        self._pool.shutdown(wait=False)

    def _run(self, call: Callable[[], T]) -> T:
        if self.closing:
            raise Retryable(self._closed)
        with suppress_instrumentation():
            return call()
