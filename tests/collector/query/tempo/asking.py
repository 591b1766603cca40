"""A query port over a store, requests to it, and Tempo's answers by meaning."""

import asyncio
import contextlib
import http.client
import json
import logging
import time
import urllib.parse
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.documents.build import documents
from collector.model import Batch, Host, Request, Signal
from collector.query.app import QueryServer
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite

GOLDEN = Path(__file__).parents[3] / "golden" / "grafana"
START, END = 1_796_040_000, 1_796_041_200
"""Seconds: the 20 minutes of the fixed data set."""


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"tests.{name}"), **more)


def fixed_documents():
    """The 195 spans of the fixed data set."""
    message = ExportTraceServiceRequest.FromString((GOLDEN / "traces.binpb").read_bytes())
    return documents(Batch(Signal.TRACES, message, Request(time.time_ns(), bytes(16))))


@contextlib.asynccontextmanager
async def sqlite(path, spans):
    """A store with these spans."""
    async with SQLite(SQLite.Config(path=str(path)), host("sqlite")) as store:
        if spans:
            await store.write(Signal.TRACES, spans)
        yield store


@contextlib.asynccontextmanager
async def port(store, **settings):
    """Asks the query port over a store: `await ask(path, **parameters)`."""
    config = QueryServer.Config(endpoint="localhost:0", **settings)
    async with QueryServer(config, host("query", stores={"store": store})) as server:

        def blocking(target, headers):
            connection = http.client.HTTPConnection(server.endpoints["http"], timeout=30)
            with contextlib.closing(connection):
                connection.request("GET", target, headers=headers)
                return Answered(connection.getresponse())

        async def ask(path, *, headers=(), **parameters):
            if parameters:
                path += "?" + urllib.parse.urlencode(parameters)
            return await asyncio.to_thread(blocking, path, dict(headers))

        yield ask


class Answered:
    """Status, content type, body."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.type = self.headers.get("content-type")
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode()


def value(found):
    """A typed value by meaning: numbers that agree to ten digits are equal."""
    ((kind, inner),) = found.items()
    return float(f"{float(inner):.10g}") if kind in ("intValue", "doubleValue") else inner


def attributes(found):
    return {one["key"]: value(one["value"]) for one in found.get("attributes", ())}


def searched(answer):
    """A search answer: per trace its root, times, services, and spansets."""
    return {
        trace["traceID"]: [
            trace["rootServiceName"],
            trace.get("rootTraceName", ""),
            trace["startTimeUnixNano"],
            trace["durationMs"],
            trace["serviceStats"],
            [
                [
                    each["matched"],
                    attributes(each),
                    {
                        span["spanID"]: [
                            span.get("name", ""),
                            span["durationNanos"],
                            attributes(span),
                        ]
                        for span in each["spans"]
                    },
                ]
                for each in trace["spanSets"]
            ],
        ]
        for trace in answer["traces"]
    }


def series(answer):
    """Series: their labels as one text, and numbers by time; an instant one has one number."""
    found = {}
    for one in answer["series"]:
        labels = {label["key"]: value(label["value"]) for label in one["labels"]}
        key = json.dumps(labels, sort_keys=True)
        assert key not in found
        if "samples" in one:
            found[key] = {
                sample["timestampMs"]: float(f"{sample.get('value', 0):.10g}")
                for sample in one["samples"]
            }
        else:
            found[key] = float(f"{one.get('value', 0):.10g}")
    return found
