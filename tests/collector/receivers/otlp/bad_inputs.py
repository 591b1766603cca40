"""
The bad-input catalogue: what arrives at a receiver in the worst case, each with good neighbours.

A case is one request (or whatever somebody sends instead), the answer that it must get, and whether
the good records that travel in the same request are stored. `CASES` holds all of them by a name
that begins with its row. Here is how a case is written; the cases are in bad_structure.py,
bad_content.py and bad_access.py, how they are sent and judged is in test_catalogue.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from collector.model import Signal
from collector.otlp import new_message

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MIB = 1 << 20
NOW = 1_790_000_000_000_000_000
TRACE, SPAN = (
    b"\x5b\x8e\xff\xf7\x98\x03\x81\x03\xd2\x69\xb6\x33\x81\x3f\xc6\x0c",
    b"\xee\xe1\x9b\x7e\xc3\xc1\xb1\x74",
)
PATHS = {signal: f"/v1/{signal}" for signal in Signal}

Body = Callable[[str], bytes]
"""The body of a request whose good records carry this mark."""


@dataclass(frozen=True)
class Case:
    """
    One thing that is sent.

    Args:
        id: row and words.
        how: "http", "grpc" or "raw".
        body: what is sent, for a mark.
        answer: status, code, or b"" for a connection that is closed without a word; any of several.
        stored: how often the mark of a good record must be stored.
        text: part of the message of the answer.
        rejected: how many items the answer names as refused.
        signal: which service or path.
        kind: the content type.
        path: instead of that of the signal.
        method: of HTTP.
        headers: of HTTP, or metadata.
        guarded: whether it goes to the receiver that wants a token.
        times: how often it is sent, at once.
    """

    id: str
    how: str
    body: Body
    answer: tuple[Any, ...]
    stored: int = 2
    text: str = ""
    rejected: int = 0
    signal: Signal = Signal.LOGS
    kind: str | None = PROTOBUF
    path: str | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    guarded: bool = False
    times: int = 1


CASES: dict[str, Case] = {}


def add(row: str, how: str, words: str, body: Body, answer: Any, **more: Any) -> None:
    name = f"{row}-{how}-{words}"
    assert name not in CASES, name
    answers = answer if isinstance(answer, tuple) else (answer,)
    if answers[0] not in (200, "OK"):
        more.setdefault("stored", 0)
    CASES[name] = Case(name, how, body, answers, **more)


def both(row: str, words: str, body: Body, status: int, code: str, **more: Any) -> None:
    add(row, "http", words, body, status, **more)
    add(row, "grpc", words, body, code, **more)


def fine(row: str, words: str, body: Body, **more: Any) -> None:
    both(row, words, body, 200, "OK", **more)


# --- building requests ---


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def framed(tag: int, value: bytes) -> bytes:
    return varint(tag) + varint(len(value)) + value


def good(signal: Signal, mark: str) -> bytes:
    """One good record."""
    message = new_message(signal)
    fill(one(signal, message), signal, mark)
    group = getattr(
        message,
        {"traces": "resource_spans", "metrics": "resource_metrics", "logs": "resource_logs"}[
            signal
        ],
    )[0]
    items = getattr(
        group, {"traces": "scope_spans", "metrics": "scope_metrics", "logs": "scope_logs"}[signal]
    )[0]
    found: bytes = getattr(
        items, {"traces": "spans", "metrics": "metrics", "logs": "log_records"}[signal]
    )[0].SerializeToString()
    return found


def one(signal: Signal, message: Any) -> Any:
    """A new record in the first group of a request."""
    if signal is Signal.TRACES:
        groups, inner, items = message.resource_spans, "scope_spans", "spans"
    elif signal is Signal.METRICS:
        groups, inner, items = message.resource_metrics, "scope_metrics", "metrics"
    else:
        groups, inner, items = message.resource_logs, "scope_logs", "log_records"
    group = groups[0] if groups else groups.add()
    scopes = getattr(group, inner)
    scope = scopes[0] if scopes else scopes.add()
    return getattr(scope, items).add()


def fill(record: Any, signal: Signal, mark: str) -> None:
    """Make a record a good one."""
    if signal is Signal.TRACES:
        record.trace_id, record.span_id, record.name = TRACE, SPAN, mark
        record.start_time_unix_nano, record.end_time_unix_nano = NOW, NOW + 1
    elif signal is Signal.METRICS:
        record.name = mark
        record.gauge.data_points.add(time_unix_nano=NOW, as_int=1)
    else:
        record.time_unix_nano = NOW
        record.body.string_value = mark


def spoilt(signal: Signal, spoil: Callable[[Any, Any, Any], None], damage: bytes = b"") -> Body:
    """Good, bad, good: `spoil` is given resource group, scope group and the record in the middle."""

    def body(mark: str) -> bytes:
        message = new_message(signal)
        for text in (mark, "", mark):
            record = one(signal, message)
            fill(record, signal, text)
            if not text:
                bad = record
        group = next(value[0] for _, value in message.ListFields())
        scope = next(value[0] for one, value in group.ListFields() if one.name.startswith("scope_"))
        items = next(value for _, value in scope.ListFields())
        spoil(group, scope, items[1])
        assert bad is not None
        data: bytes = message.SerializeToString()
        return data.replace(b"@@", damage) if damage else data

    return body


def around(signal: Signal, item: bytes, *, behind: bytes = b"") -> Body:
    """Good, bad, good, where the bad record is given as its bytes."""

    def body(mark: str) -> bytes:
        fine_one = framed(0x12, good(signal, mark))
        return framed(0x0A, framed(0x12, fine_one + framed(0x12, item) + fine_one)) + behind

    return body


def in_json(signal: Signal, item: str, *, more: str = "") -> Body:
    """The same in JSON; `item` is the text of the bad record, `more` of further members on top."""

    def body(mark: str) -> bytes:
        head, inner, items, neighbour = {
            Signal.TRACES: (
                "resourceSpans",
                "scopeSpans",
                "spans",
                {"traceId": TRACE.hex(), "spanId": SPAN.hex(), "name": mark},
            ),
            Signal.METRICS: (
                "resourceMetrics",
                "scopeMetrics",
                "metrics",
                {"name": mark, "gauge": {"dataPoints": [{"asInt": "1"}]}},
            ),
            Signal.LOGS: (
                "resourceLogs",
                "scopeLogs",
                "logRecords",
                {"body": {"stringValue": mark}},
            ),
        }[signal]
        text = json.dumps(neighbour)
        return f'{{"{head}":[{{"{inner}":[{{"{items}":[{text},{item},{text}]}}]}}]{more}}}'.encode()

    return body


def plain(signal: Signal = Signal.LOGS) -> Body:
    """Two good records."""
    return around(signal, b"") if signal is Signal.LOGS else spoilt(signal, lambda *_: None)


def attribute(owner: Any, key: str, **value: Any) -> None:
    """One attribute of anything."""
    pair = owner.attributes.add(key=key)
    for name, inner in value.items():
        setattr(pair.value, name, inner)


def owner_of(signal: Signal, record: Any) -> Any:
    """What carries the attributes of a record."""
    return record.gauge.data_points[0] if signal is Signal.METRICS else record


def set_attribute(signal: Signal, key: str, **value: Any) -> Callable[[Any, Any, Any], None]:
    return lambda _group, _scope, record: attribute(owner_of(signal, record), key, **value)


def setting(**fields: Any) -> Callable[[Any, Any, Any], None]:
    def spoil(_group: Any, _scope: Any, record: Any) -> None:
        for name, value in fields.items():
            setattr(record, name, value)

    return spoil
