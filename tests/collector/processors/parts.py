"""What the tests of the processors share: batches, a remembering sink, a service from YAML."""

import json
import logging

import msgspec

from collector.config import load
from collector.model import Batch, Host, Request, Signal
from collector.otlp import encode_json, new_message, request_key
from collector.processors.shared.attribute_map import (
    set_value,
)
from collector.service.service import Service
from collector.stats import Stats

LOG = logging.getLogger("collector.component.test")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Source:
    """A receiver that the test drives itself: `service.component(SOURCE).next[signal](batch)`."""

    Config = Nothing

    def __init__(self, config, host, following):
        self.next = following

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        pass


class Sink:
    """An exporter that remembers what it took, after failing as it was told."""

    Config = Nothing

    def __init__(self, config=None, host=None):
        self.batches = []
        self.errors = []

    async def __call__(self, batch):
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
        self.batches.append(batch)

    @property
    def seen(self):
        return [plain(batch) for batch in self.batches]


SOURCE = f"{__name__}:Source"
SINK = f"{__name__}:Sink"


def host(name="test"):
    return Host(name, Stats(), LOG)


def service(tmp_path, processors, signals=("traces", "metrics", "logs")):
    """A real service: the source, these processors (YAML by id), the remembering sink."""
    config = {
        "receivers": {SOURCE: {}},
        "processors": processors,
        "exporters": {SINK: {}},
        "service": {
            "pipelines": {
                signal: {"receivers": [SOURCE], "processors": [*processors], "exporters": [SINK]}
                for signal in signals
            }
        },
    }
    path = tmp_path / "collector.yaml"
    path.write_text(json.dumps(config))
    return Service(load([str(path)], [], {}))


async def through(tmp_path, processors, *batches):
    """Send batches through a service; what came out as OTLP/JSON, and the processors' counters."""
    async with service(tmp_path, processors) as running:
        source, sink = running.component(SOURCE), running.component(SINK)
        for batch in batches:
            await source.next[batch.signal](batch)
    counters = {
        name: value for name, value in running.stats.snapshot().items() if 'processor="' in name
    }
    return sink.seen, counters


def plain(batch):
    """A batch as OTLP/JSON, to compare whole."""
    return json.loads(encode_json(batch.message, batch.signal))


def batch(signal, groups, key=None):
    """
    A batch from a short form.

    Args:
        signal: of the batch.
        key: the request's; else as the receiver makes it.
        groups: [(resource attributes, scope name, [item])]; an item is a dict of fields, in which
            `attributes` is a dict and `points` (metrics) a list of (attributes, value).
    """
    message = new_message(signal)
    for resource, scope, found in groups:
        names = {
            Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
            Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
            Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
        }[signal]
        group = getattr(message, names[0]).add()
        fill(group.resource.attributes, resource)
        scoped = getattr(group, names[1]).add()
        scoped.scope.name = scope
        for item in found:
            add(signal, getattr(scoped, names[2]).add(), dict(item))
    wire = message.SerializeToString()
    request = Request(1_700_000_000_000_000_000, key or request_key("", signal, wire), "", "test")
    return Batch(signal, message, request, wire)


def fill(pairs, attributes):
    for key, value in attributes.items():
        set_value(pairs.add(key=key).value, value)


def add(signal, target, item):
    if signal is Signal.METRICS:
        for attributes, value in item.pop("points", []):
            point = target.gauge.data_points.add(as_int=value, time_unix_nano=1)
            fill(point.attributes, attributes)
    else:
        fill(target.attributes, item.pop("attributes", {}))
    if "body" in item:
        set_value(target.body, item.pop("body"))
    for event, attributes in item.pop("events", []):
        fill(target.events.add(name=event).attributes, attributes)
    for attributes in item.pop("links", []):
        fill(target.links.add().attributes, attributes)
    status = item.pop("status", None)
    if status is not None:
        target.status.code, target.status.message = status
    for name, value in item.items():
        setattr(target, name, value)


def span(name="", number=1, **more):
    """A span of trace `number`."""
    return {"name": name, "trace_id": number.to_bytes(16), "span_id": number.to_bytes(8), **more}


def traces(*spans, resource=None, key=None):
    return batch(Signal.TRACES, [(resource or {}, "scope", spans)], key)


def logs(*records, resource=None, key=None):
    return batch(Signal.LOGS, [(resource or {}, "scope", records)], key)


def metrics(*found, resource=None, key=None):
    return batch(Signal.METRICS, [(resource or {}, "scope", found)], key)


def names_of(message):
    """The names (of log records the bodies) of all items in a batch, OTLP/JSON or not."""
    found = plain(message) if isinstance(message, Batch) else message
    return [
        item.get("name", item.get("body", {}).get("stringValue"))
        for groups in found.values()
        for group in groups
        for key, scopes in group.items()
        if key.startswith("scope")
        for scope in scopes
        for name, items in scope.items()
        if name in ("spans", "metrics", "logRecords")
        for item in items
    ]
