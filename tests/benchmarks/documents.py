"""OTLP bytes -> documents, against protobuf's own MessageToDict on the same bytes."""

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.documents import build
from collector.documents.schema import NATIVE, _walk
from collector.model import Batch, Request, Signal
from tests.benchmarks.measure import best_of, result

SPANS = 1000


def request(spans: int = SPANS) -> bytes:
    """Spans of a web service: 10 attributes each, half of them different in every span."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    for key in ("service.name", "service.version", "host.name", "process.pid", "os.type"):
        group.resource.attributes.add(key=key).value.string_value = "value-of-it"
    scoped = group.scope_spans.add()
    scoped.scope.name = "shop"
    now = time.time_ns()
    for index in range(spans):
        span = scoped.spans.add(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            parent_span_id=os.urandom(8),
            name="GET /orders/{id}",
            kind=2,
            start_time_unix_nano=now + index,
            end_time_unix_nano=now + index + 1_500_000,
        )
        span.status.code = 1
        for key in ("url.path", "client.address", "user_agent.original", "session.id", "user.id"):
            span.attributes.add(key=key).value.string_value = f"{key} {index}"
        span.attributes.add(key="correlation.id").value.string_value = f"{index:032x}"
        span.attributes.add(key="http.request.method").value.string_value = "GET"
        span.attributes.add(key="http.response.status_code").value.int_value = 200
        span.attributes.add(key="risk.confidence").value.double_value = 0.925
        span.attributes.add(key="cache.hit").value.bool_value = True
    return message.SerializeToString()


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Microseconds per span, decoding of the bytes included on every side."""
    wire = request()
    origin = Request(time.time_ns(), os.urandom(16))

    def ours() -> object:
        message = ExportTraceServiceRequest.FromString(wire)
        return build.documents(Batch(Signal.TRACES, message, origin, wire))

    sides = best_of(
        15,
        ours=ours,
        python=lambda: _walk(ExportTraceServiceRequest.FromString(wire)),
        peer=lambda: MessageToDict(ExportTraceServiceRequest.FromString(wire)),
    )
    each = {name: seconds / SPANS * 1e6 for name, seconds in sides.items()}
    core = "native" if NATIVE else "python"
    yield result(
        f"OTLP to documents, {core} core",
        each["ours"],
        "us/span",
        peer="google.protobuf.json_format.MessageToDict",
        peer_value=each["peer"],
        ratio_at_least=7,
    )
    yield result(
        "the walk of the Python twin alone",
        each["python"],
        "us/span",
        peer="google.protobuf.json_format.MessageToDict",
        peer_value=each["peer"],
    )
    made = build.documents(
        Batch(Signal.TRACES, ExportTraceServiceRequest.FromString(wire), origin, wire)
    )
    best = best_of(15, dumps=lambda: [build.dumps(document) for document in made])
    yield result("documents to JSON", best["dumps"] / SPANS * 1e6, "us/span")
