"""
Finding traces as Jaeger does: those with one span that meets all conditions, the newest first.

The store narrows down by service, operation, status, duration and time; tags are compared on the
candidates, as text and exactly, with the span's, the resource's and the events' attributes.
"""

import re
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec

from collector.model import Signal
from collector.query.jaeger import shape
from collector.query.parameters import BadParameter
from collector.query.tempo.candidates import Bounds, Reader, weight
from collector.query.traceql.plan import Conditions, Scan
from collector.query.traceql.view import Span, Trace
from collector.stores.base import Query, Store, dumps

LIMIT: Final = 20
MOST: Final = 1000
ANSWER_BYTES: Final = 50 * 1024 * 1024
"""Memory of the spans of one answer."""
HOUR: Final = 3600 * 10**9
MOST_LINKED: Final = 50_000
"""Spans whose parents are looked for when dependencies are counted."""

_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_NANOS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": HOUR,
}  # fmt: skip
_STATUS_TAGS: Final = {("error", "true"): "ERROR", ("otel.status_code", "ERROR"): "ERROR",
                       ("otel.status_code", "OK"): "OK"}  # fmt: skip
_MADE: Final = ("span.kind", "error", "otel.status_code")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a search is for; times in nanoseconds."""

    service: str
    operation: str | None
    tags: dict[str, str]
    least: int
    most: int | None
    since: int
    until: int
    limit: int


def asked(parameters: Mapping[str, str], now: int) -> Asked:
    """
    What the parameters of `traces` ask for.

    Raises:
        BadParameter: with the name and the fix.
    """
    if not parameters.get("service"):
        raise BadParameter("service", "parameter 'service' is required")
    until = micros(parameters, "end", now)
    text = parameters.get("limit") or str(LIMIT)
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MOST:
        raise BadParameter("limit", f"write a whole number from 1 to {MOST}")
    least, most = _duration(parameters, "minDuration"), _duration(parameters, "maxDuration")
    if most is not None and (least or 0) > most:
        raise BadParameter("maxDuration", "less than minDuration; swap them")
    return Asked(
        service=parameters["service"],
        operation=parameters.get("operation") or None,
        tags=_tags(parameters.get("tags", "")),
        least=least or 0,
        most=most,
        since=micros(parameters, "start", until - HOUR),
        until=until,
        limit=int(text),
    )


def micros(parameters: Mapping[str, str], name: str, default: int) -> int:
    """A time in microseconds, or in milliseconds as Grafana writes it for one trace, in nanoseconds."""
    text = parameters.get(name, "")
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,16}", text):
        raise BadParameter(name, "write microseconds since 1970")
    return int(text) * (1000 if len(text) > 14 else 10**6)


def _duration(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name, "")
    if not text:
        return None
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise BadParameter(name, "write a duration such as 500us, 1.2ms or 2s")
    return int(float(parts[1]) * _NANOS[parts[2]])


def _tags(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.DecodeError:
        raise BadParameter("tags", 'write a JSON map of texts: {"error":"true"}') from None


async def search(store: Store, question: Asked, seconds: float) -> tuple[list[Any], str]:
    """The traces, and why there may be more; empty when these are all."""
    reading = Reader(store, Bounds(seconds=seconds))
    status = next(
        (word for pair, word in _STATUS_TAGS.items() if question.tags.get(pair[0]) == pair[1]), None
    )
    conditions = Conditions(
        service=question.service,
        status=status,
        names=(question.operation,) if question.operation else (),
        min_duration_ms=question.least / 1e6 or None,
    )
    scan = Scan(conditions, _test(question))
    ids: dict[str, None] = {}
    scanning = reading.candidates([scan], question.since, question.until + 1000)
    async with aclosing(scanning) as pages:
        async for page, _ in pages:
            ids.update(dict.fromkeys(span.document["trace_id"] for span in page))
            if len(ids) >= question.limit:
                break
    found = await whole(reading, list(ids)[: question.limit])
    return found, reading.partial


async def whole(reading: Reader, ids: list[str]) -> list[Any]:
    """Traces in Jaeger's shape, as far as an answer can hold them, in the order of their ids."""
    made: dict[str, Any] = {}
    size = 0

    def use(trace: Trace) -> None:
        nonlocal size
        spans = [span.document for span in trace.spans]
        size += sum(map(weight, spans))
        if size > ANSWER_BYTES and made:
            reading.partial = reading.partial or f"the answer is larger than {ANSWER_BYTES} bytes"
        else:
            made[trace.id] = shape.trace(spans)

    await reading.whole(ids, use)
    return [made[trace_id] for trace_id in ids if trace_id in made]


def _test(question: Asked) -> Any:
    """Whether a span meets the conditions that the store does not know."""
    tags = question.tags
    # The text of a value stands in the document's JSON; what Jaeger makes itself does not.
    needles = [dumps(value)[1:-1] for key, value in tags.items() if key not in _MADE]

    def test(span: Span) -> bool:
        if span.duration < question.least:
            return False
        if question.most is not None and span.duration > question.most:
            return False
        if not tags:
            return True
        raw = dumps(span.document)
        if not all(needle in raw for needle in needles):
            return False
        made = shape.trace([span.document])
        there = {
            (tag["key"], shape.text(tag))
            for some in (
                *(one["tags"] for one in (*made["spans"], *made["processes"].values())),
                *(log["fields"] for one in made["spans"] for log in one["logs"]),
            )
            for tag in some
        }
        return tags.items() <= there

    return test


async def dependencies(store: Store, since: int, until: int) -> list[dict[str, Any]]:
    """
    Which service has called which, and how often, among the newest spans of a time range.

    As with Jaeger, a trace belongs to the range in which it begins, which does not hold its start:
    ranges side by side add up.
    """
    services: dict[tuple[str, str], str] = {}
    children: list[tuple[tuple[str, str], str]] = []
    begun: set[str] = set()
    query = Query(
        signal=Signal.TRACES, since_unix_nano=since, until_unix_nano=until, newest_first=True,
        limit=1000,
    )  # fmt: skip
    while True:
        page = await store.find(query)
        for span in page:
            services[span["trace_id"], span["span_id"]] = span["service"]
            if span["start_unix_nano"] <= since:
                begun.add(span["trace_id"])
            if "parent_span_id" in span:
                children.append(((span["trace_id"], span["parent_span_id"]), span["service"]))
        if len(page) < query.limit or len(services) >= MOST_LINKED:
            break
        last = page[-1]["start_unix_nano"]
        query = msgspec.structs.replace(
            query, until_unix_nano=last + 1, after=(last, page[-1]["_id"])
        )
    counts: dict[tuple[str, str], int] = {}
    for parent, child in children:
        if parent in services and parent[0] not in begun:
            pair = (services[parent], child)
            counts[pair] = counts.get(pair, 0) + 1
    return [
        {"parent": parent, "child": child, "callCount": count}
        for (parent, child), count in sorted(counts.items())
    ]
