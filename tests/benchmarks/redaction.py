"""
What redaction costs: a log record, a span and a traceback, redacted and encoded, beside encoding only.

It is paid by the background thread, per record that is sent. Texts vary, as they do in programs, so
that only names and constant values are remembered. The peer is OpenTelemetry's own OTLP encoder on
the same records: redaction must stay small beside it. The last case is a text made to be slow.
"""

import argparse
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from telemetry import Redaction
from telemetry._export.record_redactor import Records
from telemetry._redaction.policy import Policy
from telemetry._redaction.redactor import Redactor
from tests.benchmarks.measure import best_of, result

RECORDS = 500
ROUNDS = 15
RESOURCE = Resource({"service.name": "bench"})


def attributes(number: int) -> dict[str, Any]:
    """What a program puts on a record: ids, numbers, and texts that repeat."""
    return {
        "order.id": f"o-{number}",
        "customer_id": f"{number:032x}",
        "tenant.id": "t-1",
        "items": 3,
        "score": number / 7,
        "url.path": f"/orders/{number}/items",
        "code.file.path": "/srv/shop/orders.py",
        "code.function.name": "load_order",
        "code.line.number": 42,
    }


def log(number: int, body: str) -> ReadableLogRecord:
    """A log record."""
    record = LogRecord(
        timestamp=time.time_ns(),
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        body=body,
        attributes=attributes(number),
    )
    return ReadableLogRecord(record, RESOURCE)


def span(number: int) -> ReadableSpan:
    """An ended span."""
    return ReadableSpan(
        "load order",
        SpanContext(number + 1, number + 1, is_remote=False, trace_flags=TraceFlags(1)),
        resource=RESOURCE,
        attributes=attributes(number),
        start_time=1,
        end_time=2,
    )


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Cost per record, and what it is of the cost of encoding it."""
    try:
        int("x")
    except ValueError as error:
        stack = "".join(traceback.format_exception(error)) * 20
    plain = [log(n, f"order {n} loaded from database in {n / 10} ms") for n in range(RECORDS)]
    leaky = [
        log(n, f"GET https://h/orders?id={n}&token=x{n}abcdef for a{n}@b.com")
        for n in range(RECORDS)
    ]
    failed = [log(n, f"order {n} failed: {stack}") for n in range(RECORDS // 10)]
    spans = [span(n) for n in range(RECORDS)]
    cases: list[tuple[str, list[Any], Callable[[Records, Any], Any], Callable[[Any], Any]]] = [
        ("log record", plain, Records.log, encode_logs),
        ("log record with a secret and an address", leaky, Records.log, encode_logs),
        (
            f"log record with a traceback of {len(stack)} characters",
            failed,
            Records.log,
            encode_logs,
        ),
        ("span", spans, Records.span, encode_spans),
    ]
    for case, items, redact, encode in cases:
        records = Records(Redactor(Policy(Redaction())))

        def ours(
            items: list[Any] = items, records: Records = records, redact: Any = redact
        ) -> None:
            records.redactor.policy.clean.clear()
            for item in items:
                redact(records, item)

        def peer(items: list[Any] = items, encode: Any = encode) -> None:
            encode(items).SerializeToString()

        best = best_of(ROUNDS, ours=ours, peer=peer)
        yield result(
            f"{case}, redacting",
            best["ours"] / len(items) * 1e6,
            "us",
            peer="encoding the same record as OTLP",
            peer_value=best["peer"] / len(items) * 1e6,
        )
    redactor = Redactor(Policy(Redaction()))
    worst = 'password="\\"' * (64 * 1024 // 12)
    best = best_of(3, ours=lambda: redactor.text(worst))
    yield result("64 KiB made to be slow", best["ours"] * 1e3, "ms", at_most=250)
