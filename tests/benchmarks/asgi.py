"""
What a FastAPI request costs: with our middleware, spans and logs, beside the stock instrumentation.

One process per side and round, since providers are global; the sides take turns. Each drives the
same application in the process itself, without a server, so that nothing else is measured, and
sends to the same sink. A request makes a server span, one span of its own, two log lines, and a
record of the request (ours; the stock side logs one by hand, to be fair).
"""

import argparse
import http.server
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.measure import result

ROUNDS = 5
APP = """
import asyncio, json, logging, statistics, sys, time
from fastapi import FastAPI
from opentelemetry import trace
logging.getLogger().setLevel("INFO")
logger = logging.getLogger("app")
SIDE, COUNT = sys.argv[1], 1500

if SIDE == "stock":
    from opentelemetry import metrics
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    trace.set_tracer_provider(tracers)
    set_logger_provider(loggers)
    logging.getLogger().addHandler(LoggingHandler(logger_provider=loggers))
elif SIDE == "ours":
    import telemetry
    telemetry.configure(log_format="none")

app = FastAPI(telemetry={"operation_spans": False})
tracer = trace.get_tracer("app")

@app.get("/orders/{order_id}")
async def order(order_id: str):
    logger.info("order asked for", extra={"order": order_id})
    with tracer.start_as_current_span("load", attributes={"a": 1, "b": "x", "c": 2.0, "d": True}):
        logger.info("order loaded", extra={"items": 3})
    if SIDE == "stock":
        logger.info("GET /orders/{order_id} 200", extra={"status": 200, "ms": 1.0})
    return {"order": order_id}

if SIDE == "stock":
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])
elif SIDE == "ours":
    from telemetry.instrumentation.asgi import CorrelationIdMiddleware
    app = CorrelationIdMiddleware(app)

async def one():
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/orders/o-1", "raw_path": b"/orders/o-1", "query_string": b"",
        "root_path": "", "headers": [(b"host", b"test"), (b"user-agent", b"bench")],
        "client": ("127.0.0.1", 1), "server": ("test", 80),
    }
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        pass
    start = time.perf_counter()
    await app(scope, receive, send)
    return (time.perf_counter() - start) * 1e6

async def main():
    for _ in range(100):
        await one()
    return [await one() for _ in range(COUNT)]

print(json.dumps(statistics.median(asyncio.run(main()))))
"""


class _Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _median_us(side: str, endpoint: str) -> float:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", APP, side],
        env={
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout))


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Median microseconds of a request, and what telemetry adds to the bare application."""
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{sink.server_address[1]}"
    try:
        sides: dict[str, list[float]] = {"bare": [], "stock": [], "ours": []}
        for _round in range(ROUNDS):
            for side, values in sides.items():
                values.append(_median_us(side, endpoint))
    finally:
        sink.shutdown()
        sink.server_close()
    bare, stock, ours = (statistics.median(values) for values in sides.values())
    yield result(
        "FastAPI request with telemetry",
        ours,
        "us",
        peer="contrib fastapi + SDK",
        peer_value=stock,
        ratio_at_least=0.95,
    )
    yield result("added to a bare request", ours - bare, "us", at_most=500)
