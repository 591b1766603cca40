"""
What recording costs the caller: events, inferences and evaluations, beside the plain SDK calls.

The peer makes the same records by hand: for a tracked event one `Logger.emit`, for an inference a
span, a histogram point and an event, for an evaluation a span, seven points and an event. Queues
are large and the exporters are held, so that only the caller's side is measured.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger

import telemetry
from telemetry import ml
from telemetry._events import audit, track
from tests.benchmarks.measure import best_of, result

CALLS = 1000
ROUNDS = 15

FIELDS: dict[str, Any] = {"model": "wallet-risk", "version": "2025-10", "score": 4440.0}


def many(call: Callable[[], object]) -> Callable[[], None]:
    """The call, often."""

    def run() -> None:
        for _ in range(CALLS):
            call()

    return run


def emit(event: str) -> None:
    """An event by the SDK alone."""
    get_logger("bench").emit(
        LogRecord(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=event,
            attributes=dict(FIELDS),
            event_name=event,
        )
    )


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Microseconds per call, ours and by hand, in turns."""
    telemetry.configure(
        endpoint="http://127.0.0.1:9",  # discard: nobody listens, records wait in memory
        diagnostics="none",
        exit_timeout=0.1,
    )
    tracer, meter = trace.get_tracer("bench"), metrics.get_meter("bench")
    seconds = meter.create_histogram(
        "bench.seconds", explicit_bucket_boundaries_advisory=[0.001, 0.01, 0.1, 1]
    )
    scores = ml.Ensemble(
        weights={"rule_based": 0.6, "ml": 0.4},
        scale_max=10_000,
        bands={"LOW": 3000, "MEDIUM": 6000, "HIGH": 10_000},
        model="wallet-risk",
        version="2025-10",
    )

    def by_hand(points: int) -> None:
        with tracer.start_as_current_span("bench") as span:
            for _ in range(points):
                seconds.record(0.01, {"model": "wallet-risk", "version": "2025-10"})
            span.set_attributes(FIELDS)
            emit("bench.finished")

    def infer() -> None:
        with ml.inference(model="wallet-risk", version="2025-10") as inference:
            inference.score = 4800

    def evaluate() -> None:
        with scores.evaluate(subject="0x52908400098527886E0F7030069857D2E4169EE7") as e:
            e.member("rule_based", 4200)
            e.member("ml", 4800, confidence=0.92)

    for case, ours, peer, ratio in (
        ("track", lambda: track("bench.finished", **FIELDS), lambda: emit("bench.finished"), 0.4),
        ("audit", lambda: audit("bench.finished", **FIELDS), lambda: emit("bench.finished"), 0.4),
        ("inference", infer, lambda: by_hand(1), 0.3),
        ("evaluation", evaluate, lambda: by_hand(7), 0.3),
    ):
        best = best_of(ROUNDS, ours=many(ours), peer=many(peer))
        yield result(
            f"{case}, per call",
            best["ours"] / CALLS * 1e6,
            "us",
            peer="the same records by SDK calls",
            peer_value=best["peer"] / CALLS * 1e6,
            ratio_at_least=ratio,
        )
