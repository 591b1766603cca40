"""
What a worker pays for its orders (O7): processor time and memory, beside the plain SDK calls.

A process of its own handles orders at full speed against a local receiver that takes everything, so
that encoding and sending are part of the price. Processor time of all its threads, divided by the
orders, is what telemetry costs: at 100 orders/s, 100 us per order are 1 % of a core. The peer does
by hand what an order is made of, on the providers of the same pipeline: a span with the same
attributes, one log record, one histogram point. Memory is what the process has grown by after
20,000 orders, measured against the moment before the first.
"""

import argparse
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.measure import result

ORDERS = 20_000
ROUNDS = 20
CODE = """
import json, logging, resource, sys, time
import telemetry
from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from telemetry.workers import Worker

endpoint, orders, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
telemetry.configure(endpoint=endpoint, log_format="none", log_level="INFO",
                    span_queue_size=8192, log_queue_size=8192)
tracer, logger = trace.get_tracer("bench"), get_logger("bench")
seconds = metrics.get_meter("bench").create_histogram(
    "bench.seconds", unit="s", explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.1, 1, 10])
worker = Worker("worker_open", group="provider")
size = orders // rounds

def ours():
    for number in range(size):
        with worker.order(f"ORDER-{number}", user_id="user-7", symbol="EURUSD",
                          correlation_id="0198f3c2") as order:
            with order.timing("margin_calculation"):
                pass

def by_hand():
    for number in range(size):
        begun = time.perf_counter()
        facts = {"order.id": f"ORDER-{number}", "user.id": "user-7", "order.symbol": "EURUSD",
                 "correlation.id": "0198f3c2", "order.worker.role": "worker_open",
                 "order.action": "open", "order.worker.group": "provider"}
        with tracer.start_as_current_span("process worker_open", attributes=facts) as span:
            took = time.perf_counter() - begun
            end = {"order.outcome": "success", "order.processing_time_ms": took * 1000,
                   "margin_calculation_time_ms": 0.001}
            span.set_attributes(end)
            logger.emit(LogRecord(timestamp=time.time_ns(), severity_number=SeverityNumber.INFO,
                                  severity_text="INFO", body="order.opened",
                                  event_name="order.opened", attributes={**facts, **end}))
            seconds.record(took, {"order.worker.role": "worker_open", "order.outcome": "success"})

def cost(side):
    telemetry.flush(30)
    begun = time.process_time()
    side()
    telemetry.flush(30)
    return (time.process_time() - begun) / size * 1e6

ours(); by_hand(); telemetry.flush(30)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pairs = [(cost(ours), cost(by_hand)) for _ in range(rounds)]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lost = sum(sum(ledger["dropped"].values()) for ledger in telemetry.report().values())
print(json.dumps({"ours": min(a for a, _ in pairs), "by_hand": min(b for _, b in pairs),
                  "grown": (after - before) / 1024, "lost": lost}))
"""


class Sink(http.server.BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the request and answer 200."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Cost per order, ours and by hand; memory; nothing may be lost on the way."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, endpoint, str(ORDERS), str(ROUNDS)],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        server.shutdown()
        server.server_close()
    told = json.loads(done.stdout)
    yield result(
        "processor time per order, sending included (100 us = 1 % of a core at 100 orders/s)",
        told["ours"],
        "us",
        peer="span, log record and histogram point by hand, same pipeline",
        peer_value=told["by_hand"],
        at_most=100,
    )
    yield result("memory after 20,000 orders", told["grown"], "MB", at_most=10)
    yield result("records lost on the way", told["lost"], "records", at_most=0)
