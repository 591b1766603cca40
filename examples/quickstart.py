"""
A small order service that asks itself one question, so that there is a trace to look at.

    opentelemetry-instrument python examples/quickstart.py

The service is ordinary FastAPI code; the one thing that it takes from otelier is `telemetry`:
a logger with keyword arguments, ids for a block, and spans for steps. `main` runs it on a free
port, sends it one request over a real socket, and prints the id of the trace that came of it.
"""

import json
import socket
import threading
import time
import urllib.request
import uuid

import uvicorn
from fastapi import FastAPI, Request
from opentelemetry import metrics, trace

from telemetry import get_logger, log_context, span

app = FastAPI()
logger = get_logger("quickstart")
meter = metrics.get_meter("quickstart")
orders = meter.create_counter("orders.scored", unit="{order}", description="Orders scored.")
scores = meter.create_histogram(
    "order.risk.score",
    unit="1",
    description="Risk scores given to orders.",
    explicit_bucket_boundaries_advisory=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
)

STOCK = {"o-1001": {"customer": "c-7", "items": 3, "total": 129.90}}


@app.get("/orders/{order_id}/risk")
def risk(order_id: str, request: Request) -> dict[str, object]:
    correlation_id = request.headers.get("x-correlation-id")
    with log_context(correlation_id=correlation_id, order_id=order_id, tenant_id="shop-1"):
        logger.info("risk check started")
        order = load_order(order_id)
        score = score_risk(order)
        orders.add(1, {"order.decision": "accept"})
        logger.info("risk check finished", score=score, decision="accept")
        return {"order": order_id, "score": score, "trace_id": current_trace_id()}


@span("load order")
def load_order(order_id: str) -> dict[str, object]:
    time.sleep(0.01)
    order = STOCK[order_id]
    logger.info("order loaded", items=order["items"], total=order["total"])
    return order


@span("score risk")
def score_risk(order: dict[str, object]) -> float:
    try:
        score = ask_model(order)
    except TimeoutError:
        logger.exception("model did not answer, rules decide", model="risk-v2")
        score = 0.31
    if score > 0.3:
        logger.warning("score is close to the limit", score=score, limit=0.35)
    scores.record(score)
    return score


@span("ask model")
def ask_model(order: dict[str, object]) -> float:
    time.sleep(0.02)
    raise TimeoutError(f"no answer for customer {order['customer']} within 20 ms")


def current_trace_id() -> str:
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()

    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/orders/o-1001/risk",
        headers={"X-Correlation-ID": str(uuid.uuid4())},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own server
            answer = json.load(response)
    finally:
        server.should_exit = True
        thread.join()
    print(f"trace_id={answer['trace_id']}")


if __name__ == "__main__":
    main()
