"""
Hand-made documents for the tests of questions and answers: one order that goes wrong.

The correlation id `corr-1` occurs in two traces: the HTTP request with the worker that it sets off
(one span failed, one span whose parent never arrived, one log whose span never arrived), and a
retry that went well. A third kind of record carries the id without any trace.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from collector.documents.build import Document
from collector.model import Signal
from collector.stores.base import Query, Written, event_time
from collector.stores.query_match import matches

T0 = 1759487415123000000  # 2025-10-03 10:30:15.123 UTC
FIRST = "0af7651916cd43dd8448eb211c80319c"
SECOND = "1bf7651916cd43dd8448eb211c80319d"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RECEIVED = datetime(2100, 1, 1, tzinfo=UTC)  # no retention is over before


def at(ms: float) -> int:
    """Nanoseconds of `ms` after the beginning."""
    return T0 + round(ms * 1e6)


def moment(unix_nano: int) -> datetime:
    return EPOCH + timedelta(microseconds=unix_nano // 1000)


def span(trace_id: str, span_id: str, name: str, start: float, end: float, **more: Any) -> Document:
    """A span; ids of one letter are repeated to their length."""
    parent = more.pop("parent", None)
    if parent:
        more["parent_span_id"] = parent * 16
    return {
        "_id": f"{T0 // 10**9:08x}{trace_id[0]}{span_id * 15}",
        "received_at": RECEIVED,
        "service": "shop-api",
        "trace_id": trace_id,
        "span_id": span_id * 16,
        "name": name,
        "start": moment(at(start)),
        "start_unix_nano": at(start),
        "end_unix_nano": at(end),
        "duration_ms": max(0.0, (at(end) - at(start)) / 1e6),
        "status": "UNSET",
        **more,
    }


def log(number: int, time: float, level: str, message: str, **more: Any) -> Document:
    """A log record; `within=(trace id, letter of the span)` ties it to a span."""
    within = more.pop("within", None)
    if within:
        more["trace"] = {"trace_id": within[0], "span_id": within[1] * 16, **more.get("trace", {})}
    severity = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17, "CRITICAL": 21}
    return {
        "_id": f"{T0 // 10**9:08x}{number:016x}",
        "received_at": RECEIVED,
        "timestamp": moment(at(time)),
        "time_unix_nano": at(time),
        "level": level,
        "severity_number": severity[level],
        "service": "shop-api",
        "message": message,
        **more,
    }


API = {"correlation_id": "corr-1", "request_id": "req-1"}
TASK = {"correlation_id": "corr-1", "task_id": "task-1", "order_id": "order-42"}
RETRY = {"correlation_id": "corr-1", "task_id": "task-2", "order_id": "order-42"}

SPANS = [
    span(
        FIRST,
        "a",
        "POST /orders",
        0,
        245,
        kind="SERVER",
        status="ERROR",
        attributes={"http.route": "/orders", "http.response.status_code": 500, "other": "x"},
        context=API,
    ),
    span(FIRST, "b", "validate", 2, 20, kind="INTERNAL", parent="a", context=API),
    span(FIRST, "c", "send open_order", 25, 40, kind="PRODUCER", parent="a", context=API),
    span(
        FIRST,
        "d",
        "run/open_order",
        50,
        200,
        service="worker-open",
        kind="CONSUMER",
        parent="c",
        status="ERROR",
        status_message="no margin",
        attributes={"error.type": "ValueError"},
        context=TASK,
        events=[
            {
                "name": "exception",
                "time_unix_nano": at(195),
                "attributes": {
                    "exception.type": "ValueError",
                    "exception.message": "no margin",
                    "exception.stacktrace": "Traceback:\n  in margin\nValueError: no margin",
                },
            },
            {"name": "locked", "time_unix_nano": at(55), "attributes": {"rows": 3}},
        ],
    ),
    span(
        FIRST,
        "e",
        "calculate the margin and the commission of the account",
        60,
        120,
        service="worker-open",
        kind="CLIENT",
        parent="d",
        attributes={"db.system.name": "mongodb"},
        context=TASK,
    ),
    span(FIRST, "f", "late", 210, 230, service="worker-close", parent="9"),
    span(
        SECOND,
        "a",
        "run/open_order",
        5000,
        6500,
        service="worker-open",
        kind="CONSUMER",
        status="OK",
        context=RETRY,
        links=[{"trace_id": FIRST, "span_id": "d" * 16}],
    ),
    span("2" * 32, "a", "GET /health", 1, 2, kind="SERVER", context={"correlation_id": "other"}),
]
LOGS = [
    log(1, 1, "INFO", "order received", within=(FIRST, "a"), context=API, attributes={"lots": 0.5}),
    log(
        2,
        190,
        "ERROR",
        "order failed because there was not enough margin in the account",
        within=(FIRST, "d"),
        service="worker-open",
        context=TASK,
        attributes={"account": "a b", "retry": False},
        exception={
            "type": "ValueError",
            "message": "no margin",
            "stacktrace": "Traceback:\n  in margin\nValueError: no margin",
        },
    ),
    log(3, 235, "WARNING", "nobody's child", within=(FIRST, "8"), context={}),
    log(
        4,
        6400,
        "INFO",
        "order opened",
        within=(SECOND, "a"),
        service="worker-open",
        context=RETRY,
        trace={"execution_time_ms": 1400.5, "status": "success"},
    ),
    log(5, 7000, "DEBUG", "nightly report", service="batch", context={"correlation_id": "corr-1"}),
    log(6, 8000, "CRITICAL", "Database unreachable", service="batch"),
]
LOGS[2].pop("context")


class Remembering:
    """A store in memory that keeps the contract: for tests that need odd documents or faults."""

    def __init__(self, spans: Sequence[Document] = (), logs: Sequence[Document] = ()) -> None:
        self.documents = {Signal.TRACES: list(spans), Signal.LOGS: list(logs), Signal.METRICS: []}
        self.queries: list[Query] = []

    async def __call__(self, batch: Any) -> None:
        raise NotImplementedError

    async def write(self, signal: Signal, documents: Sequence[Document]) -> Written:
        self.documents[signal].extend(documents)
        return Written(len(documents))

    async def find(self, query: Query) -> list[Document]:
        self.queries.append(query)
        key = {id(d): (event_time(query.signal, d), d["_id"]) for d in self.documents[query.signal]}
        match = matches(query)
        found = [document for document in self.documents[query.signal] if match(document)]
        if query.after is not None:
            found = [
                document
                for document in found
                if (
                    key[id(document)] < query.after
                    if query.newest_first
                    else key[id(document)] > query.after
                )
            ]
        found.sort(key=lambda document: key[id(document)], reverse=query.newest_first)
        return found[: query.limit]

    def describe(self) -> str:
        return "memory"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass
