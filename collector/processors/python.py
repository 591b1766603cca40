"""
The python processor: a function of the user's, named by an import string.

    def enrich(batch):                 # or async def
        for item in batch:
            item.attributes["region"] = item.resource.get("cloud.region", "unknown")
            if item.name == "GET /health":
                item.drop()

The function gets a `View` (processors/shared/view.py) of a copy. So a function that fails or takes too long half-way
has changed nothing, and one that cannot be stopped (a thread cannot) may go on with its copy for
as long as it likes. Threads are few: while all of them hang, batches run into their time budget.

A plain function runs in a thread and an async one on the loop, where it must not block.
"""

import asyncio
import contextlib
import importlib
import inspect
import threading
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from collector.errors import CollectorError, Retryable
from collector.model import Batch, Consume, Duration, Host
from collector.otlp import count
from collector.processors.shared.view import Item as Item
from collector.processors.shared.view import View as View
from collector.processors.shared.work import (
    arrived,
    dropped,
    handed_on,
)
from collector.stats import QuietLog

THREADS: Final = 4
"""Calls of a plain function at once; more wait for their turn, within their time budget."""


class TimeBudget(Exception):
    """The function took longer than it may."""


class Python:
    """Calls a function with every batch."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the python processor."""

        function: str
        """The function, as `package.module:name`. It must be importable by the collector."""
        options: dict[str, Any] = {}
        """Passed to the function as keyword arguments."""
        time_budget: Duration = Duration(5)
        """How long one call may take, waiting for a free thread included."""
        error_mode: Literal["propagate", "ignore", "drop"] = "propagate"
        """When the function raises or takes too long: `propagate` refuses the batch, the sender
        tries again; `ignore` passes it on unchanged; `drop` drops it."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if self.time_budget <= 0:
                raise ValueError("time_budget must be greater than zero")

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.config = config
        self.host = host
        self.next = next
        self._function = imported(config.function)
        self._quiet_log = QuietLog(host.log)
        self._turn = asyncio.Semaphore(THREADS)

    @staticmethod
    def check(config: Config) -> list[str]:
        """What the types cannot say: whether the function is there."""
        try:
            imported(config.function)
        except ValueError as error:
            return [f"function: {error}"]
        return []

    async def __call__(self, batch: Batch) -> None:
        """Call the function and hand on what it made of the batch, if anything is left."""
        amount = arrived(self.host, batch)
        try:
            batch = await self._call(batch)
        except Exception as error:
            reason = "time_budget" if isinstance(error, TimeBudget) else "function_failed"
            self._failed(error, reason)
            if self.config.error_mode == "drop":
                dropped(self.host, reason, amount)
                return
            if self.config.error_mode == "propagate":
                if isinstance(error, CollectorError):
                    raise
                text = f'processor "{self.host.id}": {type(error).__name__}: {error}'
                raise Retryable(text) from error
        left = count(batch.signal, batch.message)
        dropped(self.host, "function", amount - left)
        if amount and not left:
            return
        handed_on(self.host, batch.signal, left)
        await self.next(batch)

    async def _call(self, batch: Batch) -> Batch:
        """
        A copy of the batch that the function has worked on.

        Raises:
            TimeBudget: it took too long.
            Exception: what the function raised.
        """
        message = type(batch.message)()
        message.CopyFrom(batch.message)
        own = Batch(batch.signal, message, batch.request)
        view = View(own)
        budget_s = self.config.time_budget
        try:
            async with asyncio.timeout(budget_s):
                if inspect.iscoroutinefunction(self._function):
                    result = await self._function(view, **self.config.options)
                else:
                    result = await self._in_thread(view)
        except TimeoutError as error:
            raise TimeBudget(f"{self.config.function} took longer than {budget_s:g} s") from error
        if result is not None:
            text = f"{self.config.function} returned a {type(result).__name__}; change the batch"
            raise TypeError(f"{text} in place, and return nothing")
        view.finish()
        return own

    async def _in_thread(self, view: View) -> Any:
        """Run the function in a thread of its own; daemons, so that none can hold up the exit."""
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            result, error = None, None
            try:
                result = self._function(view, **self.config.options)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
                loop.call_soon_threadsafe(self._settle, done, result, error)

        threading.Thread(target=run, name=f"python {self.host.id}", daemon=True).start()
        return await done

    def _settle(
        self, done: "asyncio.Future[Any]", result: Any, error: BaseException | None
    ) -> None:
        self._turn.release()
        if done.done():
            return
        if error is None:
            done.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            done.set_exception(error)
        else:  # sys.exit() in the function must not end the collector
            done.set_exception(RuntimeError(f"{self.config.function} raised {error!r}"))

    def _failed(self, error: Exception, reason: str) -> None:
        self.host.stats.add("otelier_processor_errors", processor=self.host.id, reason=reason)
        fate = {"propagate": "refused", "ignore": "passed on unchanged", "drop": "dropped"}
        planned = isinstance(error, TimeBudget | CollectorError)
        self._quiet_log.warning(
            "%s failed, the batch is %s: %s: %s",
            self.config.function,
            fate[self.config.error_mode],
            type(error).__name__,
            error,
            error=None if planned else error,
        )


def imported(name: str) -> Callable[..., Any]:
    """
    The function behind an import string.

    Raises:
        ValueError: there is none; the message says what is wrong.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ValueError(f'"{name}" is no import string; write it as package.module:function')
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the module is the user's, and may raise anything
        raise ValueError(f'cannot import "{name}": {type(error).__name__}: {error}') from error
    problem = f'"{name}" is a {type(found).__name__}, which cannot be called'
    if callable(found):
        function: Callable[..., Any] = found
        return function
    raise ValueError(problem)
