"""Spans straight to rows: value for value what documents give, byte for byte the same JSON."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.documents.build import CORE, SPAN, as_parts, documents, loads, moment, native_schema
from collector.model import Signal
from collector.stores.base import MAX_DOCUMENT_BYTES
from collector.stores.query_match import LEAST
from collector.stores.routing import ENTRIES, SPANS, TRAIL, Routing
from collector.stores.sqlite import rows_from_wire as direct
from collector.stores.sqlite.rows import encode
from collector.stores.sqlite.schema import COLUMNS
from telemetry.attributes import CONTEXT, HTTP_ROUTE, LOOKUP, SERVICE_NAME
from tests.benchmarks.insert import spans as spans_of_a_service
from tests.collector.stores.sqlite.test_store import sqlite
from tests.strategies import MESSAGES, batch, requests, texts, uint64

SLOW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
WIDTH, TRAIL_WIDTH = len(COLUMNS[SPANS]), len(COLUMNS[TRAIL])
TIME = 1_700_000_000_123_456_789


@pytest.fixture(autouse=True)
def built():
    """There is nothing to compare without a core."""
    assert CORE is not None, "the native core was not built: is there a C compiler?"


def usual(given_batch):
    """What the way over documents makes of a batch."""
    fresh = replace(given_batch, made=None)
    return encode(given_batch.signal, documents(fresh), Routing({}))


def both(message, **keys):
    """Rows and trails, made directly and in the usual way; the first is None where it gives up."""
    made = batch(Signal.TRACES, message, **keys)
    found = direct.rows_of(made)
    twin = usual(made)
    assert made.made is None
    return found, twin


def same(message, **keys):
    """Whether the direct way took the request; then it must have made the same."""
    found, twin = both(message, **keys)
    if found is None:
        return False
    assert (found.rows, found.trails) == (twin.rows, twin.trails)
    kinds = [*map(type, found.rows), *map(type, found.trails)]
    assert kinds == [*map(type, twin.rows), *map(type, twin.trails)]
    return True


def one(**fields):
    """A request with one span."""
    message = MESSAGES[Signal.TRACES]()
    span = {
        "trace_id": b"\x01" * 16,
        "span_id": b"\x02" * 8,
        "start_time_unix_nano": TIME,
        **fields,
    }
    message.resource_spans.add().scope_spans.add().spans.add(**span)
    return message


def valued(key, **value):
    """An attribute."""
    return KeyValue(key=key, value=AnyValue(**value))


def test_any_request_gives_the_rows_of_its_documents():
    """D4: whatever is in a request, the direct way makes the same rows, or leaves it to the other."""
    taken = []

    @SLOW
    @given(requests(Signal.TRACES), st.sampled_from(["", "bank", "\u00e9"]))
    def check(message, tenant):
        taken.append(same(message, tenant=tenant))

    check()
    assert sum(taken) > len(taken) / 20


NAMES = [*CONTEXT, *CONTEXT.values(), HTTP_ROUTE, "http.request.method", "a", "", "\u00e9\n"]


def is_odd(value):
    """Whether the shortest digits of a number take more thought than a printf."""
    return value and (abs(value) < 2.3e-308 or abs(math.frexp(value)[0]) == 0.5)


doubles = (
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not is_odd(value))
    | st.integers(0, 10**16).map(lambda number: number / 1e6)
    | st.sampled_from([0.0, -0.0, 0.1, 1e-5, 1e-6, 1e15, 1e16, 123456.75, 2.5e-7, 1e300, 0.3])
)
plain = st.one_of(
    st.just(AnyValue()),
    st.builds(AnyValue, string_value=st.text(max_size=30) | texts),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=doubles),
    st.builds(AnyValue, bool_value=st.booleans()),
)
attributes = st.lists(
    st.builds(KeyValue, key=st.sampled_from(NAMES), value=plain),
    max_size=7,
    unique_by=lambda pair: pair.key,
)
nanos = st.sampled_from([0, 1, 999, 10**9, TIME, 2**63 - 1]) | st.integers(0, 2**62)


@st.composite
def usual_requests(draw):
    """Requests that the direct way takes: several resources and scopes, every field now and then."""
    message = MESSAGES[Signal.TRACES]()
    for _ in range(draw(st.integers(1, 2))):
        group = message.resource_spans.add(schema_url=draw(st.sampled_from(["", "https://x/1"])))
        if draw(st.booleans()):
            group.resource.attributes.extend(draw(attributes))
            group.resource.dropped_attributes_count = draw(st.integers(0, 2))
            name = draw(st.sampled_from([None, "", "shop", 'a "b"']))
            if name is not None:
                group.resource.attributes.append(valued(SERVICE_NAME, string_value=name))
        for _ in range(draw(st.integers(1, 2))):
            scoped = group.scope_spans.add(schema_url=draw(st.sampled_from(["", "u"])))
            if draw(st.booleans()):
                scoped.scope.name = draw(st.sampled_from(["", "shop.orders"]))
                scoped.scope.attributes.extend(draw(attributes))
            for _ in range(draw(st.integers(0, 3))):
                fill(draw, scoped.spans.add())
    return message


def fill(draw, span):
    """Any usual span."""
    span.trace_id = draw(st.sampled_from([b"", b"\x01" * 16, b"\xab" * 16]))
    span.span_id = draw(st.sampled_from([b"", b"\x02" * 8]))
    span.parent_span_id = draw(st.sampled_from([b"", b"\x03" * 8]))
    span.name = draw(st.text(max_size=10))
    span.trace_state = draw(st.sampled_from(["", "a=b"]))
    span.kind = draw(st.integers(0, 7))
    span.flags = draw(st.sampled_from([0, 257, 2**32 - 1]))
    span.start_time_unix_nano, span.end_time_unix_nano = draw(nanos), draw(nanos)
    if draw(st.booleans()):
        span.end_time_unix_nano = span.start_time_unix_nano + draw(st.integers(0, 10**10))
    span.attributes.extend(draw(attributes))
    span.dropped_attributes_count = draw(st.integers(0, 1))
    if draw(st.booleans()):
        span.status.code = draw(st.integers(0, 4))
        span.status.message = draw(st.sampled_from(["", "boom", "\x01"]))
    for _ in range(draw(st.integers(0, 2))):
        event = span.events.add(name=draw(texts), time_unix_nano=draw(uint64))
        event.attributes.extend(draw(attributes))
        link = span.links.add(trace_id=b"\x04" * 16, span_id=b"\x05" * 8, flags=draw(nanos) % 300)
        link.attributes.extend(draw(attributes))


def test_usual_requests_are_taken():
    """D4: all that SDKs send goes the direct way, with the same rows, the same trail."""

    @SLOW
    @given(usual_requests(), st.sampled_from(["", "bank"]))
    def check(message, tenant):
        late = any(
            span.start_time_unix_nano >> 63 or span.end_time_unix_nano >> 63
            for group in message.resource_spans
            for scoped in group.scope_spans
            for span in scoped.spans
        )
        assert same(message, tenant=tenant) or late

    check()


def test_the_requests_of_the_benchmark_are_taken():
    """D4: a thousand spans of a web service, byte for byte."""
    message = MESSAGES[Signal.TRACES].FromString(spans_of_a_service(random.Random(1)))
    assert same(message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"',
        "\\",
        "\x00\x07\x1f",
        "\x7f",
        "a" * 7 + '"',
        "a" * 8 + "\n",
        "\u00e9\u2028\U0001f600",
    ],
)
@pytest.mark.parametrize("padding", range(9))
def test_texts_are_escaped_as_elsewhere(text, padding):
    """D4: JSON escapes, at every place of a text."""
    assert same(one(name="x" * padding + text + "y" * 9))


@settings(max_examples=500, deadline=None)
@given(doubles | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_elsewhere(value):
    """D4: a float has the same digits."""
    assert same(one(attributes=[valued("a", double_value=value)])) or is_odd(value)


@settings(max_examples=300, deadline=None)
@given(nanos | st.integers(TIME, TIME + 10**15), st.integers(0, 10**18))
def test_times_are_written_as_elsewhere(start, more):
    """D4: dates and durations are those of documents."""
    end = min(start + more, 2**63 - 1)
    assert same(one(kind=2, start_time_unix_nano=start, end_time_unix_nano=end))


@pytest.mark.parametrize(("micros", "shown"), [(7_812, 7_812), (23_437, 23_438)])
def test_half_a_microsecond_goes_to_the_even_one(micros, shown):
    """Beyond the year 2242 a float of seconds can lie between two microseconds, as documents have it."""
    message = one(start_time_unix_nano=8_600_000_000_000_000_000 + micros * 1000)
    assert same(message)
    assert moment(8_600_000_000_000_000_000 + micros * 1000).microsecond == shown


def tagged(number, data):
    """A field of bytes in protobuf."""
    size, more = divmod(len(data), 128)[::-1]
    length = bytes([size | 128, more]) if more else bytes([size])
    return bytes([number << 3 | 2]) + length + data


SPAN_BYTES = tagged(1, b"\x01" * 16) + tagged(2, b"\x02" * 8)


def wired(span):
    """A batch whose only span is these bytes."""
    wire = tagged(1, tagged(2, tagged(2, span)))
    made = batch(Signal.TRACES, MESSAGES[Signal.TRACES].FromString(wire))
    made.wire = wire
    return made


UNUSUAL = {
    "bytes": one(attributes=[valued("a", bytes_value=b"\xff")]),
    "nan": one(attributes=[valued("a", double_value=float("nan"))]),
    "infinity": one(attributes=[valued("a", double_value=float("-inf"))]),
    "subnormal": one(attributes=[valued("a", double_value=5e-324)]),
    "twice": one(attributes=[valued("a", int_value=1), valued("a", int_value=2)]),
    "late": one(start_time_unix_nano=2**63),
    "late end": one(end_time_unix_nano=2**64 - 1),
    "many": one(attributes=[valued(f"a{number}", int_value=1) for number in range(300)]),
}
nested = AnyValue(int_value=1)
for _ in range(22):
    outer = AnyValue()
    outer.array_value.values.append(nested)
    nested = outer
UNUSUAL["deep"] = one(attributes=[KeyValue(key="a", value=nested)])
for reserved in ("$binary", "$numberDouble", "$escape"):
    escaped = AnyValue()
    escaped.kvlist_value.values.append(valued(reserved, string_value="x"))
    UNUSUAL[reserved] = one(attributes=[KeyValue(key="a", value=escaped)])


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_documents(name):
    """D4: the direct way gives up a whole request rather than guess."""
    found, twin = both(UNUSUAL[name])
    assert found is None
    assert len(twin.rows) == WIDTH


@pytest.mark.parametrize(
    "span",
    [
        SPAN_BYTES + tagged(5, b"a") + tagged(5, b"b"),  # the last one counts
        SPAN_BYTES + tagged(9, tagged(1, b"a")) + tagged(5, b"n") + tagged(9, tagged(1, b"b")),
        SPAN_BYTES + tagged(15, b"\x18\x02") + tagged(15, tagged(2, b"x")),  # messages merge
        SPAN_BYTES + tagged(9, tagged(1, b"a") + tagged(1, b"b")),
        SPAN_BYTES + tagged(9, tagged(2, b"\x18\x01\x18\x02")),
        SPAN_BYTES + b"\xfb\x01\xfc\x01",  # a group
    ],
)
def test_what_protobuf_merges_is_left_to_documents(span):
    """D4: fields that come twice, or in two runs."""
    made = wired(span)
    assert direct.rows_of(made) is None
    assert len(usual(made).rows) == WIDTH


@pytest.mark.parametrize(
    "span",
    [
        tagged(5, b"name first") + SPAN_BYTES,
        SPAN_BYTES + tagged(9, tagged(2, b"\x18\x01") + tagged(1, b"value first")),
        SPAN_BYTES + tagged(9, b""),
        SPAN_BYTES + tagged(15, b""),
        SPAN_BYTES + b"\x38\x05",  # a time that is no fixed64 is an unknown field
        SPAN_BYTES + b"\xb8\x04\x05" + tagged(12, b"\x01"),  # unknown numbers
        SPAN_BYTES + b"\x30\x00",  # an explicit default
        b"\x30\x02"
        + SPAN_BYTES
        + tagged(9, tagged(1, b"http.route") + tagged(2, tagged(1, b"/x"))),
    ],
)
def test_other_orders_and_unknown_fields_are_taken(span):
    """D4: the order of fields is that of the wire, as in documents."""
    made = wired(span)
    found, twin = direct.rows_of(made), usual(made)
    assert found is not None
    assert (found.rows, found.trails) == (twin.rows, twin.trails)


def rows(data, most=MAX_DOCUMENT_BYTES):
    """What the core says to some bytes."""
    schema = native_schema(MESSAGES[Signal.TRACES].DESCRIPTOR)
    return CORE.span_rows(schema, data, b"\0", 7, b'"now"', most)


@FUZZ
@given(st.data())
def test_any_bytes_are_rows_or_none(data):
    """B40: bytes that are no request, cut or changed at any place, never do harm."""
    message = data.draw(usual_requests())
    wire = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        if wire:
            wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    found = rows(cut)
    if found is not None:
        for values, width in zip(found, (WIDTH, TRAIL_WIDTH), strict=True):
            assert len(values) % width == 0
            for document in values[width - 1 :: width]:
                loads(document.replace('"now"', '"2023-11-14T22:13:20Z"').encode())


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80", b"\xf0\x80\x80\x80"],
)
@pytest.mark.parametrize("padding", [0, 1, 8])
def test_text_that_is_no_utf8_is_left_to_documents(bad, padding):
    """B25: no invalid text gets into the store; the usual way says what is wrong."""
    wire = tagged(1, tagged(2, tagged(2, SPAN_BYTES + tagged(5, b"x" * padding + bad))))
    assert rows(wire) is None
    key = tagged(9, tagged(1, b"x" * padding + bad) + tagged(2, b"\x18\x01"))
    assert rows(tagged(1, tagged(2, tagged(2, SPAN_BYTES + key)))) is None


def test_a_large_document_is_left_to_documents():
    """D4: a document above the limit is refused with its reason, as ever."""
    wire = one(name="n" * 1000).SerializeToString()
    whole = rows(wire)[0][-1]
    assert rows(wire, len(whole)) is not None
    assert rows(wire, len(whole) - 1) is None
    found, twin = both(one(name="n" * MAX_DOCUMENT_BYTES))
    assert found is None
    assert [refused.reason for refused in twin.refused] == ["too_large"]


@pytest.mark.parametrize(
    "change",
    [
        {"made": []},
        {"signal": Signal.LOGS, "message": MESSAGES[Signal.LOGS](), "wire": b""},
    ],
)
def test_made_documents_and_other_signals_go_the_usual_way(change):
    """D4: documents that another exporter made are used; log records have documents."""
    assert direct.rows_of(replace(batch(Signal.TRACES, one()), **change)) is None


def test_a_changed_message_counts_and_not_its_bytes():
    """D4: what a processor changed is stored as it is now."""
    made = batch(Signal.TRACES, one(name="before"))
    made.message.resource_spans[0].scope_spans[0].spans[0].name = "after"
    made.changed()
    found = direct.rows_of(made)
    assert loads(found.rows[-1].encode())["name"] == "after"
    assert found.rows == usual(made).rows


def test_many_threads_make_the_same_rows():
    """B40: the core writes while others run, each on a sheet of its own."""
    message = MESSAGES[Signal.TRACES].FromString(spans_of_a_service(random.Random(2)))
    expected = direct.rows_of(batch(Signal.TRACES, message)).rows
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: direct.rows_of(batch(Signal.TRACES, message)), range(16)))
    assert all(each.rows == expected for each in found)


@pytest.mark.anyio
@pytest.mark.parametrize("attribute", [valued("a", int_value=1), valued("a", bytes_value=b"\x00")])
async def test_a_batch_is_stored_on_either_way(tmp_path, attribute):
    """D4: stored once, read back equal to its documents, counted as a duplicate when it comes again."""
    made = batch(Signal.TRACES, one(name="n", kind=2, attributes=[attribute]))
    expected = documents(replace(made, made=None))
    async with sqlite(tmp_path / "t.db") as store:
        await store(made)
        await store(replace(made, made=None))
        (found,) = await store.fetch("spans", [expected[0]["_id"]])
        assert found == expected[0]
        assert await store.sizes() == {"spans": 1, "trace_logs": 1}


NAMES_OF_PLACES = as_parts(SPAN)
SETUP = (
    NAMES_OF_PLACES,
    "context",
    LOOKUP,
    HTTP_ROUTE,
    SERVICE_NAME,
    "u",
    "ERROR",
    ENTRIES,
    (17, 9),
)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, {"a": ()}),
        (0, {"a" * 49: next(iter(NAMES_OF_PLACES.values()))}),
        (0, {"a": (None, "a", ord("s"), True, "b", False)}),
        (2, ("k",) * 17),
        (2, (1,)),
        (3, 1),
        (7, ("k",) * 9),
        (7, (1,)),
    ],
)
def test_a_setup_that_is_wrong_is_an_error(place, value):
    """B40: the core looks at every type before it trusts it, and says so."""
    try:
        with pytest.raises((TypeError, ValueError)):
            CORE.direct_setup(*SETUP[:place], value, *SETUP[place + 1 :])
    finally:
        CORE.direct_setup(*SETUP[:5], "unknown_service", *SETUP[6:])
    assert same(one(kind=2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: CORE.span_rows(None, b"", b"", 1, b"", 1),
        lambda: CORE.span_rows(
            native_schema(MESSAGES[Signal.TRACES].DESCRIPTOR), "", b"", 1, b"", 1
        ),
        lambda: CORE.span_rows(
            native_schema(MESSAGES[Signal.TRACES].DESCRIPTOR), b"", b"", None, b"", 1
        ),
        lambda: CORE.schema([(1, "a", 14, False, False, [])]),
        lambda: CORE.schema([(1, "a", 14, False, False, (1,))]),
        lambda: CORE.schema([(1, "a", 9, False, False, None), (1, "b", 9, False, False, None)]),
    ],
)
def test_wrong_arguments_are_errors(call):
    """B40: never a crash."""
    with pytest.raises((TypeError, ValueError)):
        call()


def test_a_schema_that_is_none_of_spans_is_left_to_documents():
    """B40: an OTLP that we do not know is read by the decoder that needs no names."""
    schema = native_schema(MESSAGES[Signal.LOGS].DESCRIPTOR)
    assert CORE.span_rows(schema, b"", b"", 1, b"", 1) is None


def test_severities_of_a_trail_are_those_of_its_levels():
    """D5: a failed request is an error in the trail."""
    message = one(kind=2)
    message.resource_spans[0].scope_spans[0].spans[0].status.code = 2
    found, twin = both(message)
    assert found.trails == twin.trails
    assert LEAST["ERROR"] in found.trails
