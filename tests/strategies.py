"""Hypothesis strategies: any OTLP export request, built as protobuf, and how to compare two."""

from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.model import Batch, Request, Signal
from telemetry.attributes import CONTEXT

MESSAGES = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}

# Names that documents give a meaning to must collide with everything.
NAMES = [
    *CONTEXT,
    *CONTEXT.values(),
    "service.name",
    "code.function.name",
    "code.line.number",
    "code.file.path",
    "exception.type",
    "exception.message",
    "exception.stacktrace",
    "operation.execution_time_ms",
    "operation.status",
    "log.record.uid",
    "$binary",
    "$numberDouble",
    "$escape",
    "_id",
    "__proto__",
    "a.b",
    "",
]
texts = st.text(max_size=12) | st.sampled_from(NAMES)
keys = st.sampled_from(NAMES) | st.text(max_size=8)
uint64 = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False)  # NaN differs from itself; it has a test of its own
nanos = st.sampled_from([0, 1, 10**9, 1_700_000_000_123_456_789, 2**63 - 1]) | st.integers(
    0, 2**63 - 1
)


def any_values(depth: int = 2) -> st.SearchStrategy[AnyValue]:
    scalars = st.one_of(
        st.just(AnyValue()),
        st.builds(AnyValue, string_value=texts),
        st.builds(AnyValue, int_value=int64),
        st.builds(AnyValue, double_value=doubles),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, bytes_value=st.binary(max_size=6)),
    )
    if depth == 0:
        return scalars

    def array(values: list[AnyValue]) -> AnyValue:
        made = AnyValue()
        made.array_value.SetInParent()
        made.array_value.values.extend(values)
        return made

    def kvlist(values: list[KeyValue]) -> AnyValue:
        made = AnyValue()
        made.kvlist_value.SetInParent()
        made.kvlist_value.values.extend(values)
        return made

    return (
        scalars
        | st.lists(any_values(depth - 1), max_size=3).map(array)
        | key_values(depth - 1).map(kvlist)
    )


def key_values(depth: int = 2) -> st.SearchStrategy[list[KeyValue]]:
    pair = st.builds(KeyValue, key=keys, value=any_values(depth))
    return st.lists(pair, max_size=5, unique_by=lambda item: item.key)


@st.composite
def filled(draw: st.DrawFn, descriptor_type: type, **chosen: Any) -> Any:
    """Any message of a type: each field is there or not, with any value of its type."""
    message = descriptor_type()
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None or not draw(st.booleans()):
            continue
        _fill(draw, message, field, chosen)
    for oneof in message.DESCRIPTOR.oneofs:
        field = draw(st.sampled_from([None, *oneof.fields]))
        if field is not None:
            _fill(draw, message, field, chosen)
    return message


def _fill(draw: st.DrawFn, message: Any, field: Any, chosen: dict[str, Any]) -> None:
    if field.name in chosen:
        strategy = chosen[field.name]
    elif field.message_type is not None and field.message_type.full_name.endswith(".KeyValue"):
        getattr(message, field.name).extend(draw(key_values()))
        return
    elif field.message_type is not None and field.message_type.full_name.endswith(".AnyValue"):
        getattr(message, field.name).CopyFrom(draw(any_values()))
        return
    elif field.message_type is not None:
        strategy = filled(field.message_type._concrete_class)
    else:
        strategy = SCALARS[field.type]
        if "time_unix_nano" in field.name:
            strategy = nanos
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(strategy, max_size=3)))
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(strategy))
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, draw(strategy))


SCALARS = {
    1: doubles,
    3: int64,
    4: uint64,
    5: st.integers(-(2**31), 2**31 - 1),
    6: uint64,
    7: uint32,
    8: st.booleans(),
    9: texts,
    12: st.sampled_from([8, 16]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    13: uint32,
    14: st.integers(0, 26),
    16: int64,
    17: st.integers(-(2**31), 2**31 - 1),
}


RECEIVED = 4_100_000_000_123_456_789
"""When batches of tests arrive: 2099, so that no retention is over when a store gets them."""


def requests(signal: Signal) -> st.SearchStrategy[Any]:
    """Any export request of a signal."""
    return filled(MESSAGES[signal])


def batch(signal: Signal, message: Any, *, key: bytes = b"k" * 16, tenant: str = "") -> Batch:
    """A batch around a message, as a receiver would hand it on."""
    request = Request(RECEIVED, key, tenant, "test")
    return Batch(signal, message, request, message.SerializeToString())


def items(signal: Signal, message: Any) -> list[Any]:
    """
    What a request says, without what OTLP calls no difference: the order of attributes, how
    items are grouped, groups without items, empty messages and empty bodies.
    """
    groups, scopes, leaves = {
        Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
        Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
        Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    }[signal]
    found = []
    for group in getattr(message, groups):
        for scoped in getattr(group, scopes):
            owner = (
                plain(group.resource),
                group.schema_url,
                plain(scoped.scope),
                scoped.schema_url,
            )
            for leaf in getattr(scoped, leaves):
                if signal is Signal.METRICS:
                    found += [(owner, head, point) for head, point in points(leaf)]
                else:
                    found.append((owner, plain(leaf)))
    return sorted(found, key=repr)


def points(metric: Any) -> list[Any]:
    """(metric without its points, point) for each point."""
    kind = metric.WhichOneof("data")
    if kind is None:
        return []
    head = type(metric)()
    head.CopyFrom(metric)
    getattr(head, kind).ClearField("data_points")
    return [
        ((kind, plain(head), plain(getattr(head, kind))), plain(point))
        for point in getattr(metric, kind).data_points
    ]


def plain(message: Any) -> Any:
    """A message as nested tuples; attributes sorted, empty messages left out."""
    found = []
    for field, value in message.ListFields():
        if field.message_type is None:
            found.append((field.name, repr(list(value) if field.is_repeated else value)))
        elif field.is_repeated:
            inner = [plain(item) for item in value]
            if field.message_type.full_name.endswith(".KeyValue"):
                inner.sort(key=repr)
            found.append((field.name, inner))
        elif value.ByteSize() or field.containing_oneof is not None or field.name in PRESENT:
            found.append((field.name, plain(value)))
    return found


PRESENT = {"positive", "negative"}
