"""
What becomes of an outcome: the journal first, then counts, telemetry, results and its reader.

An outcome is in the journal before it is counted or shown. What the next item waits for is the
journal and nothing else: items that went well are counted, reported and written to the results a
moment later, when the workers have begun their next ones.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from telemetry import _diagnostics, _values
from telemetry._batch.journal import Journal, Line, encode, item_line
from telemetry._batch.plan import Plan
from telemetry._batch.results import Results, Totals
from telemetry._batch.source import Source
from telemetry._batch.telemetry import Item, Observer
from telemetry._batch.threads import Threads
from telemetry._batch.types import Outcome


class Recorder:
    """
    Records the outcomes of one run.

    Args:
        plan: what the run does.
        run_id: of the run.
        journal: open, or None for a run without one.
        totals: of the run.
        observer: its telemetry.
        results: where outcomes are written for others.
        source: of the items; a limit may depend on how many there are.
        files: the thread that waits for the disk.
        deliver: awaited with each outcome, in the order in which they come.
        stop: stops the run before its next item; called with the reason.
    """

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        *,
        journal: Journal | None,
        totals: Totals,
        observer: Observer,
        results: Results,
        source: Source,
        files: Threads,
        deliver: Callable[[Outcome], Awaitable[None]] | None,
        stop: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._run_id = run_id
        self.journal = journal
        self._totals = totals
        self._observer = observer
        self._results = results
        self._source = source
        self._io = files
        self._deliver = deliver
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._settled: list[tuple[Item, Outcome, int]] = []
        self._settled_at = 0.0

    async def record(self, outcome: Outcome, fingerprint: str, *, keyed: bool) -> None:
        """
        Journal an outcome; without a journal that takes it the run cannot go on.

        Args:
            outcome: of an item.
            fingerprint: of what its result depends on.
            keyed: False for an item without a key, which the next run works on again.
        """
        journal = self.journal
        if journal is None:
            return
        line = item_line(self._run_id, outcome, fingerprint, keyed=keyed)
        try:
            journal.append(line)
        except OSError as error:
            self._totals.unrecorded.append(line)
            self._journal_failed(error)
        else:
            if journal.full is not None:
                self._journal_failed(journal.full)
        if self._plan.fsync == "each":
            await self.sync()

    async def ended(
        self, item: Item, outcome: Outcome, error: BaseException | None, now: float
    ) -> None:
        """
        Count, report and deliver an outcome that is in the journal.

        Args:
            item: its span and context.
            outcome: how it ended.
            error: that it ended with.
            now: when, in monotonic seconds.
        """
        if error is None and self._deliver is None:
            if not self._settled:
                # What ended in this turn of the loop is followed in the next, and reported after that.
                self._loop.call_soon(self._loop.call_soon, self.catch_up)
            self._settled.append((item, outcome, time.time_ns()))
            self._settled_at = now
            return
        self.catch_up()
        self._observer.ended(((item, outcome, None),), error)
        self._totals.completed(now, outcome)
        await self.settle(outcome)

    def catch_up(self) -> None:
        """Count and report what was put off."""
        if not self._settled:
            return
        settled, self._settled = self._settled, []
        self._observer.ended(settled, None)
        outcomes = [outcome for _, outcome, _ in settled]
        self._totals.completed(self._settled_at, *outcomes)
        for outcome in outcomes:
            self._count(outcome)

    async def settle(self, outcome: Outcome) -> None:
        """Count an outcome and deliver it."""
        self._count(outcome)
        if self._deliver is not None:
            await self._deliver(outcome)

    def _count(self, outcome: Outcome) -> None:
        self._totals.count(outcome)
        if self._results.wanted:
            self._results.add(outcome)
        if self._totals.limited and (broken := self._totals.broken_limit(self._source)) is not None:
            self._stop(broken)

    def retry_unrecorded(self) -> None:
        """Journal what a full disk refused before; what still fails is in the report."""
        for line in list(self._totals.unrecorded):
            with contextlib.suppress(OSError):
                self._append(line)
                self._totals.unrecorded.remove(line)

    def close(self, result: str) -> None:
        """Write the end of the run to the journal, and put it on disk."""
        try:
            self._append(Line(encode({"type": "end", "run_id": self._run_id, "result": result})))
            if self.journal is not None:
                self.journal.sync()
        except OSError as error:
            text = f"{self._plan.journal}: the end is not on disk ({error.strerror})"
            _diagnostics.say("journal", text, level="error", always=True)

    def _append(self, line: Line) -> None:
        if self.journal is not None:
            self.journal.append(line)

    async def sync(self) -> None:
        """Put the journal on disk."""
        if self.journal is not None:
            synced, error = await self._io.submit(self.journal.sync)
            if not synced:
                self._journal_failed(error)

    def _journal_failed(self, error: BaseException) -> None:
        text = (
            f"{self._plan.journal}: the journal cannot be written ({_values.text(error)}); stopping"
        )
        _diagnostics.say("journal", text, level="error")
        self._stop("journal")
