"""Spans and log records as OTLP: the same messages as upstream's encoder makes of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from telemetry import _native
from telemetry._export.otlp_encoder import ATTRIBUTES, OtlpEncoder

INT64 = 2**63
CORES = list(dict.fromkeys([_native.core, None]))
cores = pytest.mark.parametrize("core", CORES, ids=lambda core: "Python" if core is None else "C")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=20)
names = st.sampled_from(["a", "b", "order.id", "größe"]) | ascii_texts.filter(bool)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-INT64, INT64 - 1),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
attributes = st.dictionaries(names, values, max_size=6)
nanos = st.integers(0, INT64 - 1)
trace_ids = st.integers(1, 2**128 - 1)
span_ids = st.integers(1, 2**64 - 1)
resources = st.sampled_from(
    [Resource({"service.name": "shop"}), Resource({"n": 1, "list": ["a"]}, "https://schema/1")]
)
scopes = st.sampled_from(
    [
        InstrumentationScope("shop"),
        InstrumentationScope("lib", "1.2", "https://schema/2", {"k": "v", "n": 2}),
        InstrumentationScope(""),
    ]
)
contexts = st.builds(
    SpanContext,
    trace_ids,
    span_ids,
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(1), TraceFlags(3)]),
    trace_state=st.sampled_from([TraceState(), TraceState([("vendor", "x"), ("other", "y")])]),
)
spans = st.builds(
    ReadableSpan,
    name=texts,
    context=contexts,
    parent=st.none() | contexts,
    resource=resources,
    attributes=attributes,
    events=st.lists(st.builds(Event, texts, attributes, st.integers(1, INT64 - 1)), max_size=2),
    links=st.lists(st.builds(Link, contexts, attributes), max_size=2),
    kind=st.sampled_from(SpanKind),
    status=st.sampled_from(
        [Status(), Status(StatusCode.OK), Status(StatusCode.ERROR, "no such order")]
    ),
    start_time=nanos,
    end_time=nanos,
    instrumentation_scope=scopes,
)


@st.composite
def logs(draw):
    record = LogRecord(
        timestamp=draw(nanos),
        observed_timestamp=draw(nanos),
        severity_text=draw(st.none() | texts),
        severity_number=draw(st.sampled_from(SeverityNumber)),
        body=draw(values),
        attributes=draw(attributes),
        event_name=draw(st.none() | texts),
    )
    record.trace_id = draw(st.just(0) | trace_ids)
    record.span_id = draw(st.just(0) | span_ids)
    record.trace_flags = draw(st.sampled_from([TraceFlags(0), TraceFlags(1)]))
    return ReadableLogRecord(record, draw(resources), draw(scopes))


def grouped(message):
    """Each record with its resource and scope: the order of groups says nothing."""
    return sorted(
        (
            str((group.resource, group.schema_url, scope.scope, scope.schema_url)),
            record.SerializeToString(deterministic=True),
        )
        for group in getattr(message, message.DESCRIPTOR.fields[0].name)
        for scope in getattr(group, group.DESCRIPTOR.fields[1].name)
        for record in getattr(scope, scope.DESCRIPTOR.fields[1].name)
    )


@cores
@settings(deadline=None, max_examples=60)
@given(batch=st.lists(spans, max_size=3))
def test_spans(core, batch):
    """Any spans give the message that OpenTelemetry's encoder gives; also when bytes are remembered."""
    wire = OtlpEncoder(core)
    for _ in range(2):
        ours = ExportTraceServiceRequest.FromString(wire.spans(batch))
        assert grouped(ours) == grouped(encode_spans(batch))


@cores
@settings(deadline=None, max_examples=60)
@given(batch=st.lists(logs(), max_size=3))
def test_logs(core, batch):
    """Any log records give the message that OpenTelemetry's encoder gives."""
    wire = OtlpEncoder(core)
    for _ in range(2):
        ours = ExportLogsServiceRequest.FromString(wire.logs(batch))
        assert grouped(ours) == grouped(encode_logs(batch))


def log(**given):
    record = LogRecord(timestamp=1, attributes=given.pop("attributes", {}), **given)
    return ReadableLogRecord(record, Resource({}), InstrumentationScope("t"))


def first(core, batch):
    message = ExportLogsServiceRequest.FromString(OtlpEncoder(core).logs(batch))
    return message.resource_logs[0].scope_logs[0].log_records[0]


@cores
def test_lone_surrogates_cost_one_character_each(core):
    """Names, texts and bodies that are no UTF-8 arrive with U+FFFD (B26)."""
    record = first(core, [log(body="a\ud800", attributes={"k\ud800": "v\udfff"})])
    assert (record.body.string_value, record.attributes[0].key) == ("a\ufffd", "k\ufffd")
    assert record.attributes[0].value.string_value == "v\ufffd"


@cores
def test_an_integer_beyond_64_bits_is_text(core):
    """It cannot be a number in OTLP, and does not cost the batch."""
    record = first(core, [log(attributes={"n": 2**70, "next": 1})])
    assert [(pair.key, pair.value.WhichOneof("value")) for pair in record.attributes] == [
        ("n", "string_value"),
        ("next", "int_value"),
    ]


@cores
def test_a_value_of_another_kind_is_left_out_alone(core):
    """What OTLP cannot say costs the attribute and not its neighbours."""
    record = first(core, [log(attributes={"before": 1, "odd": object(), "after": 2})])
    assert [pair.key for pair in record.attributes] == ["before", "after"]


def test_what_is_remembered_is_bounded_and_right():
    """More different texts than the tables hold are encoded as they are."""
    wire = OtlpEncoder(None)
    for number in range(ATTRIBUTES + 10):
        given = {"order": f"o-{number}"}
        message = ExportLogsServiceRequest.FromString(wire.logs([log(attributes=given)]))
        (pair,) = message.resource_logs[0].scope_logs[0].log_records[0].attributes
        assert pair.value.string_value == f"o-{number}"


@cores
@pytest.mark.parametrize("value", [True, 1, 1.0, "1"])
def test_equal_values_of_different_kinds_stay_apart(core, value):
    """True, 1 and 1.0 are equal in Python and different in OTLP, in any order."""
    wire = OtlpEncoder(core)
    for sent in (True, 1, 1.0, "1", value):
        message = ExportLogsServiceRequest.FromString(wire.logs([log(attributes={"k": sent})]))
        (pair,) = message.resource_logs[0].scope_logs[0].log_records[0].attributes
        found = getattr(pair.value, pair.value.WhichOneof("value"))
        assert (type(found), found) == (type(sent), sent)
