"""
What a Celery task pays: publish and run a task that does nothing, with and without telemetry.

One process per side and round, with Celery's in-memory broker and the solo pool, so that publisher
and worker are in one process and its processor time is all there is; sending is included. The peer is
contrib's CeleryInstrumentor with OpenTelemetry's batch processor, which makes the spans and no task
records, no queue wait and no metrics of the outcome.
"""

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

from tests.benchmarks.measure import result
from tests.benchmarks.workers import Sink

ROUNDS = 5
TASKS = 400
CODE = """
import logging, os, sys, threading, time
side, tasks = sys.argv[1], int(sys.argv[2])
flush = lambda: None
if side == "ours":
    import telemetry
    telemetry.configure(log_format="none", log_level="INFO")
    from telemetry.instrumentation.celery import instrument
    instrument()
    flush = telemetry.flush
elif side == "stock":
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
    flush = provider.force_flush
from celery import Celery
from celery.contrib.testing.worker import start_worker
app = Celery("bench", broker="memory://", backend="cache+memory://")
app.conf.worker_hijack_root_logger = True
done = threading.Semaphore(0)

@app.task(name="nothing", ignore_result=True)
def nothing(number):
    done.release()

def run(count):
    for number in range(count):
        nothing.delay(number)
    for _ in range(count):
        done.acquire()

with start_worker(app, pool="solo", perform_ping_check=False, loglevel="INFO"):
    run(50)
    flush()
    best = float("inf")
    for _ in range(4):
        begun = time.process_time()
        run(tasks)
        flush()
        best = min(best, (time.process_time() - begun) / tasks * 1e6)
    print(best, flush=True)
os._exit(0)
"""


def _microseconds(side: str, endpoint: str) -> float:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, side, str(TASKS)],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Processor time that telemetry adds to a task."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    best = dict.fromkeys(("bare", "stock", "ours"), float("inf"))
    try:
        for _round in range(ROUNDS):
            for side in best:
                best[side] = min(best[side], _microseconds(side, endpoint))
    finally:
        server.shutdown()
        server.server_close()
    yield result("a task that does nothing, without telemetry", best["bare"], "us")
    yield result(
        "added by telemetry to publishing and running a task, sending included",
        best["ours"] - best["bare"],
        "us",
        peer="contrib celery + SDK",
        peer_value=best["stock"] - best["bare"],
        at_most=1000,
    )
