"""OTLP in bytes and in JSON, limits, and what is saved from a request that is partly broken."""

import base64
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed, Permanent, TooLarge
from collector.model import Batch, Request, Signal
from collector.otlp import (
    Limits,
    count,
    decode,
    encode,
    encode_json,
    items,
    new_message,
    points,
    request_key,
    resources,
    response,
    status,
)

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "otlp"
REQUEST = Request(received_at_unix_nano=1759487415000000000, key=b"k" * 16)
TRACE = bytes.fromhex("5b8efff798038103d269b633813fc60c")
SPAN = bytes.fromhex("eee19b7ec3c1b174")
ITEMS = {Signal.TRACES: 2, Signal.METRICS: 6, Signal.LOGS: 2}
each_signal = pytest.mark.parametrize("signal", list(Signal))


def read(signal, body, encoding="protobuf", **limits):
    return decode(signal, body, encoding=encoding, request=REQUEST, limits=Limits(**limits))


def golden(signal, kind):
    return (GOLDEN / f"{signal}.{kind}").read_bytes()


def text_of(message):
    """Messages with NaN are unequal to themselves; their text is not."""
    return str(message)


def traces(*spans, **resource):
    """A request with one group; each span is a dict of fields."""
    message = new_message(Signal.TRACES)
    group = message.resource_spans.add()
    for key, value in resource.items():
        attribute = group.resource.attributes.add(key=key)
        attribute.value.string_value = value
    scope = group.scope_spans.add()
    for fields in spans:
        scope.spans.add(**{"trace_id": TRACE, "span_id": SPAN, **fields})
    return message


def logs(*bodies):
    message = new_message(Signal.LOGS)
    scope = message.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return message


def framed(tag, value):
    size = len(value)
    out = bytearray([tag])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + value


def nested(depth, kind):
    """An AnyValue with lists or maps inside each other, and the text "x" at the bottom."""
    value = b"\x0a\x01x"
    for _ in range(depth):
        if kind == "list":
            value = framed(0x2A, framed(0x0A, value))
        else:
            value = framed(0x32, framed(0x0A, b"\x0a\x01k" + framed(0x12, value)))
    return value


def attribute(value):
    """The bytes of a KeyValue."""
    return b"\x0a\x01k" + framed(0x12, value)


def with_attribute(signal, value):
    """A request: a good item, one with the attribute, a good item; wire bytes."""
    pair = attribute(value)
    ids = framed(0x0A, TRACE) + framed(0x12, SPAN)
    good, bad = {
        Signal.TRACES: (ids + framed(0x2A, b"good"), ids + framed(0x4A, pair)),
        Signal.LOGS: (framed(0x2A, b"\x0a\x04good"), framed(0x32, pair)),
        Signal.METRICS: (
            framed(0x0A, b"good") + framed(0x2A, framed(0x0A, b"")),
            framed(0x2A, framed(0x0A, framed(0x3A, pair))),
        ),
    }[signal]
    scope = framed(0x12, good) + framed(0x12, bad) + framed(0x12, good)
    return framed(0x0A, framed(0x12, scope))


def attribute_of(signal, batch):
    item = [item for _, _, item in items(batch)][1]
    holder = points(item)[0] if signal is Signal.METRICS else item
    return holder.attributes[0].value


def depth_of(value):
    """How many lists or maps are around the innermost value, and that value."""
    depth = 0
    while (kind := value.WhichOneof("value")) in ("array_value", "kvlist_value"):
        inner = getattr(value, kind).values[0]
        value = inner if kind == "array_value" else inner.value
        depth += 1
    return depth, value.string_value


# --- golden files: both encodings of one request ---


@each_signal
def test_protobuf_is_read_and_kept(signal):
    """A good request is one batch with the bytes that it came in (R: OTLP protobuf)."""
    body = golden(signal, "binpb")
    decoded = read(signal, body)
    assert (decoded.accepted, decoded.rejected, decoded.message) == (ITEMS[signal], 0, "")
    assert decoded.batch.wire is body
    assert decoded.batch.request is REQUEST
    assert encode(decoded.batch) is body
    assert +decoded.repaired == {}


@each_signal
def test_json_says_the_same_as_protobuf(signal):
    """OTLP/JSON (hex ids, integer enums, 64-bit integers as text) gives the equal message."""
    from_json = read(signal, golden(signal, "json"), "json")
    from_bytes = read(signal, golden(signal, "binpb"))
    assert text_of(from_json.batch.message) == text_of(from_bytes.batch.message)
    assert (from_json.accepted, from_json.rejected, from_json.message) == (ITEMS[signal], 0, "")
    again = read(signal, from_json.batch.wire)
    assert text_of(again.batch.message) == text_of(from_bytes.batch.message)


@each_signal
def test_json_is_written_as_the_specification_has_it(signal):
    """`encode_json` gives the golden JSON, from a batch and from a message."""
    batch = read(signal, golden(signal, "binpb")).batch
    expected = json.loads(golden(signal, "json"))
    assert json.loads(encode_json(batch, signal)) == expected
    assert json.loads(encode_json(batch.message, signal)) == expected


def test_a_changed_batch_is_encoded_again():
    """Without the bytes that it came in, a batch is serialised."""
    message = traces({"name": "a"})
    batch = Batch(Signal.TRACES, message, REQUEST, None)
    assert encode(batch) == message.SerializeToString()


def test_walkers():
    """`resources`, `items`, `points` and `count` see every group, item and point."""
    batch = read(Signal.METRICS, golden(Signal.METRICS, "binpb")).batch
    found = list(items(batch))
    assert [metric.name for _, _, metric in found] == [
        "orders",
        "temperature",
        "duration",
        "size",
        "latency",
    ]
    assert [len(points(metric)) for _, _, metric in found] == [1, 2, 1, 1, 1]
    assert count(Signal.METRICS, batch.message) == 6
    assert len(resources(batch)) == 1
    assert found[0][1].scope.name == "shop.metrics"
    assert (
        list(
            points(
                new_message(Signal.METRICS).resource_metrics.add().scope_metrics.add().metrics.add()
            )
        )
        == []
    )


def test_request_keys_tell_requests_apart():
    """The key depends on tenant, signal and body, and on nothing else."""
    keys = {
        request_key("", Signal.LOGS, b"a"),
        request_key("", Signal.LOGS, b"b"),
        request_key("", Signal.TRACES, b"a"),
        request_key("t", Signal.LOGS, b"a"),
        request_key("", Signal.LOGS, b"a"),
    }
    assert len(keys) == 4
    assert {len(key) for key in keys} == {16}


@pytest.mark.parametrize(("body", "encoding"), [(b"", "protobuf"), (b"{}", "json")])
@each_signal
def test_b39_an_empty_request_is_fine(signal, body, encoding):
    """B39: nothing in, nothing out, no complaint."""
    decoded = read(signal, body, encoding)
    assert (decoded.accepted, decoded.rejected, decoded.message) == (0, 0, "")


# --- bad bytes ---


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff", id="endless-number"),
        pytest.param(b"\x0a\x05ab", id="cut-short"),
        pytest.param(b"\x0a\x02\x12\x09", id="inner-cut-short"),
        pytest.param(b"\x00\x00", id="field-zero"),
        pytest.param(b"\x0f", id="wire-type-7"),
        pytest.param(b"\x0c", id="group-end"),
        pytest.param(b"{}", id="json"),
        pytest.param(b"not otlp at all", id="text"),
    ],
)
@each_signal
def test_b27_broken_framing_is_refused(signal, body):
    """B27: a body that is no message of this kind is Malformed."""
    with pytest.raises(Malformed):
        read(signal, body)


def test_b27_one_broken_item_is_refused_alone():
    """B27: an item with broken bytes inside good framing is left out, its neighbours stay."""
    good = framed(0x12, framed(0x2A, b"\x0a\x04good"))
    bad = framed(0x12, b"\x2a\x7f")
    body = framed(0x0A, framed(0x12, good + bad + good))
    decoded = read(Signal.LOGS, body)
    assert [record.body.string_value for _, _, record in items(decoded.batch)] == ["good", "good"]
    assert (decoded.accepted, decoded.rejected) == (2, 1)
    assert decoded.message == "1 refused: cannot be decoded"
    assert read(Signal.LOGS, decoded.batch.wire).accepted == 2


def test_b25_invalid_utf8_is_repaired_alone():
    """B25: a bad string in a key, a value, a body, a resource or a scope costs only that string."""
    message = traces({"name": "first"}, {"name": "sec@nd"}, {"name": "third"}, **{"ke@": "val@e"})
    message.resource_spans[0].scope_spans[0].scope.name = "sc@pe"
    decoded = read(Signal.TRACES, message.SerializeToString().replace(b"@", b"\xff"))
    expected = traces(
        {"name": "first"}, {"name": "sec\ufffdnd"}, {"name": "third"}, **{"ke\ufffd": "val\ufffde"}
    )
    expected.resource_spans[0].scope_spans[0].scope.name = "sc\ufffdpe"
    assert decoded.batch.message == expected
    assert (decoded.accepted, decoded.rejected, decoded.repaired["utf8"]) == (3, 0, 4)
    assert decoded.batch.wire == expected.SerializeToString()


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("depth", [24, 31, 32, 47, 64, 100, 10_000])
@each_signal
def test_b14_deep_values_are_cut_and_neighbours_kept(signal, depth, kind):
    """B14: a value deeper than the parser goes becomes text below that depth, and is counted."""
    body = with_attribute(signal, nested(depth, kind))
    try:
        whole = new_message(signal)
        whole.ParseFromString(body)
        fits = True
    except DecodeError:
        fits = False
    decoded = read(signal, body)
    assert (decoded.accepted, decoded.rejected) == (3, 0)
    kept, bottom = depth_of(attribute_of(signal, decoded.batch))
    if fits:
        assert (kept, bottom, decoded.repaired["depth"]) == (depth, "x", 0)
    else:
        assert kept >= 24
        assert decoded.repaired["depth"] == 1
        left = depth - kept
        inner = "arrayValue" if kind == "list" else "kvlistValue"
        if left < 50 if kind == "list" else left < 33:
            assert bottom.count(inner) == left
            json.loads(bottom)
        else:
            assert bottom.startswith(("[nested too deeply: ", f'{{"{inner}":'))
            assert len(bottom) <= 4096


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param(framed(0x0A, framed(0x12, b"\x12\x00" * (2 << 20))), "items", id="items"),
        pytest.param(b"\x0a\x00" * 10_001, "resources", id="resources"),
        pytest.param(framed(0x0A, b"\x12\x00" * 10_001), "scopes", id="scopes"),
        pytest.param(
            framed(0x0A, framed(0x12, framed(0x12, b"\x4a\x00" * 1_100_000))),
            "elements",
            id="attributes",
        ),
        pytest.param(b"\x78\x00" * 4_100_000, "fields", id="fields"),
    ],
)
def test_b10_amplification_is_refused_before_parsing(body, what):
    """B10, B11: floods of empty messages are refused by their number, naming the limit."""
    with pytest.raises(TooLarge, match=f"^more than [0-9]+ {what} in one request; send smaller"):
        read(Signal.TRACES, body)


def test_b10_points_are_what_counts_for_metrics():
    """B10: many points in one metric are as many items as many metrics are."""
    many = framed(0x0A, framed(0x12, framed(0x12, framed(0x2A, b"\x0a\x00" * 11))))
    with pytest.raises(TooLarge, match="more than 10 items"):
        read(Signal.METRICS, many, items=10)
    assert read(Signal.METRICS, many, items=11).accepted == 11


def test_b10_json_objects_are_counted_before_parsing():
    """B10: a JSON body of empty objects is refused by its number of braces."""
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 1_000_000 + b"{}]}]}]}"
    with pytest.raises(TooLarge, match="more than 1000000 elements"):
        read(Signal.TRACES, body, "json")


def test_b18_attributes_are_cut_at_the_limit():
    """B18: attributes beyond the limit are cut off, and the span says how many."""
    message = traces({"name": "a"}, {"name": "b"})
    for number in range(1_003):
        message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key=f"k{number}")
    decoded = read(Signal.TRACES, message.SerializeToString())
    first, second = [span for _, _, span in items(decoded.batch)]
    assert [one.key for one in first.attributes] == [f"k{number}" for number in range(1_000)]
    assert (first.dropped_attributes_count, second.dropped_attributes_count) == (3, 0)
    assert (decoded.accepted, decoded.repaired["attributes"]) == (2, 3)
    assert decoded.batch.wire is None


@pytest.mark.parametrize(
    "ids",
    [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"trace_id": b"1234"},
        {"span_id": b""},
        {"span_id": bytes(8)},
        {"span_id": b"123456789"},
    ],
)
def test_b28_a_span_without_ids_is_refused_alone(ids):
    """B28: a span whose ids are empty, zero or of the wrong length is refused with a reason."""
    decoded = read(
        Signal.TRACES,
        traces({"name": "a"}, {"name": "b", **ids}, {"name": "c"}).SerializeToString(),
    )
    assert decoded.batch.message == traces({"name": "a"}, {"name": "c"})
    assert (decoded.accepted, decoded.rejected, decoded.batch.wire) == (2, 1, None)
    assert decoded.message == "1 refused: trace id or span id is empty, zero or of the wrong length"


@pytest.mark.parametrize(
    ("given_ids", "kept"),
    [
        ((b"short", SPAN), (b"", b"")),
        ((bytes(16), bytes(8)), (b"", b"")),
        ((TRACE, b"short"), (TRACE, b"")),
    ],
)
def test_b28_a_log_record_keeps_its_body_without_bad_ids(given_ids, kept):
    """B28: a log record loses ids that are none and keeps everything else."""
    message = logs("hello")
    record = message.resource_logs[0].scope_logs[0].log_records[0]
    record.trace_id, record.span_id = given_ids
    decoded = read(Signal.LOGS, message.SerializeToString())
    ((_, _, found),) = items(decoded.batch)
    assert (found.trace_id, found.span_id, found.body.string_value) == (*kept, "hello")
    assert (decoded.rejected, decoded.repaired["ids"], decoded.batch.wire) == (0, 1, None)


def test_b28_a_parent_that_is_no_id_is_taken_away():
    """B28: a zero or short parent id makes a root span, the span itself is kept."""
    decoded = read(
        Signal.TRACES,
        traces({"parent_span_id": bytes(8)}, {"parent_span_id": b"abc"}).SerializeToString(),
    )
    assert [span.parent_span_id for _, _, span in items(decoded.batch)] == [b"", b""]
    assert (decoded.accepted, decoded.repaired["ids"]) == (2, 2)


def test_b37_unknown_fields_are_ignored():
    """B37: fields of the future are carried along, in groups as well."""
    body = (
        golden(Signal.LOGS, "binpb")
        + b"\xf2\x06\x03abc"
        + b"\xfb\x06\x08\x01\xfc\x06"
        + b"\xf8\x06\x05"
    )
    decoded = read(Signal.LOGS, body)
    assert (decoded.accepted, decoded.batch.wire, decoded.message) == (2, body, "")


# --- JSON ---


def span_json(**members):
    span = {"traceId": TRACE.hex(), "spanId": SPAN.hex(), **members}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def read_json(value, signal=Signal.TRACES):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read(signal, body, "json")


def only_span(decoded):
    ((_, _, span),) = items(decoded.batch)
    return span


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is no JSON: Expecting value at line 1 column 1"),
        (b"[]", "the body must be a JSON object, not a list"),
        (b"null", "the body must be a JSON object, not null"),
        (b'{"resourceSpans":', "the body is no JSON: Expecting value at line 1 column 18"),
        (b"{} {}", "the body is no JSON: Extra data at line 1 column 4"),
        (b'{"a":1,"a":2}', "duplicate JSON member 'a'"),
        (b'{"a":NaN}', 'bare NaN is no JSON; write "NaN"'),
        (b'{"a":-Infinity}', 'bare -Infinity is no JSON; write "-Infinity"'),
        (
            b'{"resourceSpans":{}}',
            "the body is no OTLP request: resourceSpans must be a list, not an object",
        ),
        (
            b'{"resourceSpans":[1]}',
            "the body is no OTLP request: resourceSpans must be an object, not a number",
        ),
        (
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "the body is JSON that is nested too deeply",
        ),
        (b'{"a":' + b"9" * 5_000 + b"}", None),
        (golden(Signal.TRACES, "binpb"), None),
    ],
)
def test_json_that_is_none_is_refused(body, text):
    """Bad JSON, duplicate members (B35), bare NaN (B34) and endless nesting (B15) are Malformed."""
    with pytest.raises(Malformed) as caught:
        read_json(body)
    if text is not None:
        assert str(caught.value) == text


def test_b29_ids_are_hex_in_any_case():
    """B29: upper-case hex is the same id."""
    span = only_span(
        read_json(span_json(traceId=TRACE.hex().upper(), parentSpanId=SPAN.hex().upper()))
    )
    assert (span.trace_id, span.parent_span_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "wrong", [base64.b64encode(TRACE).decode(), TRACE.hex()[:-1], "", "0" * 32]
)
def test_b29_ids_in_base64_are_refused_as_a_wrong_length_is(wrong):
    """B29: an id in base64 does not become 24 bytes; the span is refused, a log keeps its body."""
    decoded = read_json(span_json(traceId=wrong))
    assert (decoded.accepted, decoded.rejected) == (0, 1)
    log = {
        "resourceLogs": [
            {"scopeLogs": [{"logRecords": [{"traceId": wrong, "body": {"stringValue": "x"}}]}]}
        ]
    }
    ((_, _, record),) = items(read_json(log, Signal.LOGS).batch)
    assert (record.trace_id, record.body.string_value) == (b"", "x")


def test_b37_enums_are_numbers_or_names_and_unknown_members_are_ignored():
    """B37: kind 2 and its name are the same; members of the future cost nothing."""
    for kind in (2, "2", "SPAN_KIND_SERVER"):
        decoded = read_json(span_json(kind=kind, futureMember={"x": [1, {"y": None}]}))
        assert (only_span(decoded).kind, decoded.message) == (2, "")
    assert only_span(read_json(span_json(kind=99))).kind == 99


def test_b38_snake_case_is_ignored_with_a_warning():
    """B38: names as the proto files have them are unknown, and the sender hears of it."""
    span = {"traceId": TRACE.hex(), "spanId": SPAN.hex(), "start_time_unix_nano": "5"}
    decoded = read_json(
        {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}], "resource_spans": []}
    )
    assert (decoded.accepted, decoded.rejected, only_span(decoded).start_time_unix_nano) == (
        1,
        0,
        0,
    )
    assert decoded.message == (
        "ignored unknown JSON names in snake_case: start_time_unix_nano, resource_spans; "
        "OTLP/JSON is lowerCamelCase"
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [(5, 5), ("5", 5), (5.0, 5), ("18446744073709551615", 2**64 - 1), (None, 0)],
)
def test_64_bit_integers_are_text_or_numbers(written, value):
    """64-bit integers come as text or as numbers; null is absent."""
    assert only_span(read_json(span_json(startTimeUnixNano=written))).start_time_unix_nano == value


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ({"startTimeUnixNano": -1}, "startTimeUnixNano: the integer is out of range"),
        ({"startTimeUnixNano": "1_0"}, "startTimeUnixNano: expected an integer"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano: expected an integer, found a boolean"),
        ({"startTimeUnixNano": 1.5}, "startTimeUnixNano: expected an integer, found a number"),
        ({"name": 5}, "name: expected a string, found a number"),
        ({"attributes": {}}, "attributes must be a list, not an object"),
        ({"status": []}, "status must be an object, not a list"),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "*"}}]}, "bytesValue: not base64"),
        (
            {"attributes": [{"key": "k", "value": {"doubleValue": "inf"}}]},
            "doubleValue: expected a number",
        ),
        (
            {"attributes": [{"key": "k", "value": {"stringValue": 1}}]},
            "stringValue: expected a string, found a number",
        ),
    ],
)
def test_b27_a_json_item_with_a_wrong_value_is_refused_alone(member, reason):
    """B27: one span whose member has the wrong type is refused with its reason, not its neighbours."""
    value = span_json(name="good")
    value["resourceSpans"][0]["scopeSpans"][0]["spans"].append(
        {"traceId": TRACE.hex(), "spanId": SPAN.hex(), **member}
    )
    decoded = read_json(value)
    assert (decoded.accepted, decoded.rejected, decoded.message) == (1, 1, f"1 refused: {reason}")
    assert only_span(decoded).name == "good"


@pytest.mark.parametrize(
    ("written", "value"),
    [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf), ("1.5", 1.5), (2, 2.0)],
)
def test_b34_doubles_that_json_cannot_say_are_text(written, value):
    """B34: "NaN" and "Infinity" in quotes are doubles."""
    span = only_span(
        read_json(span_json(attributes=[{"key": "k", "value": {"doubleValue": written}}]))
    )
    assert repr(span.attributes[0].value.double_value) == repr(value)


def test_b25_json_with_bad_text_is_repaired():
    """B25: invalid UTF-8 and lone surrogates become U+FFFD and are counted."""
    decoded = read_json(json.dumps(span_json(name="a@b")).encode().replace(b"@", b"\xff"))
    assert (only_span(decoded).name, decoded.repaired["utf8"]) == ("a\ufffdb", 1)
    decoded = read_json(span_json(name="a\ud800b"))
    assert (only_span(decoded).name, decoded.repaired["utf8"]) == ("a\ufffdb", 1)


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("depth", [24, 31, 64, 100, 200])
def test_b15_deep_json_values_are_cut(depth, kind):
    """B15: a value deeper than the parser goes becomes text below that depth."""
    value = {"stringValue": "x"}
    for _ in range(depth):
        if kind == "list":
            value = {"arrayValue": {"values": [value]}}
        else:
            value = {"kvlistValue": {"values": [{"key": "k", "value": value}]}}
    decoded = read_json(span_json(name="deep", attributes=[{"key": "k", "value": value}]))
    kept, bottom = depth_of(only_span(decoded).attributes[0].value)
    if decoded.repaired["depth"]:
        assert kept >= 24
        inner = "arrayValue" if kind == "list" else "kvlistValue"
        assert bottom.startswith(f'{{"{inner}":')
        assert bottom.count(inner) == depth - kept or len(bottom) == 4096
    else:
        assert (kept, bottom) == (depth, "x")


# --- answers ---


def test_answers():
    """A success is empty unless there is something to say; an error is a Status in either encoding."""
    assert response(Signal.TRACES, 0, "", "protobuf") == b""
    assert response(Signal.TRACES, 0, "", "json") == b"{}"
    assert json.loads(response(Signal.METRICS, 3, "why", "json")) == {
        "partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "why"}
    }
    assert json.loads(response(Signal.LOGS, 0, "careful", "json")) == {
        "partialSuccess": {"errorMessage": "careful"}
    }
    assert json.loads(status(14, "later", 2.5, "json")) == {
        "code": 14,
        "message": "later",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}],
    }
    assert len(json.loads(status(8, "x" * 5_000, None, "json"))["message"]) == 1_024


# --- properties ---

text = st.text(max_size=12)
scalars = st.one_of(
    st.builds(lambda v: {"string_value": v}, text),
    st.builds(lambda v: {"bool_value": v}, st.booleans()),
    st.builds(lambda v: {"int_value": v}, st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: {"double_value": v}, st.floats(allow_nan=False)),
    st.builds(lambda v: {"bytes_value": v}, st.binary(max_size=8)),
    st.just({}),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda v: {"array_value": {"values": v}}, st.lists(inner, max_size=3)),
        st.builds(
            lambda v: {"kvlist_value": {"values": [{"key": k, "value": x} for k, x in v]}},
            st.lists(st.tuples(text, inner), max_size=3),
        ),
    ),
    max_leaves=6,
)
attributes = st.lists(st.builds(lambda k, v: {"key": k, "value": v}, text, values), max_size=3)
nanos = st.integers(0, 2**64 - 1)
spans = st.fixed_dictionaries(
    {
        "trace_id": st.binary(min_size=16, max_size=16).filter(any),
        "span_id": st.binary(min_size=8, max_size=8).filter(any),
    },
    optional={
        "name": text,
        "kind": st.integers(0, 5),
        "start_time_unix_nano": nanos,
        "attributes": attributes,
        "flags": st.integers(0, 2**32 - 1),
        "status": st.builds(lambda c, m: {"code": c, "message": m}, st.integers(0, 2), text),
        "events": st.lists(
            st.builds(lambda n, a: {"name": n, "attributes": a}, text, attributes), max_size=2
        ),
    },
)
records = st.fixed_dictionaries(
    {},
    optional={
        "time_unix_nano": nanos,
        "severity_number": st.integers(0, 24),
        "body": values,
        "attributes": attributes,
        "event_name": text,
    },
)
number_points = st.fixed_dictionaries(
    {"attributes": attributes},
    optional={"as_int": st.integers(-(2**63), 2**63 - 1), "time_unix_nano": nanos},
)
exponential_points = st.fixed_dictionaries(
    {"scale": st.integers(-(2**31), 2**31 - 1), "count": nanos},
    optional={
        "positive": st.builds(
            lambda o, b: {"offset": o, "bucket_counts": b},
            st.integers(-(2**31), 2**31 - 1),
            st.lists(nanos, max_size=3),
        )
    },
)
metrics = st.one_of(
    st.builds(
        lambda n, p: {"name": n, "gauge": {"data_points": p}},
        text,
        st.lists(number_points, max_size=2),
    ),
    st.builds(
        lambda p: {"exponential_histogram": {"data_points": p}},
        st.lists(exponential_points, max_size=2),
    ),
)


@st.composite
def requests(draw):
    signal = draw(st.sampled_from(list(Signal)))
    groups, scopes, inner = {
        Signal.TRACES: ("resource_spans", "scope_spans", st.lists(spans, max_size=3)),
        Signal.METRICS: ("resource_metrics", "scope_metrics", st.lists(metrics, max_size=3)),
        Signal.LOGS: ("resource_logs", "scope_logs", st.lists(records, max_size=3)),
    }[signal]
    word = {"scope_spans": "spans", "scope_metrics": "metrics", "scope_logs": "log_records"}[scopes]
    scope = st.builds(lambda n, i: {"scope": {"name": n}, word: i}, text, inner)
    group = st.builds(
        lambda a, s: {"resource": {"attributes": a}, scopes: s},
        attributes,
        st.lists(scope, max_size=2),
    )
    return signal, type(new_message(signal))(**{groups: draw(st.lists(group, max_size=2))})


@settings(max_examples=100, deadline=None)
@given(requests())
def test_protobuf_and_json_are_the_same_request(request):
    """Message -> JSON -> message and message -> bytes -> message give the equal message."""
    signal, message = request
    from_json = read(signal, encode_json(message, signal), "json")
    assert from_json.batch.message == message
    assert (from_json.rejected, from_json.message, +from_json.repaired) == (0, "", {})
    body = message.SerializeToString()
    from_bytes = read(signal, body)
    assert (from_bytes.batch.message, from_bytes.batch.wire) == (message, body)
    assert from_bytes.accepted == count(signal, message)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(Signal)), st.sampled_from(["protobuf", "json"]), st.binary(max_size=200)
)
def test_random_bytes_are_decoded_or_refused(signal, encoding, body):
    """Any bytes give a batch that can be encoded again, or an error of ours."""
    try:
        decoded = read(signal, body, encoding)
    except Permanent:
        return
    again = new_message(signal)
    again.ParseFromString(encode(decoded.batch))
    assert again == decoded.batch.message


@settings(max_examples=150, deadline=None)
@given(requests(), st.data())
def test_damaged_requests_are_saved_or_refused(request, data):
    """A request with some bytes changed is decoded, saved in part, or refused; never a crash."""
    signal, message = request
    body = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        reference = type(message).FromString(bytes(body))
    except DecodeError:
        reference = None
    try:
        decoded = read(signal, bytes(body))
    except Permanent:
        assert reference is None
        return
    if reference is not None:
        assert decoded.accepted + decoded.rejected == count(signal, reference)
    again = new_message(signal)
    again.ParseFromString(encode(decoded.batch))


def test_b16_the_pure_python_parser_is_refused():
    """B16: on protobuf's pure-Python backend the receiver does not start, and says why."""
    program = "from collector.otlp import require_upb\nrequire_upb()"
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "collector.errors.ConfigError: protobuf runs on its pure-Python backend" in done.stderr
