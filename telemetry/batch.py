"""
Batches: hundreds of items, each slow and paid for, worked on to the end whatever happens.

`BackgroundProcessor` is the whole interface: it gets everything at the start, checks it, and
then runs as often as needed. What a run does is in `_batch_run` (the course), `_batch_attempts`
(one item), `_journal` (the truth for resume), `_progress` (for watchers) and `_batch_ledger` (the
accounts). Nothing is written to stdout unless `results="-"` says so.
"""

import asyncio
import contextlib
import inspect
import os
import re
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from telemetry._batch.journal import FSYNC, digest
from telemetry._batch.plan import Plan
from telemetry._batch.progress import DISPLAYS
from telemetry._batch.run import CANCEL, HALT, Run
from telemetry._batch.source import DUPLICATES
from telemetry._batch.telemetry import SPANS
from telemetry._batch.types import (
    BatchError,
    Cost,
    DuplicateKey,
    ItemContext,
    JournalInUse,
    JournalUnusable,
    Limits,
    Logs,
    Outcome,
    Rate,
    Report,
    Retry,
    RetryAfter,
    Skip,
    Stop,
    is_transient,
    positive,
)

__all__ = [
    "BackgroundProcessor",
    "BatchError",
    "Cost",
    "DuplicateKey",
    "ItemContext",
    "JournalInUse",
    "JournalUnusable",
    "Limits",
    "Logs",
    "Outcome",
    "Rate",
    "Report",
    "Retry",
    "RetryAfter",
    "Skip",
    "Stop",
    "is_transient",
]

T = TypeVar("T")

RESUME = ("unfinished", "failed", "all", False)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class BackgroundProcessor(Generic[T]):
    """
    Works on items with a handler: some at a time, paced, retried, resumable, observable.

    Example:
        processor = BackgroundProcessor("leads", enrich, key=lambda lead: lead["id"], concurrency=8)
        report = processor.run(leads)

    Args:
        name: of the batch; part of run ids and file names.
        handler: `handler(item, ctx)`, a coroutine function, or a function (it runs in a thread).
        key: item -> its identity, by which a later run knows it.
        fingerprint: what the results depend on besides the item, or a function of the item; when it
            differs from that of an earlier run, that run's results do not count.
        concurrency: how many items are worked on at a time.
        rate: how many items may start in a time; a Retry-After always holds back all.
        retry: how often an item is tried; once when it is left out.
        attempt_timeout: seconds for one try.
        item_timeout: seconds for an item, over its tries and the pauses between them.
        deadline: seconds for the run, which then ends with what it has.
        limits: on cost and failures, at which a run stops early.
        journal: file that remembers finished items; without one nothing can be resumed.
        fsync: when the journal survives a power cut: `each` item, `interval` (1 s) or `never`; it
            survives the death of the process always.
        progress_file: JSON file that says how far the run is.
        resume: work on `unfinished` items only, on `failed` ones too, on `all`; False refuses a
            journal that holds results.
        stop: which signals stop a run, and how long running items get then.
        duplicates: two items with one key are an `error`, or `skip` all but the first.
        logs: folder for the outputs debug, production and progress, or `Logs`.
        display: what stderr shows: `bar`, `lines`, `off`, or `auto`, a bar where one can be seen.
        show_items: whether progress may name keys; they can be personal data.
        spans: item spans are `child` spans of the run's span, traces that `link` to it, or `off`.
        results: `-` writes one JSON line per outcome to stdout; a path, to a file.
        keep_outcomes: how many outcomes the report holds; the journal has all.

    Raises:
        ValueError: an argument cannot be used; the text says what can.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[[T, ItemContext], Any],
        *,
        key: Callable[[T], Any],
        fingerprint: Any = None,
        concurrency: int = 8,
        rate: Rate | None = None,
        retry: Retry | None = None,
        attempt_timeout: float | None = None,
        item_timeout: float | None = None,
        deadline: float | None = None,
        limits: Limits | None = None,
        journal: str | os.PathLike[str] | None = None,
        fsync: str = "interval",
        progress_file: str | os.PathLike[str] | None = None,
        resume: str | bool = "unfinished",
        stop: Stop | None = None,
        duplicates: str = "error",
        logs: str | os.PathLike[str] | Logs | None = None,
        display: str = "auto",
        show_items: bool = False,
        spans: str = "child",
        results: str | os.PathLike[str] | None = None,
        keep_outcomes: int = 10_000,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = f"name={name!r} cannot be used; give up to 64 letters, digits, '_', '.', '-'"
            raise ValueError(message)
        given: Any
        words: tuple[Any, ...]
        for argument, given in (("handler", handler), ("key", key)):
            if not callable(given):
                message = f"{argument}={given!r} cannot be called; give a function"
                raise ValueError(message)  # noqa: TRY004 - all bad arguments are ValueErrors
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            message = f"concurrency={concurrency!r} cannot be used; give a whole number, 1 or more"
            raise ValueError(message)
        for argument, given, kind, form in (
            ("retry", retry, Retry, "Retry(attempts=3)"),
            ("rate", rate, Rate, "Rate(5, per=1)"),
            ("limits", limits, Limits, "Limits(failures=0.1)"),
            ("stop", stop, Stop, "Stop(grace=20)"),
        ):
            if given is not None and not isinstance(given, kind):
                message = f"{argument}={given!r} cannot be used; give {form}, or None"
                raise ValueError(message)
        problem = _wrong_arity(handler)
        if problem is not None:
            message = f"handler={handler!r} cannot be called with (item, ctx): {problem}"
            raise ValueError(message)
        for argument, seconds in (
            ("attempt_timeout", attempt_timeout),
            ("item_timeout", item_timeout),
            ("deadline", deadline),
        ):
            positive(argument, seconds)
        for argument, given, words in (
            ("fsync", fsync, FSYNC),
            ("resume", resume, RESUME),
            ("duplicates", duplicates, DUPLICATES),
            ("display", display, DISPLAYS),
            ("spans", spans, SPANS),
        ):
            if given not in words or (given is not False and not isinstance(given, str)):
                choices = ", ".join(map(repr, words))
                message = f"{argument}={given!r} cannot be used; give one of {choices}"
                raise ValueError(message)
        if not callable(fingerprint):
            try:
                fingerprint = digest(fingerprint)
            except Exception as error:
                message = "fingerprint= must be made of texts, numbers, lists; or be a function"
                raise ValueError(message) from error
        self._plan = Plan(
            name=name,
            handler=handler,
            key=key,
            fingerprint=fingerprint,
            concurrency=concurrency,
            rate=rate,
            retry=retry or Retry(attempts=1),
            attempt_timeout=attempt_timeout,
            item_timeout=item_timeout,
            deadline=deadline,
            limits=limits or Limits(),
            journal=None if journal is None else Path(journal),
            fsync=fsync,
            progress_file=None if progress_file is None else Path(progress_file),
            resume=resume,
            stop=stop or Stop(),
            duplicates=duplicates,
            logs=logs if isinstance(logs, Logs) or logs is None else Logs(os.fspath(logs)),
            display=display,
            show_items=show_items,
            spans=spans,
            results=results if results is None or results == "-" else Path(results),
            keep_outcomes=keep_outcomes,
        )
        self._runs: list[Run] = []
        self.report: Report | None = None
        """How the last run ended."""

    def run(self, items: Iterable[T] | AsyncIterable[T], total: int | None = None) -> Report:
        """
        Work on all items; returns when the run is over, however it ends.

        Args:
            items: to work on; any iterable or async iterable.
            total: how many there are, when that is known and `items` has no length.

        Raises:
            BatchError: the run cannot start: a duplicate key, a journal in use.
            RuntimeError: called inside a running event loop; use `await arun()` there.
        """
        if _loop_is_running():
            message = "run() cannot be called inside a running event loop; use `await arun(items)`"
            raise RuntimeError(message)
        loop = asyncio.new_event_loop()
        try:
            task = loop.create_task(self.arun(items, total))
            try:
                return loop.run_until_complete(task)
            except KeyboardInterrupt:  # only where the run does not catch SIGINT itself
                self.stop(now=True)
                loop.run_until_complete(task)
                raise
        finally:
            _close(loop, self._plan.stop.cleanup)

    async def arun(self, items: Iterable[T] | AsyncIterable[T], total: int | None = None) -> Report:
        """The same as `run` in a running event loop; cancelling it cancels the run, in order."""
        return await self._execute(Run(self._plan, items, total))

    async def stream(
        self, items: Iterable[T] | AsyncIterable[T], total: int | None = None
    ) -> AsyncIterator[Outcome]:
        """
        Work on all items and give their outcomes as they come; `report` is set at the end.

        Workers wait until the outcomes are taken. Leaving the loop early cancels what runs.
        """
        outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue(self._plan.concurrency)
        run = Run(self._plan, items, total, outcomes.put)
        task = asyncio.create_task(self._execute(run))
        task.add_done_callback(lambda _: _end(outcomes))
        try:
            while True:
                if task.done() and outcomes.empty():
                    break
                outcome = await outcomes.get()
                if outcome is not None:
                    yield outcome
        finally:
            if not task.done():
                run.stop("stop", CANCEL)
                while not task.done():
                    while not outcomes.empty():
                        outcomes.get_nowait()
                    await asyncio.wait((task,), timeout=0.05)
            if not task.cancelled():
                task.result()

    def main(self, items: Iterable[T] | AsyncIterable[T], total: int | None = None) -> int:
        """`run` for a script's end, `sys.exit(processor.main(items))`: gives the exit code."""
        try:
            return self.run(items, total).exit_code
        except BatchError as error:
            sys.stderr.write(f"{self._plan.name}: {error}\n")
            return error.exit_code

    def stop(self, *, now: bool = False) -> None:
        """
        Stop the runs of this processor as a signal would; from any thread.

        Args:
            now: cancel what runs, instead of giving it the grace time.
        """
        for run in list(self._runs):
            run.request_stop("stop", CANCEL if now else HALT)

    async def _execute(self, run: Run) -> Report:
        """The run as a task of its own, which ends in order when this one is cancelled."""
        self._runs.append(run)
        task = asyncio.ensure_future(run.execute())
        try:
            self.report = await asyncio.shield(task)
        except asyncio.CancelledError:
            run.stop("stop", CANCEL)
            self.report = await task
            raise
        finally:
            self._runs.remove(run)
        return self.report


def _wrong_arity(handler: Any) -> str | None:
    """Why a call with an item and its context would fail, as far as that can be known before."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return None  # written in C, without a signature
    try:
        signature.bind(None, None)
    except TypeError as error:
        return str(error)
    return None


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _end(outcomes: "asyncio.Queue[Outcome | None]") -> None:
    """Wake up a reader that waits for an outcome that will not come."""
    with contextlib.suppress(asyncio.QueueFull):
        outcomes.put_nowait(None)


def _close(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Close a loop without waiting for what will not end; asyncio.run() would wait for ever."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=seconds))
        generators = loop.create_task(loop.shutdown_asyncgens())
        loop.run_until_complete(asyncio.wait((generators,), timeout=seconds))
    finally:
        loop.close()
