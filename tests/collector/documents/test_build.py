"""Batch -> documents -> batch: whole documents, lossless, the same on both decoders."""

import math
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.documents import build as finishing
from collector.documents.build import Binary, NonFinite, documents, dumps, loads, rebuild
from collector.documents.schema import NATIVE, _walk, read
from collector.model import Signal
from tests.strategies import MESSAGES, batch, items, requests

SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TIME = 1_700_000_000_123_456_789
RECEIVED = datetime(2099, 12, 3, 16, 53, 20, 123000, UTC)


def attribute(pairs, key, **value):
    pair = pairs.add(key=key)
    pair.value.SetInParent()
    for kind, plain in value.items():
        setattr(pair.value, kind, plain)


@pytest.fixture
def span_request():
    message = MESSAGES[Signal.TRACES]()
    group = message.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.44.0")
    attribute(group.resource.attributes, "service.name", string_value="shop")
    scoped = group.scope_spans.add()
    scoped.scope.name, scoped.scope.version = "shop.orders", "1.2"
    span = scoped.spans.add(
        trace_id=bytes(range(16)),
        span_id=b"\x01" * 8,
        parent_span_id=b"\x02" * 8,
        name="GET /orders/{id}",
        kind=2,
        start_time_unix_nano=TIME,
        end_time_unix_nano=TIME + 1_500_000,
        flags=257,
    )
    span.status.code, span.status.message = 2, "boom"
    attribute(span.attributes, "http.request.method", string_value="GET")
    attribute(span.attributes, "http.response.status_code", int_value=500)
    attribute(span.attributes, "correlation.id", string_value="corr-1")
    attribute(span.attributes, "user_id", int_value=42)
    attribute(span.attributes, "blob", bytes_value=b"\x00\xff")
    event = span.events.add(name="retry", time_unix_nano=TIME + 5)
    attribute(event.attributes, "attempt", int_value=2)
    span.links.add(trace_id=b"\x03" * 16, span_id=b"\x04" * 8)
    return message


def test_a_span_becomes_this_document(span_request):
    """D3: a span's document, whole."""
    (document,) = documents(batch(Signal.TRACES, span_request))
    assert document == {
        "_id": "6553f100" + document["_id"][8:],
        "received_at": RECEIVED,
        "trace_id": "000102030405060708090a0b0c0d0e0f",
        "span_id": "0101010101010101",
        "parent_span_id": "0202020202020202",
        "name": "GET /orders/{id}",
        "kind": "SERVER",
        "service": "shop",
        "start": datetime(2023, 11, 14, 22, 13, 20, 123456, UTC),
        "start_unix_nano": TIME,
        "end_unix_nano": TIME + 1_500_000,
        "duration_ms": 1.5,
        "status": "ERROR",
        "status_message": "boom",
        "context": {"correlation_id": "corr-1", "user_id": "42"},
        "attributes": {
            "http.request.method": "GET",
            "http.response.status_code": 500,
            "user_id": 42,
            "blob": b"\x00\xff",
        },
        "events": [{"name": "retry", "time_unix_nano": TIME + 5, "attributes": {"attempt": 2}}],
        "links": [{"trace_id": "03" * 16, "span_id": "04" * 8}],
        "flags": 257,
        "resource": {"service.name": "shop"},
        "resource_meta": {"schema_url": "https://opentelemetry.io/schemas/1.44.0"},
        "scope": {"name": "shop.orders", "version": "1.2"},
    }


def test_a_log_record_becomes_this_document():
    """A1: a log record's document carries the seed's keys: context, trace, exception."""
    message = MESSAGES[Signal.LOGS]()
    group = message.resource_logs.add()
    attribute(group.resource.attributes, "service.name", string_value="chat")
    scoped = group.scope_logs.add()
    scoped.scope.name = "app.services.whatsapp"
    record = scoped.log_records.add(
        time_unix_nano=TIME,
        observed_time_unix_nano=TIME + 7,
        severity_number=17,
        severity_text="ERROR",
        trace_id=b"\x0a" * 16,
        span_id=b"\x0b" * 8,
        flags=1,
        event_name="flow.failed",
    )
    record.body.string_value = "Flow failed"
    attribute(record.attributes, "code.function.name", string_value="_trigger_flow")
    attribute(record.attributes, "code.line.number", int_value=5294)
    attribute(record.attributes, "request.id", string_value="req-1")
    attribute(record.attributes, "organization_id", string_value="org-1")
    attribute(record.attributes, "exception.type", string_value="ValueError")
    attribute(record.attributes, "exception.message", string_value="no")
    attribute(record.attributes, "operation.execution_time_ms", double_value=45.23)
    attribute(record.attributes, "operation.status", string_value="error")
    attribute(record.attributes, "nodes", int_value=5)
    (document,) = documents(batch(Signal.LOGS, message))
    assert document == {
        "_id": "6553f100" + "6b" * 8,
        "received_at": RECEIVED,
        "timestamp": datetime(2023, 11, 14, 22, 13, 20, 123456, UTC),
        "time_unix_nano": TIME,
        "observed_unix_nano": TIME + 7,
        "level": "ERROR",
        "severity_number": 17,
        "severity_text": "ERROR",
        "service": "chat",
        "logger_name": "app.services.whatsapp",
        "function_name": "_trigger_flow",
        "line_number": 5294,
        "message": "Flow failed",
        "event": "flow.failed",
        "context": {"request_id": "req-1", "organization_id": "org-1"},
        "trace": {
            "trace_id": "0a" * 16,
            "span_id": "0b" * 8,
            "execution_time_ms": 45.23,
            "status": "error",
        },
        "exception": {"type": "ValueError", "message": "no"},
        "attributes": {"organization_id": "org-1", "nodes": 5},
        "flags": 1,
        "resource": {"service.name": "chat"},
        "scope": {"name": "app.services.whatsapp"},
    }


def test_a_histogram_point_becomes_this_document():
    """D3: a metric point's document, with its exemplar leading to the trace (D1)."""
    message = MESSAGES[Signal.METRICS]()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="d", unit="s")
    metric.histogram.aggregation_temporality = 2
    point = metric.histogram.data_points.add(
        start_time_unix_nano=TIME - 10,
        time_unix_nano=TIME,
        count=3,
        sum=1.5,
        bucket_counts=[1, 2],
        explicit_bounds=[0.5],
    )
    attribute(point.attributes, "http.route", string_value="/x")
    point.exemplars.add(
        time_unix_nano=TIME, as_double=0.4, trace_id=b"\x01" * 16, span_id=b"\x02" * 8
    )
    (document,) = documents(batch(Signal.METRICS, message))
    assert document == {
        "_id": "6553f100" + document["_id"][8:],
        "received_at": RECEIVED,
        "service": "unknown_service",
        "name": "d",
        "unit": "s",
        "type": "histogram",
        "temporality": "cumulative",
        "timestamp": datetime(2023, 11, 14, 22, 13, 20, 123456, UTC),
        "time_unix_nano": TIME,
        "start_unix_nano": TIME - 10,
        "count": 3,
        "sum": 1.5,
        "bucket_counts": [1, 2],
        "explicit_bounds": [0.5],
        "attributes": {"http.route": "/x"},
        "exemplars": [
            {"time_unix_nano": TIME, "value": 0.4, "trace_id": "01" * 16, "span_id": "02" * 8}
        ],
    }


@pytest.mark.parametrize("signal", Signal)
def test_a_batch_can_be_rebuilt_from_its_documents(signal):
    """D3: nothing that OTLP gives a meaning to is lost in documents, nor in their JSON."""

    @SLOW
    @given(requests(signal))
    def check(message):
        found = documents(batch(signal, message))
        assert [loads(dumps(document)) for document in found] == found
        assert items(signal, rebuild(signal, found)) == items(signal, message)

    check()


@pytest.mark.parametrize("signal", Signal)
def test_the_native_core_and_python_read_the_same(signal):
    """The compiled decoder and its Python twin agree on every message."""
    assert NATIVE, "the native core was not built: is there a C compiler?"

    @SLOW
    @given(requests(signal))
    def check(message):
        wire = message.SerializeToString()
        native = read(wire, message)
        assert native == _walk(message)
        assert dumps(native, ordered=True) == dumps(_walk(message), ordered=True)

    check()


@pytest.mark.parametrize("signal", [Signal.TRACES, Signal.LOGS])
def test_the_native_core_and_python_finish_the_same(signal, monkeypatch):
    """D3: ids, dates, levels and places of attributes are the same, in the same order."""
    assert NATIVE, "the native core was not built: is there a C compiler?"

    @SLOW
    @given(requests(signal))
    def check(message):
        native = documents(batch(signal, message))
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "_finish_spans", finishing.finish_spans)
            patch.setattr(finishing, "_finish_logs", finishing.finish_logs)
            plain = documents(batch(signal, message))
        assert native == plain
        assert [dumps(document) for document in native] == [dumps(document) for document in plain]

    check()


@pytest.mark.parametrize("length", [0, 1, 95, 96, 97, 127, 128, 129, 255, 256, 257, 5000])
def test_identities_are_blake2b(length, monkeypatch):
    """D4: the core's hash is hashlib's, at every length around its block."""
    uid = "u" * length
    message = MESSAGES[Signal.LOGS]()
    record = message.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=TIME)
    attribute(record.attributes, "log.record.uid", string_value=uid)
    (native,) = documents(batch(Signal.LOGS, message))
    monkeypatch.setattr(finishing, "_finish_logs", finishing.finish_logs)
    (plain,) = documents(batch(Signal.LOGS, message))
    assert native == plain


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(Signal)))
def test_bytes_that_are_no_request_raise_value_error(data, signal):
    """B27: the core reads nothing beyond the bytes that it was given."""
    empty = MESSAGES[signal]()
    try:
        read(data, empty)
    except ValueError:
        return
    # What the core accepts beside garbage is what protobuf accepts: skipped unknown fields.


@given(requests(Signal.TRACES), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cut_and_flipped_bytes_never_crash_the_core(message, data):
    """B40: truncated and damaged requests end in a dict or in ValueError."""
    wire = bytearray(message.SerializeToString())
    if wire:
        at = data.draw(st.integers(0, len(wire) - 1))
        wire[at] ^= data.draw(st.integers(1, 255))
        wire = wire[: data.draw(st.integers(0, len(wire)))]
    try:
        read(bytes(wire), MESSAGES[Signal.TRACES]())
    except ValueError:
        return


@pytest.mark.parametrize(
    ("value", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_numbers_that_json_lacks_survive_json(value, word):
    """B34: NaN and the infinities are written as Extended JSON and come back as numbers."""
    message = MESSAGES[Signal.METRICS]()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
    metric.gauge.data_points.add(time_unix_nano=TIME, as_double=value)
    (document,) = documents(batch(Signal.METRICS, message))
    line = dumps(document)
    assert b'"value":{"$numberDouble":"%s"}' % word.encode() in line
    back = loads(line)["value"]
    assert isinstance(back, NonFinite)
    assert str(back) == str(value)


def test_bytes_are_binary_in_json(span_request):
    """Bytes come back as bytes, told apart from a text of the same letters."""
    (document,) = documents(batch(Signal.TRACES, span_request))
    blob = loads(dumps(document))["attributes"]["blob"]
    assert (type(blob), blob) == (Binary, b"\x00\xff")


def test_ids_depend_on_the_item_and_not_on_arrival(span_request):
    """R5: a resend gets the same ids; another tenant, another span or another request do not."""
    log = MESSAGES[Signal.LOGS]()
    scoped = log.resource_logs.add().scope_logs.add()
    for _ in range(2):
        scoped.log_records.add(time_unix_nano=TIME).body.string_value = "same line"

    def ids(signal, message, **options):
        return [item["_id"] for item in documents(batch(signal, message, **options))]

    assert ids(Signal.TRACES, span_request) == ids(Signal.TRACES, span_request, key=b"z" * 16)
    assert ids(Signal.TRACES, span_request) != ids(Signal.TRACES, span_request, tenant="b")
    first = ids(Signal.LOGS, log)
    assert first == ids(Signal.LOGS, log)
    assert len({*first, *ids(Signal.LOGS, log, key=b"z" * 16)}) == 4


def test_records_with_one_uid_have_one_id_in_every_request():
    """`log.record.uid` makes two records the same record, whatever request brings them."""
    log = MESSAGES[Signal.LOGS]()
    record = log.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=TIME)
    attribute(record.attributes, "log.record.uid", string_value="01J")
    one = documents(batch(Signal.LOGS, log))[0]["_id"]
    assert one == documents(batch(Signal.LOGS, log, key=b"z" * 16))[0]["_id"]


def test_a_record_without_time_takes_observed_then_received():
    """B30: time 0 becomes the observed time, else the time of arrival, and says so."""
    log = MESSAGES[Signal.LOGS]()
    scoped = log.resource_logs.add().scope_logs.add()
    scoped.log_records.add(observed_time_unix_nano=TIME)
    scoped.log_records.add()
    observed, received = documents(batch(Signal.LOGS, log))
    assert (observed["time_unix_nano"], observed["time_source"]) == (TIME, "observed")
    assert (received["time_unix_nano"], received["time_source"]) == (
        4_100_000_000_123_456_789,
        "received",
    )


def test_a_span_that_ends_before_it_starts_has_no_duration():
    """B32: a clock that went back gives duration 0, and both times are kept."""
    message = MESSAGES[Signal.TRACES]()
    message.resource_spans.add().scope_spans.add().spans.add(
        start_time_unix_nano=TIME, end_time_unix_nano=TIME - 1
    )
    (document,) = documents(batch(Signal.TRACES, message))
    assert (document["duration_ms"], document["end_unix_nano"]) == (0.0, TIME - 1)


@pytest.mark.parametrize(
    ("number", "text", "level"),
    [
        (1, "", "DEBUG"),
        (8, "", "DEBUG"),
        (9, "", "INFO"),
        (13, "WARN", "WARNING"),
        (17, "", "ERROR"),
        (24, "", "CRITICAL"),
        (26, "", "CRITICAL"),
        (0, "fatal", "CRITICAL"),
        (0, "whatever", "INFO"),
        (0, "", "INFO"),
    ],
)
def test_severity_decides_the_level(number, text, level):
    """A5: five levels, by number first, by text when there is no number."""
    log = MESSAGES[Signal.LOGS]()
    record = log.resource_logs.add().scope_logs.add().log_records.add(severity_text=text)
    record.severity_number = number
    assert documents(batch(Signal.LOGS, log))[0]["level"] == level


def test_documents_work_without_the_native_core(span_request):
    """A machine without a C compiler gets the same documents from Python."""
    script = (
        "import sys\n"
        "from collector.documents.schema import NATIVE\n"
        "from collector.documents.build import documents, dumps\n"
        "from collector.model import Signal\n"
        "from tests.strategies import MESSAGES, batch\n"
        "message = MESSAGES[Signal.TRACES].FromString(sys.stdin.buffer.read())\n"
        "print(NATIVE, dumps(documents(batch(Signal.TRACES, message)), ordered=True).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=span_request.SerializeToString(),
        env={**os.environ, "OTELIER_PURE_PYTHON": "1"},
        capture_output=True,
        check=True,
    )
    expected = dumps(documents(batch(Signal.TRACES, span_request)), ordered=True).decode()
    assert done.stdout.decode() == f"False {expected}\n"
