"""
What workers count: per role for the metrics, per worker for its statistics.

The metrics of counters are observable ones that read the same integers as the statistics do: a
count costs an addition and not a measurement of the SDK (which takes twenty times as long), and the
two can never disagree. The numbers of a role outlive its workers, since a sum that goes back is a
restart to every reader. Everything that becomes a label is bounded: roles, reasons, names.

A forked child begins at zero, with new locks: what was counted belongs to the parent. So does a
test's `capture()`, whose metrics are totals since it began: roles show from their next count on.
"""

import functools
import itertools
import math
import os
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry import metrics

from telemetry import _values
from telemetry import attributes as names
from telemetry._config import configure
from telemetry._native import process_id

ROLES: Final = 64
LABELS: Final = 32
SAMPLES: Final = 1024
OTHER: Final = "_OTHER"

PROCESSED: Final = "processed_count"
OUTCOMES: Final = ("success", "failure", "cancelled")
_TALLY: Final = {outcome: f"{outcome}_count" for outcome in OUTCOMES}
TALLIES: Final = (
    PROCESSED,
    *_TALLY.values(),
    "retry_count",
    "fallback_count",
    "pool_error_count",
)
"""What every worker counts, in the order in which it is shown."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_METRICS: Final = {
    names.ORDER_PROCESS_OUTCOMES: (names.ORDER_OUTCOME, "{order}", "Orders processed."),
    names.ORDER_PROCESS_RETRIES: (names.ORDER_REASON, "{retry}", "Attempts repeated."),
    names.ORDER_PROCESS_FALLBACKS: (names.ORDER_REASON, "{fallback}", "Fallbacks used."),
    names.ORDER_PROCESS_POOL_ERRORS: (names.ORDER_REASON, "{error}", "Connection pool errors."),
    names.ORDER_WORKER_COUNTS: (names.ORDER_WORKER_COUNTER, "{count}", "What roles count."),
    names.ORDER_STEP_RUNS: (names.ORDER_STEP_NAME, "{run}", "Steps of orders that were run."),
    names.ORDER_STEP_TIME: (names.ORDER_STEP_NAME, "s", "Time spent in steps of orders."),
}


class RoleCounters:
    """
    The published numbers of one role in this process; its lock guards its workers' numbers too.

    Args:
        role: the label of the role.
        action: the label of what it does.
        counters: what is shown even while it is zero.
    """

    def __init__(self, role: str, action: str, counters: Iterable[str]) -> None:
        self.labels = {names.ORDER_WORKER_ROLE: role, names.ORDER_ACTION: action}
        self.ends = {outcome: {**self.labels, names.ORDER_OUTCOME: outcome} for outcome in OUTCOMES}
        self._counters = tuple(counters)
        self.active = 0
        self.reset()

    def reset(self) -> None:
        """Begin at zero."""
        self.lock = threading.RLock()  # a signal handler may count while its thread counts
        self.shown = False
        self.counts: dict[str, dict[str, float]] = {metric: {} for metric in _METRICS}
        self.counts[names.ORDER_WORKER_COUNTS] = dict.fromkeys(self._counters, 0)
        self.known: dict[str, set[str]] = {}

    def add(self, metric: str, label: str, number: float = 1) -> None:
        """Count; call it with the lock held."""
        self.shown = True
        counts = self.counts[metric]
        counts[label] = counts.get(label, 0) + number

    def label(self, kind: str, given: str) -> str:
        """`given`, if it can be a label and there are not too many of the kind; else `_OTHER`."""
        known = self.known.get(kind)
        if known is None:
            known = self.known.setdefault(kind, set())
        if given in known:
            return given
        given = "_".join(given.split())
        if given in known:
            return given
        if len(known) >= LABELS or not _NAME.fullmatch(given):
            return OTHER
        known.add(given)
        return given


class WorkerCounters:
    """
    What one worker has done in this process: since its last statistics, and before them.

    An order counts in the window only; the statistics that end a window add it to the sum of those
    before, so that what each order pays for is paid once.

    Args:
        shared: of the worker's role.
        counters: what the role counts.
    """

    def __init__(self, shared: RoleCounters, counters: Iterable[str]) -> None:
        self.shared = shared
        self.pid = process_id()
        self.instance = uuid.uuid4().hex[:16]
        self.sequence = 0
        self.active = 0
        self.counters = dict.fromkeys(counters, 0)
        self._steps: dict[str, tuple[str, str, str | None]] = {}
        self.before = Before(time.monotonic())
        self.window = Window(self.before.since)
        self.closed = False

    def tally(self, what: str) -> None:
        """Count one of `TALLIES`; call it with the lock held."""
        self.window.tallies[what] += 1

    def ended(self, outcome: str, seconds: float) -> None:
        """An order has ended; call it with the lock held."""
        self.active -= 1
        window, shared = self.window, self.shared
        window.processed += 1
        window.tallies[_TALLY[outcome]] += 1
        window.seconds += seconds
        window.samples.append(seconds)
        shared.active -= 1
        shared.shown = True
        counts = shared.counts[names.ORDER_PROCESS_OUTCOMES]
        counts[outcome] = counts.get(outcome, 0) + 1

    def counted(self, counter: str) -> None:
        """Count one of what the role has declared; call it with the lock held."""
        self.counters[counter] += 1
        counts = self.shared.counts[names.ORDER_WORKER_COUNTS]
        counts[counter] = counts.get(counter, 0) + 1

    def step(self, given: str, counters: Mapping[str, str]) -> tuple[str, str, str | None]:
        """
        A step by its name: its label, its name among the timings, and its counter.

        Args:
            given: the name.
            counters: of the steps that the role counts.
        """
        known = self._steps.get(given)
        if known is None:
            label = self.shared.label("step", given)
            known = label, f"{label}_time_ms", counters.get(label)
            if len(self._steps) < LABELS:
                self._steps[given] = known
        return known

    def ran(self, step: str, seconds: float) -> None:
        """A step has run; call it with the lock held."""
        steps, shared = self.window.steps, self.shared
        runs = steps.get(step)
        if runs is None:
            runs = steps[step] = Runs()
        runs.count += 1
        runs.samples.append(seconds)
        counts = shared.counts
        numbers, times = counts[names.ORDER_STEP_RUNS], counts[names.ORDER_STEP_TIME]
        numbers[step] = numbers.get(step, 0) + 1
        times[step] = times.get(step, 0.0) + seconds
        shared.shown = True

    def turn(self, now: float) -> None:
        """Begin a new window; call it with the lock held."""
        self.before.add(self.window)
        self.window = Window(now)


class Window:
    """
    WorkerCounters since a moment.

    Args:
        since: monotonic seconds.
    """

    __slots__ = ("processed", "samples", "seconds", "since", "steps", "tallies")

    def __init__(self, since: float) -> None:
        self.since = since
        self.processed = 0
        self.tallies = dict.fromkeys(TALLIES, 0)
        self.seconds = 0.0
        self.samples: deque[float] = deque(maxlen=SAMPLES)
        self.steps: dict[str, Runs] = {}

    def shown(self, now: float) -> dict[str, Any]:
        """As the statistics show it; quantiles are those of the last 1,024 orders."""
        return _statistics(
            now - self.since,
            self.tallies | {PROCESSED: self.processed},
            self.seconds,
            self.samples,
            {name: (runs.count, runs.samples) for name, runs in self.steps.items()},
        )


class Runs:
    """How often a step has run, and how long the last runs took, in seconds."""

    __slots__ = ("count", "samples")

    def __init__(self) -> None:
        self.count = 0
        self.samples: deque[float] = deque(maxlen=SAMPLES)


class Before:
    """
    The sum of the windows that are over.

    Args:
        since: monotonic seconds.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.tallies = dict.fromkeys(TALLIES, 0)
        self.seconds = 0.0
        self._orders = _Last()
        self._steps: dict[str, _Last] = {}

    def add(self, window: Window) -> None:
        """Add a window that is over."""
        for what, number in window.tallies.items():
            self.tallies[what] += number
        self.tallies[PROCESSED] += window.processed
        self.seconds += window.seconds
        self._orders.add(window.processed, window.samples)
        for name, runs in window.steps.items():
            self._steps.setdefault(name, _Last()).add(runs.count, runs.samples)

    def shown(self, now: float, window: Window) -> dict[str, Any]:
        """As the statistics show it, with the window that is not over yet."""
        tallies = {what: number + window.tallies[what] for what, number in self.tallies.items()}
        tallies[PROCESSED] += window.processed
        steps = {}
        for name in (*self._steps, *(name for name in window.steps if name not in self._steps)):
            last, runs = self._steps.get(name, _NOTHING), window.steps.get(name)
            steps[name] = (
                (last.count, last.samples())
                if runs is None
                else (last.count + runs.count, last.samples(runs.samples))
            )
        return _statistics(
            now - self.since,
            tallies,
            self.seconds + window.seconds,
            self._orders.samples(window.samples),
            steps,
        )


class _Last:
    """The last samples of windows that are over, sorted one by one, so that sorting all is cheap."""

    def __init__(self) -> None:
        self.count = 0
        self._sorted: deque[list[float]] = deque()
        self._held = 0

    def add(self, count: int, samples: Iterable[float]) -> None:
        """Add those of a window, and forget what 1,024 newer ones have replaced."""
        self.count += count
        ordered = sorted(samples)
        self._sorted.append(ordered)
        self._held += len(ordered)
        while self._held - len(self._sorted[0]) >= SAMPLES:
            self._held -= len(self._sorted.popleft())

    def samples(self, more: Iterable[float] = ()) -> list[float]:
        """All of them, and those of the window that is not over."""
        return [*itertools.chain.from_iterable(self._sorted), *more]


_NOTHING: Final = _Last()


def _statistics(
    seconds: float,
    tallies: dict[str, int],
    spent: float,
    samples: Iterable[float],
    steps: Mapping[str, tuple[int, Iterable[float]]],
) -> dict[str, Any]:
    """WorkerCounters as the statistics show them."""
    shown: dict[str, Any] = {"seconds": round(seconds, 3), **tallies}
    processed = tallies[PROCESSED]
    if processed:
        shown["mean_ms"] = round(spent / processed * 1000, 3)
    shown.update(quantiles(samples))
    if steps:
        shown["steps"] = {
            step: {"count": count, **quantiles(runs)} for step, (count, runs) in steps.items()
        }
    return shown


def quantiles(samples: Iterable[float]) -> dict[str, float]:
    """The median, the 95th percentile (nearest rank) and the maximum, in milliseconds."""
    ordered = sorted(samples)
    if not ordered:
        return {}

    def rank(share: float) -> float:
        return round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 3)

    return {"p50_ms": rank(0.5), "p95_ms": rank(0.95), "max_ms": rank(1.0)}


_roles: dict[tuple[str, str], RoleCounters] = {}
_lock = threading.Lock()
_capture: object = None


def of_role(role: str, action: str, counters: Iterable[str]) -> RoleCounters:
    """The counters of a role; beyond 64 roles they share one."""
    with _lock:
        key = (role, action)
        if key not in _roles and len(_roles) >= ROLES:
            key = (OTHER, OTHER)
        found = _roles.get(key)
        if found is None:
            shown = () if key[0] == OTHER else counters
            found = _roles[key] = RoleCounters(*key, shown)
        return found


def name(given: object, fallback: str = OTHER) -> str:
    """`given` as a name that can be a label and part of a file name, or the fallback."""
    text = given if type(given) is str else _values.text(given, 65)
    return text if _NAME.fullmatch(text) else fallback


@functools.cache
def instruments() -> tuple[metrics.Histogram, metrics.Histogram]:
    """Durations and waits of orders; the counters are registered on the way."""
    meter = metrics.get_meter("telemetry")
    for metric, (label, unit, description) in _METRICS.items():
        meter.create_observable_counter(
            metric, [_observer(metric, label)], unit=unit, description=description
        )
    meter.create_observable_up_down_counter(
        names.ORDER_ACTIVE, [_active], unit="{order}", description="Orders being processed."
    )
    return (
        meter.create_histogram(
            names.ORDER_PROCESS_DURATION,
            unit="s",
            description="How long orders took.",
            explicit_bucket_boundaries_advisory=names.DURATION_BUCKETS_S,
        ),
        meter.create_histogram(
            names.ORDER_WAIT_DURATION,
            unit="s",
            description="How long messages waited for a worker.",
            explicit_bucket_boundaries_advisory=names.WAIT_BUCKETS_S,
        ),
    )


def _observer(
    metric: str, label: str
) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
    def observe(_: metrics.CallbackOptions) -> list[metrics.Observation]:
        seen = []
        for each in _shown():
            with each.lock:
                counts = list(each.counts[metric].items())
            seen += [metrics.Observation(n, {**each.labels, label: text}) for text, n in counts]
        return seen

    return observe


def _active(_: metrics.CallbackOptions) -> list[metrics.Observation]:
    return [metrics.Observation(each.active, each.labels) for each in _shown()]


def _shown() -> list[RoleCounters]:
    follow_capture()
    return [each for each in list(_roles.values()) if each.shown]


def follow_capture() -> None:
    """Begin at zero when a test's capture begins; call it before counting."""
    global _capture  # noqa: PLW0603 - captures are one at a time
    pipeline = configure.pipeline()
    running = None if pipeline is None else pipeline.log_delivery.redirect
    if running is _capture:
        return
    _capture = running
    if running is not None:
        for each in list(_roles.values()):
            each.reset()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread of the parent held stays locked here
    _lock = threading.Lock()
    for each in _roles.values():
        each.reset()
        each.active = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
