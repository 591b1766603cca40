"""
What a log call and a span cost: as the caller sees it, and in whole, until the bytes are sent.

One process holds all sides, which take turns: ours; OpenTelemetry's own handler, batch processors
and OTLP exporters; structlog with orjson into a file; logfire without sending. They make the same record: a message and four
fields; a span and four attributes. The caller's price is the processor time of its thread; the whole
price is the processor time of the process until everything is delivered to the same local receiver.
Ours includes redaction and the ids of the scope, which the peers do not have. The best of many short
rounds is taken on each side, since every other program makes a round slower and none makes it faster.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.measure import result
from tests.benchmarks.workers import Sink

PEERS = Path(sys.prefix) / "peers"
ROUNDS = 40
CALLS = 1000
CODE = """
import json, logging, sys, time
import orjson, structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
sys.path.append(sys.argv[5])  # apart from the rest: installed, it would plug itself into pytest
import logfire
import telemetry

endpoint, path, rounds, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
telemetry.configure(endpoint=endpoint, log_format="none", log_level="INFO",
                    span_queue_size=8192, log_queue_size=8192)
ours, ours_std, tracer = telemetry.get_logger("shop"), logging.getLogger("shop"), trace.get_tracer("shop")

spans, logs = TracerProvider(), LoggerProvider()
spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint + "/v1/traces"), max_queue_size=8192))
logs.add_log_record_processor(
    BatchLogRecordProcessor(OTLPLogExporter(endpoint + "/v1/logs"), max_queue_size=8192))
stock_tracer, stock = spans.get_tracer("shop"), logging.getLogger("stock")
stock.addHandler(LoggingHandler(logger_provider=logs))
stock.propagate = False
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps)],
    logger_factory=structlog.BytesLoggerFactory(file=open(path, "wb")),
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    cache_logger_on_first_use=True)
lines = structlog.get_logger()
fire = logfire.configure(local=True, send_to_logfire=False, console=False, metrics=False,
                         inspect_arguments=False)

def fields(number):
    return {"order_number": f"o-{number}", "items": 3, "total": 12.5, "currency": "EUR"}

def span(tracer):
    def call(number):
        with tracer.start_as_current_span("load", attributes=fields(number)):
            pass
    return call

def span_logfire(number):
    with fire.span("load", **fields(number)):
        pass

def flush_ours():
    telemetry.flush(30)

def flush_stock():
    spans.force_flush(), logs.force_flush()

sides = {
    "log": (lambda n: ours.info("order loaded", **fields(n)), flush_ours),
    "log_std": (lambda n: ours_std.info("order %s loaded", n, extra=fields(n)), flush_ours),
    "log_below": (lambda n: ours.debug("order loaded", items=n), flush_ours),
    "log_stock": (lambda n: stock.info("order loaded", extra=fields(n)), flush_stock),
    "log_structlog": (lambda n: lines.info("order loaded", **fields(n)), lambda: None),
    "log_logfire": (lambda n: fire.info("order loaded", **fields(n)), fire.force_flush),
    "span_logfire": (span_logfire, fire.force_flush),
    "span": (span(tracer), flush_ours),
    "span_stock": (span(stock_tracer), flush_stock),
}
best = {name: [float("inf"), float("inf")] for name in sides}
for _ in range(rounds):
    for name, (call, flush) in sides.items():
        flush_ours(), flush_stock()
        process, thread = time.process_time(), time.thread_time()
        for number in range(calls):
            call(number)
        caller = time.thread_time() - thread
        flush()
        whole = time.process_time() - process
        best[name] = [min(best[name][0], caller / calls * 1e6), min(best[name][1], whole / calls * 1e6)]
lost = sum(sum(ledger["dropped"].values()) for ledger in telemetry.report().values())
print(json.dumps({**best, "lost": lost}))
"""


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Microseconds per call, ours and theirs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with TemporaryDirectory() as folder:
            path = str(Path(folder) / "lines.log")
            done = subprocess.run(
                [
                    *(sys.executable, "-W", "ignore", "-c", CODE),
                    *(endpoint, path, str(ROUNDS), str(CALLS), str(PEERS)),
                ],
                capture_output=True,
                text=True,
                check=True,
            )
    finally:
        server.shutdown()
        server.server_close()
    told = json.loads(done.stdout)
    yield result(
        "log call, as the caller sees it",
        told["log"][0],
        "us",
        peer="structlog with orjson to a file",
        peer_value=told["log_structlog"][0],
        ratio_at_least=1.0,
    )
    yield result(
        "log call, as the caller sees it",
        told["log"][0],
        "us",
        peer="logfire, which sends nothing",
        peer_value=told["log_logfire"][0],
    )
    yield result(
        "log call of a stdlib logger, as the caller sees it",
        told["log_std"][0],
        "us",
        peer="OpenTelemetry's LoggingHandler",
        peer_value=told["log_stock"][0],
    )
    yield result("log call below the level", told["log_below"][0], "us", at_most=1)
    yield result(
        "log call, redacted and delivered",
        told["log"][1],
        "us",
        peer="OpenTelemetry's LoggingHandler, batch processor and OTLP exporter",
        peer_value=told["log_stock"][1],
        ratio_at_least=2.0,
    )
    yield result(
        "span with four attributes, as the caller sees it",
        told["span"][0],
        "us",
        peer="OpenTelemetry SDK",
        peer_value=told["span_stock"][0],
    )
    yield result(
        "span with four attributes, as the caller sees it",
        told["span"][0],
        "us",
        peer="logfire, which sends nothing",
        peer_value=told["span_logfire"][0],
    )
    yield result(
        "span with four attributes, redacted and delivered",
        told["span"][1],
        "us",
        peer="OpenTelemetry SDK, batch processor and OTLP exporter",
        peer_value=told["span_stock"][1],
        ratio_at_least=1 / 0.7,
    )
    yield result("records lost on the way", told["lost"], "records", at_most=0)
