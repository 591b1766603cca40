"""
Delivery health as metrics: what becomes of the telemetry of this process.

Read from the queues' ledgers when metrics are collected, so that it costs nothing in between:
records by outcome, the success ratio of the last five minutes, how many records wait and for how
long the oldest has. The one thing that is measured as it happens is the time from a record's
emission until the collector took it.

Registered with the first business event, and in any process with its first loss, so that a program
that loses nothing does not pay for saying so.

A collector that is away drops nothing at first: records wait. So the age of the oldest unsent
record rises at once, and the ratio falls only when the queue is full.

The instruments are made once, on the global meter; a fork child inherits the callbacks, and they
read the child's ledgers.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from telemetry import _diagnostics, _values
from telemetry._config import state
from telemetry.attributes import (
    DELIVERY_ADOPTED_RECORDS,
    DELIVERY_DURATION,
    DELIVERY_OUTCOME,
    DELIVERY_PRODUCED,
    DELIVERY_RECORDS,
    DELIVERY_SIGNAL,
    DELIVERY_SPOOLED_RECORDS,
    DELIVERY_SUCCESS_RATIO,
    DELIVERY_UNSENT_AGE,
    DELIVERY_UNSENT_RECORDS,
    DURATION_BUCKETS_S,
    ERROR_TYPE,
)

WINDOW_S: Final = 300.0
STEP_S: Final = 5.0

_observed = False
_lock = threading.Lock()


def observe() -> None:
    """Register the instruments, once; before `configure()` there is nothing to observe."""
    global _observed  # noqa: PLW0603 - one process has one set of instruments
    if _observed:
        return
    pipeline = state.pipeline()
    if pipeline is None or not _lock.acquire(blocking=False):
        return
    try:
        if not _observed:
            _observed = True
            _register(pipeline.queues.values())
    finally:
        _lock.release()


def _register(queues: Iterable[Any]) -> None:
    meter = metrics.get_meter("telemetry")
    meter.create_observable_counter(
        DELIVERY_RECORDS, [_guarded(_records)], "{record}", "What became of telemetry records."
    )
    meter.create_observable_counter(
        DELIVERY_PRODUCED, [_guarded(_produced)], "{record}", "Records that the program made."
    )
    meter.create_observable_gauge(
        DELIVERY_SPOOLED_RECORDS, [_guarded(_spooled)], "{record}", "Records in the spool."
    )
    meter.create_observable_counter(
        DELIVERY_ADOPTED_RECORDS,
        [_guarded(_adopted)],
        "{record}",
        "What became of records that earlier processes had left in the spool.",
    )
    ratio = _SuccessRatio()
    meter.create_observable_gauge(
        DELIVERY_SUCCESS_RATIO,
        [_guarded(ratio.observe)],
        "1",
        "Delivered among delivered and dropped records of the last five minutes.",
    )
    meter.create_observable_gauge(
        DELIVERY_UNSENT_RECORDS, [_guarded(_unsent)], "{record}", "Records that wait."
    )
    meter.create_observable_gauge(
        DELIVERY_UNSENT_AGE, [_guarded(_ages)], "s", "How long the oldest record has waited."
    )
    duration = meter.create_histogram(
        DELIVERY_DURATION,
        "s",
        "From a record's emission until the collector has taken it.",
        explicit_bucket_boundaries_advisory=DURATION_BUCKETS_S,
    )

    def delivered(signal: str, seconds: float) -> None:
        try:
            duration.record(seconds, {DELIVERY_SIGNAL: signal})
        except Exception as error:
            _fault(error)

    for queue in queues:
        queue.delivered = delivered


Observe = Callable[[], list[Observation]]


def _guarded(observe_now: Observe) -> Callable[[CallbackOptions], list[Observation]]:
    """A callback of the SDK; a failure costs this observation only."""

    def callback(_: CallbackOptions) -> list[Observation]:
        try:
            return observe_now()
        except Exception as error:
            _fault(error)
            return []

    return callback


def _records() -> list[Observation]:
    return [
        observation
        for signal, ledger in state.report().items()
        for observation in _outcomes(signal, ledger)
    ]


def _outcomes(signal: str, ledger: Mapping[str, Any]) -> list[Observation]:
    label = {DELIVERY_SIGNAL: signal}
    found = [Observation(ledger["exported"], {**label, DELIVERY_OUTCOME: "delivered"})]
    for reason, count in ledger["dropped"].items():
        failed = {**label, DELIVERY_OUTCOME: "dropped", ERROR_TYPE: reason}
        found.append(Observation(count, failed))
    return found


def _produced() -> list[Observation]:
    return [
        Observation(ledger["produced"], {DELIVERY_SIGNAL: signal})
        for signal, ledger in state.report().items()
    ]


def _spooled() -> list[Observation]:
    return [
        Observation(ledger["spooled"], {DELIVERY_SIGNAL: signal})
        for signal, ledger in state.report().items()
        if "spooled" in ledger
    ]


def _adopted() -> list[Observation]:
    return [
        observation
        for signal, ledger in state.report().items()
        if "adopted" in ledger
        for observation in _outcomes(signal, ledger["adopted"])
    ]


def _unsent() -> list[Observation]:
    return [
        Observation(ledger["pending"], {DELIVERY_SIGNAL: signal})
        for signal, ledger in state.report().items()
    ]


def _ages() -> list[Observation]:
    pipeline = state.pipeline()
    queues = {} if pipeline is None else pipeline.queues
    return [
        Observation(queue.oldest_s(), {DELIVERY_SIGNAL: signal})
        for signal, queue in queues.items()
        if signal != "metrics"  # nothing of them waits: each collection is the latest state
    ]


class _SuccessRatio:
    """Delivered / settled over a sliding window; nothing where nothing was settled in it."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._seen: dict[str, deque[tuple[float, int, int]]] = {}

    def observe(self) -> list[Observation]:
        if self._pid != os.getpid():
            self._begin()
        now = time.monotonic()
        found = []
        for signal, ledger in state.report().items():
            exported = ledger["exported"]
            settled = exported + sum(ledger["dropped"].values())
            seen = self._seen.setdefault(signal, deque([(now, 0, 0)]))
            while len(seen) > 1 and now - seen[1][0] >= WINDOW_S:
                seen.popleft()
            _, settled_then, exported_then = seen[0]
            if settled > settled_then:
                ratio = (exported - exported_then) / (settled - settled_then)
                found.append(Observation(ratio, {DELIVERY_SIGNAL: signal}))
            if now - seen[-1][0] >= STEP_S:
                seen.append((now, settled, exported))
        return found


def _fault(error: Exception) -> None:
    _diagnostics.say("delivery health", f"delivery health: {_values.text(error)}", level="error")
