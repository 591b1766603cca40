"""A service with a connector between two pipelines, fed and watched by components of this module."""

import asyncio
import itertools
import time

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.config import load
from collector.model import Batch, Request, Signal
from collector.otlp import request_key
from collector.service.service import Service
from tests.collector.exporters.batches import put

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
UNSET, OK, ERROR = 0, 1, 2
MILLISECOND = 1_000_000
BEGIN = 1_700_000_000_000_000_000

YAML = """
receivers: {{"{module}:Source": }}
exporters: {{"{module}:Sink": }}
connectors:
  {connector}: {settings}
service:
  pipelines:
    {source}: {{receivers: ["{module}:Source"], exporters: [{connector}]}}
    metrics/made: {{receivers: [{connector}], exporters: ["{module}:Sink"]}}
"""


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Source:
    """A receiver that a test calls."""

    Config = Nothing

    def __init__(self, config, host, following):
        self.next = following

    async def __call__(self, batch):
        await self.next[batch.signal](batch)


class Sink:
    """An exporter that remembers, and raises `failure` while there is one."""

    Config = Nothing

    def __init__(self, config, host):
        self.batches = []
        self.calls = 0
        self.failure = None

    async def __call__(self, batch):
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)


class Connected:
    """The service, with its ends."""

    def __init__(self, tmp_path, connector, settings="{}", source="traces"):
        file = tmp_path / "c.yaml"
        file.write_text(
            YAML.format(module=__name__, connector=connector, settings=settings, source=source)
        )
        self.service = Service(load([str(file)], [], {}))
        self.connector = connector

    async def __aenter__(self):
        await self.service.__aenter__()
        self.send = self.service.component(f"{__name__}:Source")
        self.sink = self.service.component(f"{__name__}:Sink")
        return self

    async def __aexit__(self, *exc):
        await self.service.__aexit__(*exc)

    async def until(self, condition):
        """Wait until the sink has what is wanted."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - a flush announces nothing
                await asyncio.sleep(0.01)


COUNTER = itertools.count(1)


def request(signal, message):
    wire = message.SerializeToString()
    origin = Request(time.time_ns(), request_key("", signal, wire))
    return Batch(signal, type(message).FromString(wire), origin, wire)


def span(name="GET /", kind=SERVER, ms=5.0, status=UNSET, **more):
    """What `traces` makes a span of: ids, events and attributes may be given."""
    return {"name": name, "kind": kind, "ms": ms, "status": status, **more}


def traces(*spans, **resource):
    """A batch of spans; attributes of the resource are named with `__` for a dot."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    put(group.resource.attributes, {key.replace("__", "."): text for key, text in resource.items()})
    scope = group.scope_spans.add()
    for each in spans:
        made = scope.spans.add(
            name=each["name"],
            kind=each["kind"],
            trace_id=each.get("trace", b"t" * 16),
            span_id=each.get("id", next(COUNTER).to_bytes(8, "big")),
            parent_span_id=each.get("parent", b""),
            start_time_unix_nano=BEGIN,
            end_time_unix_nano=BEGIN + int(each["ms"] * MILLISECOND),
        )
        made.status.code = each["status"]
        put(made.attributes, each.get("attributes", {}))
        for trace, link in each.get("links", ()):
            made.links.add(trace_id=trace, span_id=link)
        for name in each.get("events", ()):
            made.events.add(name=name)
    return request(Signal.TRACES, message)


def logs(*records, **resource):
    message = ExportLogsServiceRequest()
    group = message.resource_logs.add()
    put(group.resource.attributes, {key.replace("__", "."): text for key, text in resource.items()})
    scope = group.scope_logs.add()
    for body, attributes in records:
        made = scope.log_records.add(time_unix_nano=next(COUNTER))
        made.body.string_value = body
        put(made.attributes, attributes)
    return request(Signal.LOGS, message)


def gauges(*names, points=1):
    message = ExportMetricsServiceRequest()
    scope = message.resource_metrics.add().scope_metrics.add()
    for name in names:
        metric = scope.metrics.add(name=name)
        for _ in range(points):
            metric.gauge.data_points.add(as_int=1, time_unix_nano=next(COUNTER))
    return request(Signal.METRICS, message)


def numbers(batch):
    """Name, attributes and value (of a histogram count, sum and buckets) of each point."""
    found = []
    for group in batch.message.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    labels = {pair.key: text_of(pair.value) for pair in point.attributes}
                    value = (
                        point.as_int
                        if kind == "sum"
                        else (point.count, round(point.sum, 9), list(point.bucket_counts))
                    )
                    found.append((metric.name, labels, value))
    return found


def text_of(value):
    return getattr(value, value.WhichOneof("value"))
