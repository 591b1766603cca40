"""Batches of log records and spans for the tests of the file exporter."""

import asyncio
import json
import logging
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.exporters.file.exporter import File
from collector.model import Batch, Host, Request, Signal
from collector.stats import Stats

BEGIN = 1_700_000_000_000_000_000
SEVERITY = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
GIVE_UP_S = 60


def put(attributes, values):
    """Add attributes to a message; text, bool, int, float and lists of text."""
    for key, value in values.items():
        one = attributes.add(key=key).value
        if isinstance(value, bool):
            one.bool_value = value
        elif isinstance(value, int):
            one.int_value = value
        elif isinstance(value, float):
            one.double_value = value
        elif isinstance(value, list):
            for each in value:
                one.array_value.values.add().string_value = each
        else:
            one.string_value = value


def log(body, *, service="app", logger="app", level="INFO", event="", resource=None, **attributes):
    """What `logs` makes a record of; attributes are named with `__` for a dot."""
    return {
        "body": body,
        "service": service,
        "logger": logger,
        "level": level,
        "event": event,
        "resource": resource or {},
        "attributes": {key.replace("__", "."): value for key, value in attributes.items()},
    }


def logs(*records):
    """A batch of log records, each a text or a `log`."""
    message = ExportLogsServiceRequest()
    for each in records:
        record = log(each) if isinstance(each, str) else each
        group = message.resource_logs.add()
        resource = {**record["resource"]}
        if record["service"] is not None:
            resource["service.name"] = record["service"]
        put(group.resource.attributes, resource)
        scoped = group.scope_logs.add()
        scoped.scope.name = record["logger"]
        made = scoped.log_records.add(
            time_unix_nano=BEGIN,
            severity_number=SEVERITY[record["level"]],
            event_name=record["event"],
        )
        made.body.string_value = record["body"]
        put(made.attributes, record["attributes"])
    return Batch(Signal.LOGS, message, Request(BEGIN, b"k" * 16))


def spans(*names, service="app", **attributes):
    """A batch of spans."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    put(group.resource.attributes, {"service.name": service})
    scoped = group.scope_spans.add()
    for number, name in enumerate(names, 1):
        made = scoped.spans.add(
            trace_id=bytes(15) + b"\1",
            span_id=number.to_bytes(8, "big"),
            name=name,
            kind=1,
            start_time_unix_nano=BEGIN,
            end_time_unix_nano=BEGIN + 1_500_000,
        )
        put(made.attributes, {key.replace("__", "."): value for key, value in attributes.items()})
    return Batch(Signal.TRACES, message, Request(BEGIN, b"k" * 16))


def points(name, *values):
    """A batch of points of a gauge."""
    message = ExportMetricsServiceRequest()
    group = message.resource_metrics.add()
    put(group.resource.attributes, {"service.name": "app"})
    metric = group.scope_metrics.add().metrics.add(name=name, unit="s")
    for value in values:
        metric.gauge.data_points.add(time_unix_nano=BEGIN, as_double=value)
    return Batch(Signal.METRICS, message, Request(BEGIN, b"k" * 16))


class Clock:
    """Seconds since 1970 that a test sets."""

    def __init__(self, now=BEGIN / 1e9):
        self.now = now

    def __call__(self):
        return self.now


def host(stats=None):
    return Host("file", stats or Stats(), logging.getLogger("collector.component.file"))


def exporter(stats=None, clock=time.time, turn_s=60.0, **settings):
    """A file exporter, not started."""
    return File(File.Config(**settings), host(stats), clock, turn_s)


def texts(path):
    """The messages (names) in a file of documents."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [each.get("message", each.get("name")) for each in found]


def tree(folder):
    """What is below a folder: each file with the messages in it."""
    return {
        str(path.relative_to(folder)): texts(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".journal")
    }


async def until(holds):
    """Wait until something holds that another thread does."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + GIVE_UP_S
    while not holds():
        assert loop.time() < give_up
        await asyncio.sleep(0.01)
