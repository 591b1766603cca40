"""
One run of a batch, from opening the journal to the report.

A fixed number of workers pull items from the source, so there is no queue to bound. What becomes of
an outcome is in `recorder`. A ticker reports how far the run is, once a second. Where items have
spans, workers whose items ended together begin their next ones one after the other (`event_loop`).

A run stops in steps. Halt: nothing new starts, no item is tried again, what runs is finished.
Cancel: what runs is asked to end. After the clean-up time it is left behind.
"""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Final

from telemetry import _diagnostics, _values
from telemetry._batch import journal as journals
from telemetry._batch import output_files, stop_signals
from telemetry._batch import progress as _progress
from telemetry._batch.attempt import Attempts, LoopBlocked, describe, tame
from telemetry._batch.event_loop import Stagger
from telemetry._batch.journal import digest
from telemetry._batch.plan import Plan
from telemetry._batch.rate_limit import Limiter, paused
from telemetry._batch.recorder import Recorder
from telemetry._batch.results import Totals
from telemetry._batch.source import Entry, Source
from telemetry._batch.telemetry import Observer
from telemetry._batch.threads import Threads
from telemetry._batch.throughput import Throughput
from telemetry._batch.types import (
    FAILURE,
    LOOP_BLOCKED,
    RESUMED,
    SKIP,
    SUCCESS,
    TIMEOUT,
    Cost,
    Outcome,
    Report,
)

HALT: Final = 1
CANCEL: Final = 2
TICK_S: Final = 1.0
EVENT_EVERY_S: Final = 10.0
BREATH: Final = 100
"""After so many resumed items in a row the loop gets a turn."""


class Run:
    """
    One run.

    Args:
        plan: what to do.
        items: to work on.
        total: how many, if the caller knows and the items do not.
        deliver: awaited with each outcome, in the order in which they come.
    """

    def __init__(
        self,
        plan: Plan,
        items: Iterable[Any] | AsyncIterable[Any],
        total: int | None,
        deliver: Callable[[Outcome], Awaitable[None]] | None = None,
    ) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.run_id = f"{plan.name}-{stamp}-{secrets.token_hex(3)}"
        self._plan = plan
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._halt = asyncio.Event()
        self._wake = asyncio.Event()
        self._state = "pending"
        self._ended = False
        self._caught = False
        self._stopped_by: str | None = None
        self._signal: int | None = None
        self._attempts: Attempts | None = None
        self._stagger = Stagger()
        self._io = Threads(1, f"batch {plan.name} files")
        self._source = Source(items, plan.key, plan.duplicates, total, self._halt)

    async def execute(self) -> Report:
        """Do it; raises BatchError when it cannot start, and otherwise always reports."""
        plan = self._plan
        with contextlib.ExitStack() as stack:
            stack.callback(self._io.close)
            self._journal = journals.opened(plan, self.run_id, stack)
            attempt = 1 if self._journal is None else self._journal.runs + 1
            outputs = output_files.opened(plan, stack)
            log_event = None if outputs is None else outputs.event
            log_line = None if outputs is None else outputs.progress
            self._results = output_files.results_of(plan, goes_on=attempt > 1)
            stack.callback(self._results.close)
            self._totals = Totals(plan, self.run_id, attempt)
            if self._journal is not None:
                self._totals.cost_all_runs = self._journal.spent
            self._file = output_files.progress_file(plan)
            self._display = _progress.Display(plan.display, log_line)
            self._observer = Observer(plan.name, self.run_id, attempt, plan.spans, log_event)
            stack.enter_context(self._observer.run())
            stack.callback(self._observer.close)
            self._recorder = Recorder(
                plan,
                self.run_id,
                journal=self._journal,
                totals=self._totals,
                observer=self._observer,
                results=self._results,
                source=self._source,
                files=self._io,
                deliver=self._deliver,
                stop=functools.partial(self.stop, step=HALT),
            )
            rate = plan.rate
            interval, burst = (0.0, 1) if rate is None else (rate.per / rate.count, rate.burst)
            self._limiter = Limiter(interval, burst, self._halt)
            attempts = self._attempts = Attempts(
                plan,
                self.run_id,
                limiter=self._limiter,
                halt=self._halt,
                total=self._totals.cost,
                all_runs=self._totals.cost_all_runs,
                attempted=self._observer.attempted,
                over_budget=functools.partial(self.request_stop, "cost", HALT),
                interrupted=self._interrupted,
            )
            stack.callback(attempts.close)
            caught = stop_signals.caught(plan.stop.signals, self._on_signal)
            self._caught = stack.enter_context(caught)
            return await self._work(attempts)

    def stop(self, reason: str, step: int, given: int | None = None) -> None:
        """Stop at this step, for this reason; the first reason counts. Loop's thread only."""
        if self._ended:
            return
        if self._stopped_by is None:
            self._stopped_by, self._signal = reason, given
        if not self._halt.is_set():
            self._halt.set()
            self._state = "draining"
            self._wake.set()
            if reason in ("signal", "stop"):
                self._loop.call_later(self._plan.stop.grace, self.stop, reason, CANCEL)
        if step >= CANCEL and self._attempts is not None:
            self._attempts.cancel()

    def request_stop(self, reason: str, step: int, given: int | None = None) -> None:
        """The same from any thread or signal handler."""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self.stop, reason, step, given)

    def _on_signal(self, given: int, step: int) -> None:
        self.request_stop("signal", step, given)

    def _interrupted(self) -> bool:
        """A handler got KeyboardInterrupt: Ctrl-C, unless signals are caught and it made it up."""
        if not self._caught:
            self.stop("signal", CANCEL, 2)
        return not self._caught

    async def _work(self, attempts: Attempts) -> Report:
        plan = self._plan
        if self._file is not None:
            self._io.submit(functools.partial(self._file.write, self._snapshot()))
        self._observer.started(self._source.total)
        self._totals.begin()
        if not self._halt.is_set():
            self._state = "running"
        progress = self._snapshot()
        self._observer.progress(progress, _progress.line(progress))
        timer = None
        if plan.deadline is not None:
            timer = self._loop.call_later(plan.deadline, self.stop, "deadline", CANCEL)
        ticker = self._loop.create_task(self._tick())
        self._wake.set()
        workers = [self._loop.create_task(self._worker(attempts)) for _ in range(plan.concurrency)]
        ended = await asyncio.gather(*workers, return_exceptions=True)
        self._ended = True
        if timer is not None:
            timer.cancel()
        self._wake.set()
        await ticker
        report = self._finish(attempts)
        for bug in ended:
            if isinstance(bug, BaseException):
                raise bug
        return report

    def _finish(self, attempts: Attempts) -> Report:
        """Write the last state everywhere: the journal first, it is the truth."""
        self._recorder.catch_up()
        self._recorder.retry_unrecorded()
        report = self._totals.report(
            total=self._source.total,
            exhausted=self._source.exhausted,
            untaken=self._source.untaken(100),
            stopped_by=self._stopped_by,
            signal=self._signal,
            abandoned=attempts.abandoned,
            cost_limit=attempts.exhausted if self._stopped_by == "cost" else None,
        )
        self._recorder.close(report.result)
        self._state = "finished"
        progress = self._snapshot(report.result)
        if self._file is not None:
            self._file.write(progress)
        self._display.show(progress, time.monotonic())
        self._display.close(progress)
        self._observer.flush(report.not_started)
        self._observer.finished(report, progress)
        self._results.summary(report)
        return report

    def _snapshot(self, result: str | None = None) -> dict[str, Any]:
        self._recorder.catch_up()
        now = time.monotonic()
        running = [] if self._attempts is None else self._attempts.running.values()
        ages = [now - attempt.began for attempt in running]
        return self._totals.snapshot(self._state, result, self._source.total, ages)

    async def _tick(self) -> None:
        """Once a second, and at each change of state: show it everywhere."""
        event_due = time.monotonic() + EVENT_EVERY_S
        while True:
            await paused(TICK_S, self._wake)
            self._wake.clear()
            if self._ended:
                return
            try:
                if self._attempts is not None:
                    self._attempts.sweep()
                progress = self._snapshot()
                now = time.monotonic()
                self._display.show(progress, now)
                if now >= event_due:
                    event_due = now + EVENT_EVERY_S
                    self._observer.progress(progress, _progress.line(progress))
                total = self._source.total
                self._observer.flush(None if total is None else total - progress["processed"])
                if self._file is not None:
                    await self._io.submit(functools.partial(self._file.write, progress))
                if self._plan.fsync == "interval":
                    await self._recorder.sync()
            except Exception as error:
                _diagnostics.say("batch ticker", f"progress: {_values.text(error)}", level="error")

    async def _worker(self, attempts: Attempts) -> None:
        source = self._source
        while not self._halt.is_set():
            entry = await source.take() if source.waits else source.take_now()
            if entry is not None:
                if await self._entry(entry, attempts) and self._observer.live:
                    await self._stagger.wait()
                continue
            if source.error is not None and self._stopped_by is None:
                text = f"the items cannot be read on: {describe(tame(source.error))[1]}"
                _diagnostics.say("items", text, level="error", always=True)
                self.stop("source", HALT)
            return

    async def _entry(self, entry: Entry, attempts: Attempts) -> bool:
        """One item of the input, from start to end; gives whether it was worked on."""
        if entry.duplicate:
            skipped = self._plan.duplicates == "skip"
            outcome = Outcome(
                key=entry.key,
                outcome=SKIP if skipped else FAILURE,
                error_type=None if skipped else "duplicate_key",
                error=None if skipped else "an item with this key came before",
                started=time.time(),
                item=entry.item,
            )
            self._observer.refused(outcome)
            await self._recorder.settle(outcome)
            return False
        fingerprint, problem = _fingerprint(self._plan.fingerprint, entry)
        journal = None if problem is not None else self._journal
        if journal is not None and journal.is_done(entry.key, fingerprint, self._plan.resume):
            await self._resume(entry)
        elif attempts.exhausted is not None:  # by the runs before, so that nothing began here
            self.stop("cost", HALT)
            self._totals.unstarted.append(entry.key)
        elif problem is not None or self._limiter.free or await self._limiter.acquire():
            await self._work_on(entry, attempts, fingerprint, problem)
            return True
        else:
            self._totals.unstarted.append(entry.key)
        return False

    async def _resume(self, entry: Entry) -> None:
        line: dict[str, Any] = {}
        if self._journal is not None:
            with contextlib.suppress(OSError, ValueError):
                line = self._journal.read(entry.key)
        outcome = Outcome(
            key=entry.key,
            outcome=RESUMED,
            result=line.get("result"),
            error_type=line.get("error_type"),
            error=line.get("error"),
            earlier=line.get("outcome"),
            item=entry.item,
        )
        self._observer.resumed()
        await self._recorder.settle(outcome)
        if self._totals.counts[RESUMED] % BREATH == 0:
            await asyncio.sleep(0)

    async def _work_on(
        self, entry: Entry, attempts: Attempts, fingerprint: str, problem: BaseException | None
    ) -> None:
        totals = self._totals
        totals.current = entry.key
        if totals.throughput is None:
            totals.throughput = Throughput(time.monotonic())
        item = self._observer.item(entry.key)
        try:
            started, began, cost = time.time(), time.monotonic(), Cost()
            if problem is not None:
                word, value, tries = FAILURE, problem, 0
            else:
                word, value, tries = await attempts.outcome(entry, cost, item.enter)
            item.begin()  # of an item that never was: its key is bad, or the run stopped first
            error = value if word != SUCCESS and isinstance(value, BaseException) else None
            error_type, text = (None, None) if error is None else describe(error)
            now = time.monotonic()
            outcome = Outcome(
                key=entry.key,
                outcome=word,
                result=value if word == SUCCESS else None,
                error_type=_label(word, value, error_type),
                error=text,
                attempts=tries,
                started=started,
                duration_s=now - began,
                cost=cost,
                item=entry.item,
            )
            await self._recorder.record(outcome, fingerprint, keyed=entry.problem is None)
        except BaseException:  # a bug of ours, or the loop is torn down
            self._observer.lost(item)
            raise
        await self._recorder.ended(item, outcome, error, now)


def _label(word: str, value: object, error_type: str | None) -> str | None:
    if word != TIMEOUT:
        return error_type
    return LOOP_BLOCKED if isinstance(value, LoopBlocked) else "timeout"


def _fingerprint(given: Any, entry: Entry) -> tuple[str, BaseException | None]:
    """What the result of an item depends on, as a short text, or why there is none."""
    if entry.problem is not None:
        return "", tame(entry.problem)
    if isinstance(given, str):
        return given, None  # the same for all items
    try:
        return digest(given(entry.item)), None
    except BaseException as error:
        return "", tame(error)
