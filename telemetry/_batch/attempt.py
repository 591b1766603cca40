"""
Trying one item until it has an outcome.

Each attempt is a task of its own that catches everything, SystemExit and KeyboardInterrupt
included. Its worker waits for a future that is settled by the attempt's end, by a timer, or by the
decision to wait no longer. So a handler that swallows its cancellation, or blocks a
thread for ever, costs its item and not the run. Timers exist only where there is a limit.

A function runs in a thread, which cannot be cancelled: it is asked (`ctx.cancelled`). If it never
looked and returns late, its result counts, because it was paid for. While it still runs, the item
is not tried again, because it would be paid for twice.
"""

import asyncio
import functools
import inspect
import random
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from types import FrameType
from typing import Any, Final

from telemetry import _diagnostics, _values
from telemetry._batch.event_loop import LATE_S, LoopWatch
from telemetry._batch.plan import Plan
from telemetry._batch.rate_limit import Limiter, paused, retry_after
from telemetry._batch.source import Entry
from telemetry._batch.threads import Threads
from telemetry._batch.types import (
    CANCELLATION,
    FAILURE,
    SKIP,
    SUCCESS,
    TIMEOUT,
    Cost,
    ItemContext,
    Skip,
)
from telemetry._context import spending
from telemetry._traces.span import error_type

Enter = Callable[[], None]
"""Makes an item current in the running task."""
STUCK_THREADS: Final = 64
"""So many threads may hang in handlers before new calls have to wait."""

ENDED: Final = "ended"
ABANDONED: Final = "abandoned"
"""Why an attempt is waited for no longer."""

_spending = threading.Lock()
_abandoned: list[Any] = []
"""Tasks that would not end: kept, because the interpreter complains about those it collects."""


class LoopBlocked(TimeoutError):
    """An attempt that had no time, because another handler blocked the event loop."""


class Unprintable(Exception):
    """Stands in for an error whose own `__str__` fails."""


class Running:
    """
    An attempt that is under way.

    Args:
        context: what its handler knows.
        enter: makes its item current.
        over: settled at its end, or when it is waited for no longer.
        in_thread: whether the handler is a plain function.
        began: when, in monotonic seconds.
    """

    __slots__ = (
        "began",
        "blocked_at",
        "context",
        "enter",
        "excused",
        "good",
        "in_thread",
        "over",
        "started",
        "task",
        "timed_out",
        "timer",
        "value",
    )

    def __init__(
        self,
        context: ItemContext,
        enter: Enter,
        over: "asyncio.Future[str]",
        in_thread: bool,
        began: float,
    ) -> None:
        self.context = context
        self.enter = enter
        self.over = over
        self.in_thread = in_thread
        self.began = began
        self.task: asyncio.Task[None] | None = None
        self.started = False
        self.timer: asyncio.TimerHandle | None = None
        self.timed_out = False
        self.excused = False
        """Whether its timer fired late, because another handler blocked the loop."""
        self.blocked_at: str | None = None
        """Where it blocked the loop itself."""
        self.good = False
        """Whether the handler returned."""
        self.value: Any = None
        """What it returned or raised."""

    def cancel(self) -> None:
        """Ask it to end; a thread can only be asked politely."""
        if self.over.done():
            return
        self.context.cancel()
        if self.in_thread or self.task is None:
            return
        self.task.cancel()
        if not self.started:  # and so it never will, nor say that it is over
            self.value = asyncio.CancelledError()
            self.settle(ENDED)

    def settle(self, why: str) -> None:
        """Wake up its worker."""
        if not self.over.done():
            self.over.set_result(why)


class Attempts:
    """
    Tries items.

    Args:
        plan: what to do.
        run_id: of the run.
        limiter: lets attempts start.
        halt: set when nothing shall be tried again.
        total: the cost of the run.
        all_runs: the cost of all runs on the journal so far.
        attempted: called at each attempt's end, with its error type.
        over_budget: called, from any thread, when the cost limit is reached.
        interrupted: called when a handler raised KeyboardInterrupt.
    """

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        *,
        limiter: Limiter,
        halt: asyncio.Event,
        total: Cost,
        all_runs: Cost,
        attempted: Callable[[str | None], None],
        over_budget: Callable[[], None],
        interrupted: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self._limiter = limiter
        self._halt = halt
        self._total = total
        self._all_runs = all_runs
        self._attempted = attempted
        self._over_budget = over_budget
        self._interrupted = interrupted
        self._loop = asyncio.get_running_loop()
        self._in_thread = not _is_async(plan.handler)
        self._watch = None if self._in_thread else LoopWatch(self._blocked)
        self._threads = Threads(plan.concurrency + STUCK_THREADS, f"batch {plan.name}")
        self._cancelling = False
        self.running: dict[str, Running] = {}
        self.abandoned = 0

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()
        if self._watch is not None:
            self._watch.close()

    def cancel(self) -> None:
        """Ask all that runs to end, and wait for it no longer than the clean-up time."""
        if not self._cancelling:
            self._cancelling = True
            for running in list(self.running.values()):
                running.cancel()
            self._loop.call_later(self._plan.stop.cleanup, self._give_up)

    def _give_up(self) -> None:
        for running in list(self.running.values()):
            running.settle(ABANDONED)

    def sweep(self) -> None:
        """Settle attempts that other code has cancelled before they began."""
        for running in list(self.running.values()):
            if running.task is not None and running.task.done() and not running.over.done():
                running.value = asyncio.CancelledError()
                running.settle(ENDED)

    async def outcome(self, entry: Entry, cost: Cost, enter: Enter) -> tuple[str, Any, int]:
        """
        Try until there is an outcome: (outcome, result or error, attempts).

        Args:
            entry: the item.
            cost: what it costs is added here.
            enter: makes the item current in the task of an attempt.
        """
        plan, retry = self._plan, self._plan.retry
        spent = 0.0
        attempt = 0
        while True:
            attempt += 1
            limit = plan.attempt_timeout
            last = False
            if plan.item_timeout is not None and (
                limit is None or plan.item_timeout - spent <= limit
            ):
                limit, last = plan.item_timeout - spent, True
            context = ItemContext(entry.key, attempt, self._run_id, cost, self._spend, self._hold)
            began = time.monotonic()
            word, value, over = await self._attempt(entry.item, context, limit, began, enter)
            if word not in (FAILURE, TIMEOUT):
                self._attempted(None)
                return word, value, attempt
            self._attempted(error_type(value))
            spent += time.monotonic() - began
            if (asked := retry_after(value)) is not None:
                self._limiter.cool_down(asked)
            if last and word == TIMEOUT:
                return word, value, attempt
            if not over or attempt >= retry.attempts or not retry.wants(value):
                return word, value, attempt
            first, longest = retry.backoff
            pause = random.uniform(0, min(longest, first * 2 ** min(attempt - 1, 60)))
            if plan.item_timeout is not None and spent + pause >= plan.item_timeout:
                return word, value, attempt
            if await paused(pause, self._halt) or not await self._limiter.acquire():
                return CANCELLATION, value, attempt
            spent += pause

    async def _attempt(
        self, item: Any, context: ItemContext, limit: float | None, began: float, enter: Enter
    ) -> tuple[str, Any, bool]:
        """One attempt: (outcome, result or error, whether it has really ended)."""
        in_thread = self._in_thread
        over: asyncio.Future[str] = self._loop.create_future()
        running = Running(context, enter, over, in_thread, began)
        call = self._call_in_thread if in_thread else self._call
        task = running.task = self._loop.create_task(call(item, running))
        self.running[context.key] = running
        if limit is not None:
            self._arm(running, max(limit, 0.0))
        if self._cancelling:
            running.cancel()
        try:
            why = await over
        finally:
            self.running.pop(context.key, None)
            if running.timer is not None:
                running.timer.cancel()
        value = running.value
        if running.good and not context.asked:
            return SUCCESS, value, True
        if context.asked:
            asked_word = TIMEOUT if running.timed_out else CANCELLATION
            asked_error = _late(running, limit) if running.timed_out else None
            if why == ABANDONED:
                self._abandon(task)
                return asked_word, asked_error, False
            if not (running.good and in_thread and not context.noticed):
                # What a cancelled handler returns is no result, unless it never knew.
                return asked_word, asked_error, True
        if running.good:
            return SUCCESS, value, True
        if isinstance(value, Skip):
            return SKIP, value, True
        if isinstance(value, KeyboardInterrupt) and self._interrupted():
            return CANCELLATION, None, True
        return FAILURE, tame(value), True

    def _arm(self, running: Running, seconds: float) -> None:
        due = self._loop.time() + seconds
        running.timer = self._loop.call_at(due, self._expire, running, due)

    def _expire(self, running: Running, due: float) -> None:
        late = self._loop.time() - due
        if late > LATE_S and not running.excused and running.blocked_at is None:
            # Others had the loop: it gets the time that it lost, once, before it is judged.
            running.excused = True
            self._arm(running, late)
            return
        running.timed_out = True
        running.cancel()
        self._loop.call_later(self._plan.stop.cleanup, running.settle, ABANDONED)

    def _blocked(self, frame: FrameType) -> None:
        """Say which handler blocks the loop, and where; called from another thread."""
        name = getattr(self._plan.handler, "__qualname__", type(self._plan.handler).__name__)
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        outer: FrameType | None = frame
        while outer is not None:
            running = outer.f_locals.get("running") if outer.f_code is _CALL else None
            if isinstance(running, Running):
                running.blocked_at = place
                text = (
                    f"{self._plan.name}: the handler {name} blocks the event loop at {place}, in"
                    f" {frame.f_code.co_qualname}; all other items wait. Make it a plain function,"
                    " which runs in a thread, or await asyncio.to_thread(...)"
                )
                _diagnostics.say("blocked loop", text, level="error")
                return
            outer = outer.f_back

    def _abandon(self, task: "asyncio.Task[Any]") -> None:
        self.abandoned += 1
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's own switch
        _abandoned.append(task)
        text = f"{self._plan.name}: a handler did not end when cancelled; it is left behind"
        _diagnostics.say("abandoned", text)

    async def _call(self, item: Any, running: Running) -> None:
        running.started = True
        running.enter()
        spending.open_account(running.context.spend, self._plan.limits.currency)
        try:
            running.value = await self._plan.handler(item, running.context)
            running.good = True
        except BaseException as error:
            running.value = error
        running.settle(ENDED)

    async def _call_in_thread(self, item: Any, running: Running) -> None:
        context = running.context

        def call() -> Any:
            if context.cancelled:  # it waited for a thread, and is not waited for any more
                raise asyncio.CancelledError
            return self._plan.handler(item, context)

        running.started = True
        running.enter()
        spending.open_account(running.context.spend, self._plan.limits.currency)
        try:
            good, value = await self._threads.submit(call)
        except BaseException as error:
            good, value = False, error
        if good and inspect.isawaitable(value):  # a function that returns a coroutine
            running.in_thread = False
            try:
                value = await value
            except BaseException as error:
                good, value = False, error
        running.good, running.value = good, value
        running.settle(ENDED)

    def _spend(self, cost: Cost, amount: Decimal, tokens_in: int, tokens_out: int) -> None:
        """Called by handlers, from any thread."""
        with _spending:
            for each in (cost, self._total, self._all_runs):
                each.add(amount, tokens_in, tokens_out)
        if self.exhausted is not None:
            self._over_budget()

    @property
    def exhausted(self) -> float | None:
        """The limit of cost that is reached."""
        limits = self._plan.limits
        for limit, spent in ((limits.cost, self._all_runs), (limits.run_cost, self._total)):
            if limit is not None and spent.amount >= limit:
                return limit
        return None

    def _hold(self, seconds: float) -> None:
        """Called by handlers, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._limiter.cool_down, seconds)


_CALL: Final = Attempts._call.__code__  # noqa: SLF001 - the frame that is looked for


def _late(running: Running, limit: float | None) -> TimeoutError:
    """Why it timed out: by itself, or because the loop was blocked."""
    text = f"no end within {limit:.3g} s"
    if running.blocked_at is not None:
        return TimeoutError(f"{text}; it blocked the event loop at {running.blocked_at}")
    if running.excused:
        return LoopBlocked(f"{text}; another handler blocked the event loop meanwhile")
    return TimeoutError(text)


def describe(error: BaseException) -> tuple[str, str]:
    """Error type and text; `tame` errors only."""
    return error_type(error), _values.text(error)


def tame(error: BaseException) -> BaseException:
    """The error, or a stand-in when its text would do harm."""
    try:
        str(error)
        repr(error)
    except BaseException:
        return Unprintable(_values.unprintable(error)).with_traceback(error.__traceback__)
    return error


def _is_async(handler: Any) -> bool:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - the question is what calling it gives
    )
