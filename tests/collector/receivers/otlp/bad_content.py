"""Cases of content: B25 to B39, B45, and text that steers something (B60)."""

import json
from typing import Any

from collector.model import Signal
from tests.collector.receivers.otlp.bad_inputs import (
    JSON,
    NOW,
    SPAN,
    TRACE,
    add,
    around,
    attribute,
    both,
    fine,
    framed,
    good,
    in_json,
    plain,
    set_attribute,
    setting,
    spoilt,
)

BAD_TEXTS = {
    Signal.LOGS: {
        "body": lambda _g, _s, r: setattr(r.body, "string_value", "@@"),
        "severity": setting(severity_text="@@"),
        "event": setting(event_name="@@"),
        "key": set_attribute(Signal.LOGS, "@@", int_value=1),
        "value": set_attribute(Signal.LOGS, "k", string_value="@@"),
        "nested": lambda _g, _s, r: setattr(
            r.attributes.add(key="k").value.array_value.values.add(), "string_value", "@@"
        ),
        "resource-key": lambda g, _s, _r: attribute(g.resource, "@@", int_value=1),
        "resource-value": lambda g, _s, _r: attribute(g.resource, "k", string_value="@@"),
        "schema": lambda g, _s, _r: setattr(g, "schema_url", "@@"),
        "scope-name": lambda _g, s, _r: setattr(s.scope, "name", "@@"),
        "scope-version": lambda _g, s, _r: setattr(s.scope, "version", "@@"),
        "scope-value": lambda _g, s, _r: attribute(s.scope, "k", string_value="@@"),
    },
    Signal.TRACES: {
        "name": setting(name="@@"),
        "state": setting(trace_state="@@"),
        "status": lambda _g, _s, r: setattr(r.status, "message", "@@"),
        "key": set_attribute(Signal.TRACES, "@@", int_value=1),
        "value": set_attribute(Signal.TRACES, "k", string_value="@@"),
        "event-name": lambda _g, _s, r: r.events.add(name="@@") and None,
        "event-value": lambda _g, _s, r: attribute(r.events.add(name="e"), "k", string_value="@@"),
        "link-state": lambda _g, _s, r: r.links.add(trace_state="@@") and None,
        "link-value": lambda _g, _s, r: attribute(r.links.add(), "k", string_value="@@"),
    },
    Signal.METRICS: {
        "name": setting(name="@@"),
        "description": setting(description="@@"),
        "unit": setting(unit="@@"),
        "key": set_attribute(Signal.METRICS, "@@", int_value=1),
        "value": set_attribute(Signal.METRICS, "k", string_value="@@"),
        "exemplar": lambda _g, _s, r: setattr(
            r.gauge.data_points[0].exemplars.add().filtered_attributes.add(key="k").value,
            "string_value",
            "@@",
        ),
    },
}
for signal, spoils in BAD_TEXTS.items():
    for number, (words, spoil) in enumerate(spoils.items()):
        damage = (b"\xc3\x28", b"\xff\xfe", b"\xed\xa0")[number % 3]
        how = ("http", "grpc")[number % 2]
        add(
            "B25",
            how,
            f"{signal}-{words}",
            spoilt(signal, spoil, damage),
            200 if how == "http" else "OK",
            signal=signal,
        )
add(
    "B25",
    "http",
    "json-surrogate",
    in_json(Signal.LOGS, '{"body":{"stringValue":"\\ud800"}}'),
    200,
    kind=JSON,
)
add(
    "B25",
    "http",
    "json-utf8",
    lambda mark: in_json(Signal.LOGS, '{"body":{"stringValue":"@@"}}')(mark).replace(
        b"@@", b"\xff"
    ),
    200,
    kind=JSON,
)

for signal, item in (
    (Signal.LOGS, b"\x2a\x7f"),
    (Signal.TRACES, b"\x0a\x7f"),
    (Signal.METRICS, b"\x2a\x7f"),
):
    fine(
        "B27",
        f"item-{signal}",
        around(signal, item),
        signal=signal,
        rejected=1,
        text="cannot be decoded",
    )
    both(
        "B27",
        f"framing-{signal}",
        around(signal, b"", behind=b"\x0a\x7f"),
        400,
        "INVALID_ARGUMENT",
        signal=signal,
    )
both("B27", "noise", lambda _: bytes(range(256)), 400, "INVALID_ARGUMENT")
both("B27", "text", lambda _: b"hello", 400, "INVALID_ARGUMENT")
add("B27", "http", "json-as-protobuf", in_json(Signal.LOGS, "{}"), 400)
add("B27", "http", "protobuf-as-json", plain(), 400, kind=JSON)

IDS = {
    "trace-empty": {"trace_id": b""},
    "trace-zero": {"trace_id": bytes(16)},
    "trace-short": {"trace_id": b"1234"},
    "trace-long": {"trace_id": b"1" * 17},
    "span-empty": {"span_id": b""},
    "span-zero": {"span_id": bytes(8)},
    "span-short": {"span_id": b"1"},
    "span-long": {"span_id": b"1" * 9},
}
for number, (words, fields) in enumerate(IDS.items()):
    how = ("http", "grpc")[number % 2]
    expected = 200 if how == "http" else "OK"
    add(
        "B28",
        how,
        f"traces-{words}",
        spoilt(Signal.TRACES, setting(**fields)),
        expected,
        signal=Signal.TRACES,
        rejected=1,
        text="trace id or span id",
    )
    add(
        "B28",
        how,
        f"logs-{words}",
        spoilt(Signal.LOGS, setting(**{"trace_id": TRACE, "span_id": SPAN, **fields})),
        expected,
    )
fine(
    "B28",
    "parent-zero",
    spoilt(Signal.TRACES, setting(parent_span_id=bytes(8))),
    signal=Signal.TRACES,
)
fine(
    "B28", "parent-short", spoilt(Signal.TRACES, setting(parent_span_id=b"1")), signal=Signal.TRACES
)


def json_span(**members: Any) -> str:
    return json.dumps({"traceId": TRACE.hex(), "spanId": SPAN.hex(), "name": "x", **members})


for words, value, refused in (
    ("upper", TRACE.hex().upper(), 0),
    ("base64", "W47/95gDgQPSabYzgT/GDA==", 1),
    ("odd", TRACE.hex()[:-1], 1),
    ("short", TRACE.hex()[:-2], 1),
    ("letters", "g" * 32, 1),
    ("number", 5, 1),
    ("list", [1], 1),
):
    add(
        "B29",
        "http",
        words,
        in_json(Signal.TRACES, json_span(traceId=value)),
        200,
        signal=Signal.TRACES,
        kind=JSON,
        rejected=refused,
    )

for words, nanos in (
    ("zero", 0),
    ("one", 1),
    ("two-days-ahead", NOW + 172_800_000_000_000),
    ("2554", 2**63 + 2**62),
    ("most", 2**64 - 1),
):
    row = "B30" if nanos == 0 else "B31"
    fine(
        row,
        f"logs-{words}",
        spoilt(Signal.LOGS, setting(time_unix_nano=nanos, observed_time_unix_nano=nanos)),
    )
    fine(
        row,
        f"traces-{words}",
        spoilt(Signal.TRACES, setting(start_time_unix_nano=nanos, end_time_unix_nano=nanos)),
        signal=Signal.TRACES,
    )
    fine(
        row,
        f"metrics-{words}",
        spoilt(
            Signal.METRICS,
            lambda _g, _s, r, n=nanos: setattr(r.gauge.data_points[0], "time_unix_nano", n),
        ),
        signal=Signal.METRICS,
    )
fine(
    "B32",
    "end-before-start",
    spoilt(Signal.TRACES, setting(start_time_unix_nano=NOW, end_time_unix_nano=NOW - 5)),
    signal=Signal.TRACES,
)


def histogram(record: Any) -> Any:
    record.ClearField("gauge")
    return record.histogram.data_points.add(time_unix_nano=NOW, explicit_bounds=[1.0])


fine(
    "B33",
    "count",
    spoilt(Signal.METRICS, lambda _g, _s, r: setattr(histogram(r), "count", 2**64 - 1)),
    signal=Signal.METRICS,
)
fine(
    "B33",
    "bucket",
    spoilt(Signal.METRICS, lambda _g, _s, r: histogram(r).bucket_counts.extend([2**64 - 1, 0])),
    signal=Signal.METRICS,
)
fine(
    "B33",
    "flags",
    spoilt(Signal.TRACES, setting(flags=2**32 - 1, dropped_events_count=2**32 - 1)),
    signal=Signal.TRACES,
)
fine(
    "B33", "smallest-int", spoilt(Signal.LOGS, set_attribute(Signal.LOGS, "k", int_value=-(2**63)))
)
for words, number in (("nan", float("nan")), ("inf", float("inf")), ("minus-inf", float("-inf"))):
    fine(
        "B34",
        f"point-{words}",
        spoilt(
            Signal.METRICS,
            lambda _g, _s, r, n=number: setattr(r.gauge.data_points[0], "as_double", n),
        ),
        signal=Signal.METRICS,
    )
    fine(
        "B34",
        f"attribute-{words}",
        spoilt(Signal.LOGS, set_attribute(Signal.LOGS, "k", double_value=number)),
    )
for words in ("NaN", "Infinity", "-Infinity"):
    value = '{"attributes":[{"key":"k","value":{"doubleValue":%s}}]}'
    add(
        "B34",
        "http",
        f"json-quoted-{words}",
        in_json(Signal.LOGS, value % f'"{words}"'),
        200,
        kind=JSON,
    )
    add("B34", "http", f"json-bare-{words}", in_json(Signal.LOGS, value % words), 400, kind=JSON)
fine(
    "B35",
    "attributes",
    spoilt(
        Signal.LOGS, lambda _g, _s, r: [attribute(r, "k", int_value=n) for n in range(3)] and None
    ),
)
add(
    "B35",
    "http",
    "json-members",
    in_json(Signal.LOGS, '{"timeUnixNano":"1","timeUnixNano":"2"}'),
    400,
    kind=JSON,
    text="duplicate JSON member",
)
KEYS = {
    "dotted": "a.b",
    "where": "$where",
    "nul": "a\0b",
    "empty": "",
    "proto": "__proto__",
    "id": "_id",
    "ref": "$ref",
    "binary": "$binary",
    "blank": " ",
    "long-dots": "." * 200,
}
for number, (words, key) in enumerate(KEYS.items()):
    signal = list(Signal)[number % 3]
    fine(
        "B36",
        f"{signal}-{words}",
        spoilt(signal, set_attribute(signal, key, string_value="v")),
        signal=signal,
    )
    add(
        "B36",
        "grpc",
        f"resource-{words}",
        spoilt(Signal.LOGS, lambda g, _s, _r, k=key: attribute(g.resource, k, string_value="v")),
        "OK",
    )
fine("B37", "unknown-field", around(Signal.LOGS, framed(0x7A, b"future") + b"\xf8\x06\x05"))
fine("B37", "unknown-group", around(Signal.LOGS, b"", behind=b"\xfb\x06\x08\x01\xfc\x06"))
fine("B37", "unknown-kind", spoilt(Signal.TRACES, setting(kind=99)), signal=Signal.TRACES)
fine("B37", "unknown-severity", spoilt(Signal.LOGS, setting(severity_number=99)))
fine(
    "B37",
    "no-data",
    spoilt(Signal.METRICS, lambda _g, _s, r: r.ClearField("gauge")),
    signal=Signal.METRICS,
)
for words, value in (
    ("number", 2),
    ("name", "SPAN_KIND_SERVER"),
    ("text", "2"),
    ("unknown-name", "SPAN_KIND_FUTURE"),
    ("large", 99),
):
    add(
        "B37",
        "http",
        f"json-kind-{words}",
        in_json(Signal.TRACES, json_span(kind=value)),
        200,
        signal=Signal.TRACES,
        kind=JSON,
    )
add(
    "B37",
    "http",
    "json-future",
    in_json(Signal.LOGS, '{"future":{"a":[1,null,{}]}}', more=',"future":1'),
    200,
    kind=JSON,
)
for words, item in (
    ("span", json_span(start_time_unix_nano="1")),
    ("event", json_span(events=[{"time_unix_nano": "1"}])),
):
    add(
        "B38",
        "http",
        words,
        in_json(Signal.TRACES, item),
        200,
        signal=Signal.TRACES,
        kind=JSON,
        text="snake_case",
    )
add(
    "B38",
    "http",
    "top",
    in_json(Signal.LOGS, "{}", more=',"resource_logs":[]'),
    200,
    kind=JSON,
    text="resource_logs",
)
for signal in Signal:
    fine("B39", f"empty-{signal}", lambda _: b"", signal=signal, stored=0)
    add(
        "B39",
        "http",
        f"json-empty-object-{signal}",
        lambda _: b"{}",
        200,
        signal=signal,
        kind=JSON,
        stored=0,
    )
    add("B39", "http", f"json-nothing-{signal}", lambda _: b"", 400, signal=signal, kind=JSON)
for words, text in (
    ("null", b"null"),
    ("list", b"[]"),
    ("text", b'"x"'),
    ("number", b"1"),
    ("half", b'{"resourceLogs":'),
    ("object-for-list", b'{"resourceLogs":{}}'),
    ("bom", b"\xef\xbb\xbf{}"),
):
    add("B39", "http", f"json-{words}", lambda _, t=text: t, 400, kind=JSON)

fine(
    "B45",
    "equal-lines",
    lambda mark: framed(0x0A, framed(0x12, framed(0x12, good(Signal.LOGS, mark)) * 5)),
    stored=5,
)

for number, (words, text) in enumerate(
    {
        "line-break": "a\r\nb",
        "ansi": "\x1b[2J",
        "title": "\x1b]0;x\x07",
        "bidi": "\u202ea",
        "nul": "a\0b",
        "script": "<script>",
        "formula": "=1+1",
        "operator": '{"$ne": null}',
        "sql": "'; drop table logs; --",
        "path": "../../etc/passwd",
        "percent": "%s%n%x",
        "template": "${env:HOME}",
    }.items()
):
    how = ("http", "grpc")[number % 2]
    expected = 200 if how == "http" else "OK"
    add(
        "B60",
        how,
        f"body-{words}",
        spoilt(Signal.LOGS, lambda _g, _s, r, t=text: setattr(r.body, "string_value", t)),
        expected,
    )
    add(
        "B60",
        how,
        f"service-{words}",
        spoilt(
            Signal.TRACES,
            lambda g, _s, _r, t=text: attribute(g.resource, "service.name", string_value=t),
        ),
        expected,
        signal=Signal.TRACES,
    )
