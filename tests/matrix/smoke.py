"""
What an application does with the library, in one small program: the matrix runs it in each cell.

It needs nothing but the wheel, FastAPI and Celery. Whatever is raised ends it with a traceback and
a non-zero exit code. `smoke.py code` calls `configure()` itself, `smoke.py wrapper` is run under
`opentelemetry-instrument`.
"""

import asyncio
import json
import logging
import sys
from importlib import metadata

import telemetry


async def request(app, path):
    """One HTTP request, as a server makes it; the status and the headers of the answer."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"shop"), (b"x-correlation-id", b"corr-42")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    answers = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        answers.append(message)

    await app(scope, receive, send)
    headers = {name.decode().lower(): text.decode() for name, text in answers[0]["headers"]}
    return answers[0]["status"], headers


def serve():
    """A FastAPI application, and one request to it."""
    from fastapi import FastAPI

    app = FastAPI()
    if sys.argv[1] == "code":
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        from telemetry.instrumentation.asgi import CorrelationIdMiddleware

        app.add_middleware(CorrelationIdMiddleware)
        FastAPIInstrumentor.instrument_app(app)

    @app.get("/orders/{order_id}")
    def order(order_id: str):
        with telemetry.span("load order"):
            logging.getLogger("shop").warning("order %s", order_id)
        return {"id": order_id}

    status, headers = asyncio.run(request(app, "/orders/o-1"))
    assert status == 200, status
    assert headers["x-correlation-id"] == "corr-42", headers


def work():
    """A Celery task, published and run by a worker."""
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    app = Celery("shop", broker="memory://", backend="cache+memory://")

    @app.task(name="score_order")
    def score(order_id):
        telemetry.get_logger("shop").info("scored", order_id=order_id)
        return 0.31

    with start_worker(app, pool="solo", loglevel="info", perform_ping_check=False):
        assert score.delay("o-1").get(timeout=30) == 0.31


def main():
    """Do all of it, deliver, and say in one line of JSON what ran."""
    if sys.argv[1] == "code":
        telemetry.configure()
        from telemetry.instrumentation import celery

        celery.instrument()
    from opentelemetry import metrics

    telemetry.get_logger("shop").info("log call", amount=12.5)
    logging.getLogger("shop").error("stdlib", extra={"order": 7})
    with telemetry.span("step", order_id="o-1"):
        pass
    meter = metrics.get_meter("shop")
    meter.create_counter("shop.orders").add(2, {"kind": "web"})
    meter.create_histogram("shop.amount").record(12.5)
    serve()
    work()
    delivered = telemetry.flush(20)
    telemetry.shutdown()
    print(json.dumps({"delivered": delivered, "versions": versions(), "cores": cores()}))


def versions():
    """The packages that this cell is about."""
    names = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation-asgi")
    return {name: metadata.version(name) for name in (*names, "fastapi", "celery")}


def cores():
    """Which native cores this Python could load."""
    found = {}
    for name in ("telemetry._core", "collector._core"):
        try:
            __import__(name)
            found[name] = "native"
        except ImportError as error:
            found[name] = f"Python ({error})"
    return found


if __name__ == "__main__":
    main()
