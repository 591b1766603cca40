"""The MongoDB exporter's own pymongo calls never become telemetry, even where everything is switched on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]

PROGRAM = r"""
import asyncio, json, logging, sys

import pymongo
import pymongo.monitoring
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation

import telemetry
from collector.config import load
from collector.service.service import Service

URI, DATABASE = sys.argv[1:]
CONFIG = f'''
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}}}
exporters: {{mongodb: {{uri: "{URI}", database: {DATABASE}}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [mongodb]}}
    logs: {{receivers: [otlp], exporters: [mongodb]}}
    metrics: {{receivers: [otlp], exporters: [mongodb]}}
'''


class Instrumentation(pymongo.monitoring.CommandListener):
    "What an instrumentation of pymongo does: a span per command, unless it is told to keep out."

    def __init__(self):
        self.spans = {}

    def started(self, event):
        if is_instrumentation_enabled():
            span = trace.get_tracer("pymongo").start_span(f"{event.command_name}")
            span.set_attribute("db.name", event.database_name)
            self.spans[event.request_id, event.connection_id] = span

    def succeeded(self, event):
        span = self.spans.pop((event.request_id, event.connection_id), None)
        if span is not None:
            span.end()

    failed = succeeded


def work(rounds):
    for _ in range(rounds):
        logging.getLogger("shop").info("an order")
        with telemetry.span("work"):
            pass
        assert telemetry.flush(20)


def stored(database):
    names = [name for name in database.list_collection_names() if name.endswith("_logs")]
    logs = [each for name in names if name != "trace_logs" for each in database[name].find()]
    return {
        "orders": sum(each["logger_name"] == "shop" for each in logs),
        # Heartbeats of the driver's monitor, on a clock of their own, are no answer to a batch.
        "driver": sorted(
            {each["logger_name"] for each in logs if each["logger_name"].startswith("pymongo.")}
            - {"pymongo.topology"}
        ),
        "work": database["spans"].count_documents({"name": "work"}),
        "commands": sorted(database["spans"].distinct("attributes.db.name")),
    }


async def main():
    pymongo.monitoring.register(Instrumentation())
    async with Service(load([f"yaml:{CONFIG}"]), 10) as service:
        address = service.component("otlp", "receivers").endpoints["http"]
        telemetry.configure(
            service_name="itself", endpoint=f"http://{address}", log_level="DEBUG", log_format="none"
        )
        for name in ("", "pymongo", "collector"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        await asyncio.to_thread(work, 5)
        # What a batch sets off would be sent with the next ones, and set off more.
        for _ in range(5):
            await asyncio.to_thread(telemetry.flush, 20)
            await asyncio.sleep(0.2)
        with pymongo.MongoClient(URI) as client:
            logging.getLogger("pymongo").setLevel(logging.WARNING)
            with suppress_instrumentation():
                quiet = stored(client[DATABASE])
            # The control: a call of the application's own is seen by both.
            logging.getLogger("pymongo").setLevel(logging.DEBUG)
            await asyncio.to_thread(client["theirs"].command, "ping")
            logging.getLogger("pymongo").setLevel(logging.WARNING)
            await asyncio.to_thread(telemetry.flush, 20)
            with suppress_instrumentation():
                loud = stored(client[DATABASE])
    print(json.dumps({"quiet": quiet, "loud": loud}))


asyncio.run(main())
"""


def test_b79_the_exporter_never_feeds_itself(mongodb_uri, mongodb_database, tmp_path):
    """A collector that sends everything it logs and traces to itself stores the application's records only (B79)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mongodb_uri, mongodb_database],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["quiet"] == {"orders": 5, "driver": [], "work": 5, "commands": []}
    assert found["loud"]["commands"] == ["theirs"]
    assert "pymongo.command" in found["loud"]["driver"]
