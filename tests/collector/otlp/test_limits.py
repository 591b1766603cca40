"""What is too large in a request: counted on the wire by two twins, cut in the message, refused."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector import otlp
from collector.errors import Malformed, TooLarge
from collector.model import Request, Signal
from collector.otlp import Limits, decode, items, new_message
from collector.otlp.limits import SPREAD
from collector.otlp.sizing import NATIVE, Survey, native, survey, walked
from tests.strategies import requests

REQUEST = Request(received_at_unix_nano=7, key=bytes(16))
LIMIT = 1 << 20
KEY, VALUE = 1 << 10, 64 << 10
each_signal = pytest.mark.parametrize("signal", Signal)


def read(signal, message, **limits):
    return decode(
        signal,
        message.SerializeToString(),
        encoding="protobuf",
        request=REQUEST,
        limits=Limits(**limits),
    )


def request(signal, count=1):
    """A request and its records: spans, points or log records."""
    message = new_message(signal)
    if signal is Signal.TRACES:
        scope = message.resource_spans.add().scope_spans.add()
        records = [scope.spans.add(trace_id=b"1" * 16, span_id=b"2" * 8) for _ in range(count)]
    elif signal is Signal.METRICS:
        metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
        records = [metric.sum.data_points.add(as_int=number) for number in range(count)]
    else:
        scope = message.resource_logs.add().scope_logs.add()
        records = [scope.log_records.add() for _ in range(count)]
    return message, records


def records_of(decoded):
    """The records of what was decoded."""
    found = [item for _, _, item in items(decoded.batch)]
    if decoded.batch.signal is not Signal.METRICS:
        return found
    return [point for metric in found for point in otlp.points(metric)]


def add(owner, key, text):
    owner.attributes.add(key=key).value.string_value = text


# --- counting ---


def test_counts_of_a_request():
    """Everything that parsing would make is counted, and the largest of each kind is known."""
    message, (span, other) = request(Signal.TRACES, 2)
    add(span, "k" * 7, "v" * 300)
    add(span, "b", "c")
    add(span.events.add(name="e"), "d", "")
    other.links.add(span_id=b"2" * 8)
    add(message.resource_spans[0].resource, "service.name", "shop")
    body = message.SerializeToString()
    found = survey(Signal.TRACES, body, otlp.SHAPES[Signal.TRACES], Limits())
    assert found == Survey(
        resources=1,
        scopes=1,
        items=2,
        points=0,
        elements=15,
        fields=14,
        largest=len(span.SerializeToString()),
        attributes=2,
        key=12,
        value=300,
    )


@each_signal
def test_the_native_walk_and_python_count_the_same(signal):
    """The compiled walk and its Python twin agree on good and on damaged requests, at every limit."""
    assert NATIVE, "the native core was not built: is there a C compiler?"
    shape = otlp.SHAPES[signal]

    def same(body, limits):
        found = native(signal, body, shape, limits)
        try:
            expected = walked(signal, body, shape, limits)
        except Malformed:
            assert found is None
        else:
            assert found in (expected, None)
        return found is not None

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(requests(signal), st.randoms(use_true_random=False))
    def check(message, chance):
        body = message.SerializeToString()
        assert same(body, Limits())
        for _ in range(10):
            damaged = bytearray(body)
            for _ in range(chance.randint(1, 3) if body else 0):
                damaged[chance.randrange(len(body))] = chance.randrange(256)
            few = Limits(
                items=chance.randint(1, 4),
                groups=chance.randint(1, 3),
                elements=chance.randint(1, 40),
            )
            same(bytes(damaged), Limits())
            same(bytes(damaged), few)

    check()


@pytest.mark.parametrize(
    ("body", "native_judges"),
    [
        pytest.param(b"\x0a\x04\x12\x02\x12\x00", True, id="good"),
        pytest.param(b"\x0a\x05\x12\x03\x12\x01\xff", True, id="broken-item"),
        pytest.param(b"\x0a\x05\x12\x02\x12\x00\xff", False, id="broken-group"),
        pytest.param(b"\x0b\x0c", False, id="group"),
        pytest.param(b"\xff" * 11, False, id="endless-number"),
        pytest.param(b"\x02\x00", False, id="no-number"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", False, id="huge-length"),
    ],
)
def test_what_the_native_walk_leaves_to_python(body, native_judges):
    """A broken frame and wire types of old protobuf are judged by the twin, which says why."""
    shape = otlp.SHAPES[Signal.LOGS]
    assert (native(Signal.LOGS, body, shape, Limits()) is not None) is native_judges


def test_depth_is_bounded():
    """B14: ten thousand messages inside each other are walked without recursion trouble."""
    deep = b""
    for _ in range(10_000):
        size = len(deep) + 2
        deep = (
            b"\x2a"
            + varint(len(deep) + 1 + len(varint(len(deep))))
            + b"\x0a"
            + varint(len(deep))
            + deep
        )
        assert len(deep) >= size
    body = framed(0x0A, framed(0x12, framed(0x12, framed(0x2A, deep))))
    for walk in (survey, walked):
        found = walk(Signal.LOGS, body, otlp.SHAPES[Signal.LOGS], Limits())
        assert (found.items, found.elements <= 101) == (1, True)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def framed(tag, value):
    return bytes([tag]) + varint(len(value)) + value


@pytest.mark.parametrize(
    ("field", "what"),
    [(0x5A, "events"), (0x6A, "links"), (0x4A, "attributes")],
    ids=["events", "links", "attributes"],
)
def test_b11_floods_in_small_requests_are_charged_before_parsing(field, what):
    """B11, B12: a request is weighed by the messages in it, whatever its size, before it is parsed."""
    body = framed(0x0A, framed(0x12, framed(0x12, bytes([field, 0]) * 50_000)))
    told = []

    class Stop(Exception):
        pass

    def weigh(objects):
        told.append(objects)
        raise Stop

    with pytest.raises(Stop):
        decode(Signal.TRACES, body, encoding="protobuf", request=REQUEST, weigh=weigh)
    assert told == [50_003]
    with pytest.raises(TooLarge, match="more than 40000 elements"):
        decode(
            Signal.TRACES,
            body,
            encoding="protobuf",
            request=REQUEST,
            limits=Limits(elements=40_000),
        )


def test_b12_json_is_weighed_before_python_makes_objects():
    """B12: for JSON the braces, brackets and commas are weighed first."""
    told = []
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{},{}]}]}]}'
    decode(Signal.LOGS, body, encoding="json", request=REQUEST, weigh=told.append)
    assert told == [6 + 3 + 2, 5]


# --- cutting ---


@each_signal
def test_b18_long_names_and_values_are_cut(signal):
    """B18: names end at 1 KiB and values at 64 KiB, at a character; the neighbours stay whole."""
    message, (first, second) = request(signal, 2)
    add(first, "k" * 5_000, "v")
    add(first, "\u00e9" * 600, "\u20ac" * 30_000)
    first.attributes.add(key="bytes").value.bytes_value = b"b" * 70_000
    nested = first.attributes.add(key="nested").value.array_value.values.add().kvlist_value
    nested.values.add(key="n" * 2_000).value.string_value = "w" * 70_000
    add(second, "k", "v" * VALUE)
    expected = type(second)()
    expected.CopyFrom(second)
    decoded = read(signal, message)
    found, neighbour = records_of(decoded)
    assert [(pair.key, pair.value.string_value) for pair in found.attributes[:2]] == [
        ("k" * KEY, "v"),
        ("\u00e9" * (KEY // 2), "\u20ac" * (VALUE // 3)),
    ]
    assert found.attributes[2].value.bytes_value == b"b" * VALUE
    (inner,) = found.attributes[3].value.array_value.values[0].kvlist_value.values
    assert (inner.key, inner.value.string_value) == ("n" * KEY, "w" * VALUE)
    assert neighbour == expected
    assert decoded.repaired == {"keys": 3, "values": 3}
    assert (decoded.accepted, decoded.rejected, decoded.batch.wire) == (2, 0, None)


@each_signal
def test_b18_ten_thousand_attributes_are_cut(signal):
    """B18: a record keeps its first thousand attributes, and says how many it lost if it can."""
    message, (first, second) = request(signal, 2)
    for number in range(10_000):
        first.attributes.add(key=f"k{number}")
    add(second, "k", "v")
    decoded = read(signal, message)
    found, neighbour = records_of(decoded)
    assert [pair.key for pair in found.attributes] == [f"k{number}" for number in range(1_000)]
    assert getattr(found, "dropped_attributes_count", 9_000) == 9_000
    assert [pair.key for pair in neighbour.attributes] == ["k"]
    assert decoded.repaired == {"attributes": 9_000}


def test_b18_resources_scopes_events_and_links_are_cut():
    """B18: whatever has attributes is held to the same limits."""
    message, (span,) = request(Signal.TRACES)
    group = message.resource_spans[0]
    owners = [group.resource, group.scope_spans[0].scope, span.events.add(), span.links.add()]
    for owner in owners:
        for _ in range(3):
            add(owner, "k" * 20, "v" * 20)
    decoded = read(Signal.TRACES, message, attributes=2, key=10, value=15)
    group, scope, span = next(items(decoded.batch))
    for owner in (group.resource, scope.scope, span.events[0], span.links[0]):
        assert [(pair.key, pair.value.string_value) for pair in owner.attributes] == [
            ("k" * 10, "v" * 15)
        ] * 2
        assert owner.dropped_attributes_count == 1
    assert decoded.repaired == {"attributes": 4, "keys": 8, "values": 8}


def test_b19_a_body_that_is_too_large_is_cut_with_a_mark():
    """B19: a log record above 1 MiB keeps the beginning of its body and says what is missing."""
    message, (first, second) = request(Signal.LOGS, 2)
    first.body.string_value = "\u00e9" * LIMIT
    add(first, "k", "v")
    second.body.string_value = "whole"
    decoded = read(Signal.LOGS, message)
    found, neighbour = records_of(decoded)
    text, mark, rest = found.body.string_value.partition("... [")
    assert set(text) == {"\u00e9"}
    assert mark + rest == f"... [{2 * LIMIT - len(text.encode())} bytes left out]"
    assert LIMIT - 200 < found.ByteSize() <= LIMIT
    assert [pair.key for pair in found.attributes] == ["k"]
    assert neighbour.body.string_value == "whole"
    assert decoded.repaired == {"records": 1}
    assert (decoded.accepted, decoded.rejected) == (2, 0)


@pytest.mark.parametrize("kind", ["bytes", "map"])
def test_b19_other_bodies_are_cut_too(kind):
    """B19: bytes are cut as text is, and texts inside of a map at the limit of values."""
    message, (record,) = request(Signal.LOGS)
    if kind == "bytes":
        record.body.bytes_value = b"b" * (2 * LIMIT)
    else:
        for number in range(20):
            pair = record.body.kvlist_value.values.add(key=str(number))
            pair.value.string_value = "v" * (VALUE + number)
    decoded = read(Signal.LOGS, message)
    if kind == "bytes":
        (found,) = records_of(decoded)
        assert LIMIT - 200 < len(found.body.bytes_value) <= LIMIT
        return
    # Twenty texts of 64 KiB are still too much: the record is refused alone.
    assert (decoded.accepted, decoded.message) == (0, "1 refused: larger than 1048576 bytes")


def test_b19_a_span_loses_its_last_events_and_links():
    """B19: a span above 1 MiB keeps what fits and counts the events and links that it lost."""
    message, (span,) = request(Signal.TRACES)
    for number in range(40):
        add(span.events.add(name=f"e{number}"), "k", "v" * 50_000)
        add(span.links.add(span_id=b"2" * 8), "k", "v")
    decoded = read(Signal.TRACES, message)
    (found,) = records_of(decoded)
    kept = len(found.events)
    assert [event.name for event in found.events] == [f"e{number}" for number in range(kept)]
    assert (found.dropped_events_count, found.dropped_links_count) == (40 - kept, 0)
    assert LIMIT - 60_000 < found.ByteSize() <= LIMIT
    assert len(found.links) == 40
    assert decoded.repaired == {"records": 1}


@each_signal
def test_b19_a_record_of_many_large_attributes_loses_the_last(signal):
    """B19: when everything else is small, the last attributes go until the record fits."""
    message, (first, second) = request(signal, 2)
    for number in range(40):
        add(first, f"k{number}", "v" * 60_000)
    add(second, "k", "v")
    decoded = read(signal, message)
    found, neighbour = records_of(decoded)
    kept = len(found.attributes)
    assert [pair.key for pair in found.attributes] == [f"k{number}" for number in range(kept)]
    assert LIMIT - 70_000 < found.ByteSize() <= LIMIT
    assert neighbour.attributes[0].key == "k"
    assert decoded.repaired == {"attributes": 40 - kept}
    assert (decoded.accepted, decoded.rejected) == (2, 0)


def test_b19_what_cannot_be_cut_is_refused_alone():
    """B19: a record that is too large for reasons nobody knows is refused, its neighbours are not."""
    message, (first, second) = request(Signal.LOGS, 2)
    second.body.string_value = "fine"
    body = message.SerializeToString()
    unknown = framed(0x7A, bytes(2 * LIMIT))  # a field of the future
    (record, neighbour) = unknown, second.SerializeToString()
    body = framed(0x0A, framed(0x12, framed(0x12, record) + framed(0x12, neighbour)))
    decoded = decode(Signal.LOGS, body, encoding="protobuf", request=REQUEST)
    assert [record.body.string_value for record in records_of(decoded)] == ["fine"]
    assert (decoded.accepted, decoded.rejected) == (1, 1)
    assert decoded.message == "1 refused: larger than 1048576 bytes"
    assert first.ByteSize() == 0


def test_b19_texts_of_a_record_itself_are_cut():
    """B19: a name or a status message of a megabyte is cut like a value."""
    message, (span,) = request(Signal.TRACES)
    span.name = "n" * LIMIT
    span.status.message = "s" * LIMIT
    decoded = read(Signal.TRACES, message)
    (found,) = records_of(decoded)
    assert (len(found.name), len(found.status.message)) == (VALUE, VALUE)
    assert decoded.repaired == {"values": 2}


def test_b19_texts_beside_the_records_are_cut():
    """B19: a metric's description, which every point repeats in a store, is held to a value's size."""
    message, _ = request(Signal.METRICS)
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]
    metric.description = "d" * (2 * LIMIT)
    decoded = read(Signal.METRICS, message)
    ((_, _, found),) = items(decoded.batch)
    assert found.description == "d" * VALUE
    assert decoded.repaired == {"values": 1}


def test_a_large_resource_in_front_of_many_records_is_refused():
    """One megabyte that a store would repeat for each of thousands of records is too large."""
    message, records = request(Signal.LOGS, 5_000)
    resource = message.resource_logs[0].resource
    for number in range(15):
        add(resource, f"k{number}", "v" * 60_000)
    with pytest.raises(TooLarge) as caught:
        read(Signal.LOGS, message)
    assert str(caught.value) == (
        f"more than {SPREAD} bytes of resources and scopes, counted once for each record; "
        "send smaller resources"
    )
    del message.resource_logs[0].scope_logs[0].log_records[200:]
    assert read(Signal.LOGS, message).accepted == 200
    assert len(records) == 5_000


def test_requests_within_all_limits_keep_their_bytes():
    """What needs no cut is handed on as the bytes that came."""
    message, (record,) = request(Signal.LOGS)
    record.body.string_value = "v" * (LIMIT - 100)
    chance = random.Random(1)
    for number in range(1_000):
        add(message.resource_logs[0].resource, f"k{number}", chance.choice("ab"))
    decoded = read(Signal.LOGS, message)
    assert decoded.batch.wire == message.SerializeToString()
    assert decoded.repaired == {}
