"""
The accounts of a run: what came of the items, what it cost, and what to say about it.

Every item of the input is in exactly one column: an outcome, or not started. `verdict` is the one
place where the end of a run becomes a verdict and an exit code.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

from telemetry import _diagnostics, _values
from telemetry._batch import journal, progress
from telemetry._batch.plan import Plan
from telemetry._batch.source import Source
from telemetry._batch.throughput import Throughput
from telemetry._batch.types import (
    CANCELLATION,
    FAILURE,
    FAILURES,
    LOOP_BLOCKED,
    OUTCOMES,
    RESUMED,
    SKIP,
    SUCCESS,
    TIMEOUT,
    Cost,
    Outcome,
    Report,
)

LAST_ERRORS: Final = 5
KEYS_SHOWN: Final = 100
LEAST_DONE: Final = 50
"""Of an unknown number of items so many are done before a share of them says anything."""
ERROR_KINDS: Final = 1000
ERROR_TEXT: Final = 500


class Totals:
    """
    Counts.

    Args:
        plan: what the run does.
        run_id: of the run.
        attempt: 1 for the first run on a journal.
    """

    def __init__(self, plan: Plan, run_id: str, attempt: int) -> None:
        self._plan = plan
        self._run_id = run_id
        self._attempt = attempt
        self._host = socket.gethostname()
        self._began = time.monotonic()
        self._errors: dict[str, dict[str, Any]] = {}
        self._last_errors: deque[dict[str, Any]] = deque(maxlen=LAST_ERRORS)
        self.limited = bool(plan.limits.consecutive_failures) or plan.limits.failures is not None
        self._in_a_row = 0
        self._failed_earlier = 0
        self._outcomes: list[Outcome] = []
        self._interrupted: list[str] = []
        self.throughput: Throughput | None = None
        self.counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.cost = Cost()
        self.cost_all_runs = Cost()
        self.current: str | None = None
        self.unstarted: list[str] = []
        self.unrecorded: list[journal.Line] = []

    def begin(self) -> None:
        """The first item starts, or could."""
        self._began = time.monotonic()

    def count(self, outcome: Outcome) -> None:
        """One item has ended."""
        self.counts[outcome.outcome] += 1
        if len(self._outcomes) < self._plan.keep_outcomes:
            self._outcomes.append(outcome)
        if outcome.earlier in (FAILURE, TIMEOUT):
            self._failed_earlier += 1
        if outcome.outcome == CANCELLATION or outcome.error_type == LOOP_BLOCKED:
            self._interrupted.append(outcome.key)
        if outcome.outcome == SUCCESS:
            self._in_a_row = 0
        elif outcome.outcome in (FAILURE, TIMEOUT):
            self._in_a_row += 1
            self._count_error(outcome)

    def completed(self, now: float, *outcomes: Outcome) -> None:
        """The handler has worked on these items, until `now` (monotonic): they count for the rate."""
        durations = [each.duration_s for each in outcomes if each.outcome != CANCELLATION]
        if durations and self.throughput is not None:
            self.throughput.completed(now, *durations)

    def broken_limit(self, source: Source) -> str | None:
        """The limit that the failures have broken, in this run and in those before."""
        limits, total = self._plan.limits, source.total
        if limits.consecutive_failures and self._in_a_row >= limits.consecutive_failures:
            return "consecutive_failures"
        if limits.failures is not None:
            of = total if total is not None else max(self.processed, LEAST_DONE)
            if self.failed + self._failed_earlier > limits.failures * of:
                return "failures"
        return None

    @property
    def failed(self) -> int:
        """Items that failed in this run."""
        return self.counts[FAILURE] + self.counts[TIMEOUT]

    @property
    def processed(self) -> int:
        """Items that need no more work."""
        return self.counts.total() - self.counts[CANCELLATION]

    def snapshot(
        self, state: str, result: str | None, total: int | None, ages: Iterable[float] = ()
    ) -> dict[str, Any]:
        """The content of the progress file."""
        now = time.monotonic()
        remaining = None if total is None else max(total - self.processed, 0)
        estimate = None
        if self.throughput is not None:
            estimate = self.throughput.estimate(now, remaining, self._plan.concurrency, ages)
        elapsed = now - self._began
        eta = None if estimate is None else estimate.seconds
        between = None if estimate is None else estimate.between
        wall = time.time()
        share = None if total is None else 100.0 if total == 0 else 100 * self.processed / total
        return {
            "schema": progress.SCHEMA,
            "operation": self._plan.name,
            "run_id": self._run_id,
            "pid": os.getpid(),
            "host": self._host,
            "state": state,
            "result": result,
            "processed": self.processed,
            "total": total,
            "percentage": None if share is None else round(share, 2),
            "rate_per_second": 0.0 if estimate is None else round(estimate.rate, 3),
            "elapsed_seconds": round(elapsed, 3),
            "eta_seconds": None if eta is None or state == "finished" else round(eta, 1),
            "eta_range": None
            if between is None or state == "finished"
            else [round(end, 1) for end in between],
            "current_item": self.current if self._plan.show_items else None,
            "counts": {name: self.counts[name] for name in OUTCOMES if name != RESUMED},
            "resumed": self.counts[RESUMED],
            "cost": {
                "amount": round(self.cost.amount, 6),
                "tokens_in": self.cost.tokens_in,
                "tokens_out": self.cost.tokens_out,
            },
            "last_errors": list(self._last_errors),
            "timestamp": progress.timestamp(wall),
            "heartbeat": round(wall, 3),
        }

    def report(
        self,
        *,
        total: int | None,
        exhausted: bool,
        untaken: list[str],
        stopped_by: str | None,
        signal: int | None,
        abandoned: int,
        cost_limit: float | None,
    ) -> Report:
        """How it ended."""
        not_started = None if total is None else total - self.counts.total()
        complete = exhausted and not_started == 0 and not self._interrupted and not self.unrecorded
        limit = self._plan.limits.failures
        share = FAILURES if limit is None else limit
        result, code = verdict(
            self.failed + self._failed_earlier,
            self.counts[SUCCESS] + self.counts[SKIP] + self.counts[RESUMED] - self._failed_earlier,
            share,
            None if complete else stopped_by or (LOOP_BLOCKED if self._interrupted else None),
            signal,
        )
        durations = None if self.throughput is None else self.throughput.durations
        return Report(
            name=self._plan.name,
            run_id=self._run_id,
            attempt=self._attempt,
            result=result,
            stopped_by=None if complete and result == "success" else stopped_by,
            exit_code=code,
            total=total,
            counts=dict(self.counts),
            not_started=not_started,
            not_started_keys=tuple([*self.unstarted, *untaken][:KEYS_SHOWN]),
            interrupted=tuple(self._interrupted),
            unrecorded=tuple(str(line.key) for line in self.unrecorded),
            errors={
                kind: {**seen, "keys": tuple(seen["keys"])} for kind, seen in self._errors.items()
            },
            cost=self.cost,
            cost_all_runs=self.cost_all_runs,
            cost_limit=cost_limit,
            failures_limit=share,
            duration_s=time.monotonic() - self._began,
            item_p50_s=None if durations is None else durations.quantile(0.5),
            item_p95_s=None if durations is None else durations.quantile(0.95),
            abandoned=abandoned,
            outcomes=tuple(self._outcomes),
        )

    def _count_error(self, outcome: Outcome) -> None:
        kind = outcome.error_type or "_OTHER"
        if kind not in self._errors and len(self._errors) >= ERROR_KINDS:
            kind = "_OTHER"
        seen = self._errors.setdefault(kind, {"count": 0, "keys": []})
        seen["count"] += 1
        if len(seen["keys"]) < LAST_ERRORS:
            seen["keys"].append(outcome.key)
        self._last_errors.append(
            {
                "key": outcome.key if self._plan.show_items else None,
                "error_type": kind,
                "message": _values.bounded(outcome.error or "", ERROR_TEXT),
                "timestamp": progress.timestamp(time.time()),
            }
        )


def verdict(
    failed: int, good: int, share: float, stopped_by: str | None, signal: int | None
) -> tuple[str, int]:
    """
    The word for a run and its exit code.

    Args:
        failed: items that failed, in earlier runs too.
        good: all other items that are done.
        share: of items that may fail.
        stopped_by: why items are left; None when none are.
        signal: the one that stopped it.
    """
    if stopped_by is None:
        bad = failed > share * (failed + good)
        return ("failure", 1) if bad else ("success", 0)
    if stopped_by == "signal":
        return "cancellation", 128 + (signal or 0)
    if stopped_by == "deadline":
        return ("partial" if failed + good else "timeout"), 124
    if stopped_by == "failures":
        return "failure", 1
    if stopped_by == "cost":
        return "budget", 75
    if stopped_by == "stop":
        return "cancellation", 75
    return ("partial" if good else "failure"), 75


class Results:
    """
    One JSON line per outcome and one for the whole run; the only thing that is ever on stdout.

    Args:
        target: `-` for stdout, a path, or None for nowhere.
        goes_on: after an earlier run: what it has written stays, and what was resumed is not repeated.
    """

    def __init__(self, target: str | Path | None, *, goes_on: bool = False) -> None:
        self._written: set[object] = set()
        self._out: IO[str] | None = None
        self._close = False
        self.wanted = target is not None
        if target == "-":
            self._out = sys.stdout
        elif target is not None:
            path = Path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = True
            if goes_on and path.exists():
                self._written, whole = _written(path)
            self._out = path.open("a" if goes_on else "w", encoding="utf-8")
            if not whole:
                self._out.write("\n")  # a line that a kill has torn
            self._close = True

    def add(self, outcome: Outcome) -> None:
        """Write an outcome."""
        if self._out is None or (outcome.outcome == RESUMED and outcome.key in self._written):
            return
        line = {
            "type": "item",
            "key": outcome.key,
            "outcome": outcome.outcome,
            "earlier": outcome.earlier,
            "result": outcome.result,
            "error_type": outcome.error_type,
            "error": outcome.error,
            "attempts": outcome.attempts,
            "duration_s": round(outcome.duration_s, 6),
            "cost": outcome.cost.amount,
        }
        self._write(
            journal.encoded({key: value for key, value in line.items() if value is not None})
        )

    def summary(self, report: Report) -> None:
        """Write the end."""
        line = {
            "type": "summary",
            "operation": report.name,
            "run_id": report.run_id,
            "result": report.result,
            "exit_code": report.exit_code,
            "stopped_by": report.stopped_by,
            "total": report.total,
            "counts": report.counts,
            "not_started": report.not_started,
            "cost": report.cost.amount,
            "tokens_in": report.cost.tokens_in,
            "tokens_out": report.cost.tokens_out,
            "duration_s": round(report.duration_s, 3),
        }
        if self._out is not None:
            self._write(json.dumps(line).encode())

    def close(self) -> None:
        """Let go of the file."""
        if self._close and self._out is not None:
            self._out.close()

    def _write(self, line: bytes) -> None:
        try:
            if self._out is not None:
                self._out.write(line.decode() + "\n")
                self._out.flush()
        except (OSError, ValueError) as error:
            self._out = None
            _diagnostics.say("results", f"results cannot be written on: {_values.text(error)}")


def _written(path: Path) -> tuple[set[object], bool]:
    """The keys of the items in a file of results, and whether its last line is whole."""
    keys: set[object] = set()
    raw = b"\n"
    with path.open("rb") as file:
        for raw in file:
            with contextlib.suppress(ValueError, AttributeError):
                line = json.loads(raw)
                if line.get("type") == "item" and isinstance(line.get("key"), str):
                    keys.add(line["key"])
    return keys, raw.endswith(b"\n")
