"""OTLP over gRPC: codes, details and metadata for each kind of request."""

import concurrent.futures

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.errors import Permanent, Retryable, TooLarge
from collector.model import Duration, Signal
from collector.otlp import new_message
from collector.receivers.otlp.grpc import EnforcementPolicy, Keepalive, ServerParameters
from collector.receivers.otlp.receiver import Grpc

MIB = 1 << 20


def log_request(*bodies):
    message = new_message(Signal.LOGS)
    scope = message.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return message.SerializeToString()


GOOD = log_request("good")


@pytest.fixture
def still_serving(server):
    """After the bad call: nothing of it is stored, and a good one is served as if nothing was."""
    yield
    assert server.values() == []
    assert server.export(Signal.LOGS, GOOD) == b""
    assert server.values() == ["good"]


def refused(server, signal, body, **options):
    """The code, text, Status and trailing metadata of a refused call."""
    with pytest.raises(grpc.RpcError) as caught:
        server.export(signal, body, **options)
    metadata = dict(caught.value.trailing_metadata() or ())
    status = Status.FromString(metadata.get("grpc-status-details-bin", b""))
    return caught.value.code(), caught.value.details(), status, metadata


@pytest.mark.parametrize("signal", list(Signal))
def test_b39_empty_requests_succeed_without_touching_the_pipeline(server, signal):
    """B39: nothing in is a success with an empty response."""
    assert server.export(signal, b"") == b""
    assert server.batches == []


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages(server, compression):
    """Messages that gRPC compresses arrive whole."""
    body = log_request("x" * 100_000)
    assert server.export(Signal.LOGS, body, compression=compression) == b""
    assert server.batches[0].wire == body


def test_partial_success_names_count_and_reason(server):
    """Items that are rejected are counted in the response; their neighbours are stored."""
    message = new_message(Signal.TRACES)
    scope = message.resource_spans.add().scope_spans.add()
    for name in ("a", "b"):
        scope.spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, name=name)
    scope.spans[0].span_id = b""
    answer = ExportTraceServiceResponse.FromString(
        server.export(Signal.TRACES, message.SerializeToString())
    )
    assert answer.partial_success.rejected_spans == 1
    assert answer.partial_success.error_message == (
        "1 refused: trace id or span id is empty, zero or of the wrong length"
    )
    assert server.values() == ["b"]


def test_b25_invalid_utf8_costs_only_one_string(server):
    """B25: a request that the stock parser refuses is repaired and stored."""
    assert server.export(Signal.LOGS, log_request("a", "b@d", "c").replace(b"@", b"\xff")) == b""
    assert server.values() == ["a", "b\ufffdd", "c"]


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x7f", b"not protobuf", b"\x0a\x02\x12\x09"])
@pytest.mark.usefixtures("still_serving")
def test_bodies_that_cannot_be_decoded(server, body):
    """Malformed messages are INVALID_ARGUMENT with a BadRequest detail and no RetryInfo."""
    code, text, status, metadata = refused(server, Signal.LOGS, body)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (status.code, status.message) == (3, text)
    bad = BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].description == text
    assert "google.rpc.retryinfo-bin" not in metadata


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
@pytest.mark.usefixtures("still_serving")
def test_b08_messages_over_the_limit(server, compression):
    """B08: oversize, and a gzip bomb, are RESOURCE_EXHAUSTED without RetryInfo: final."""
    code, _, _, metadata = refused(server, Signal.LOGS, bytes(21 * MIB), compression=compression)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in metadata


@pytest.mark.usefixtures("still_serving")
def test_b10_too_many_items(server):
    """B10: too many items are RESOURCE_EXHAUSTED without RetryInfo, naming the limit."""
    body = log_request(*([""] * 50_001))
    code, text, status, metadata = refused(server, Signal.LOGS, body)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == "more than 50000 items in one request; send smaller batches"
    assert (status.code, list(status.details)) == (8, [])
    assert "google.rpc.retryinfo-bin" not in metadata


def test_the_limit_can_be_set(start):
    """`max_recv_msg_size_mib` is the limit of a message."""
    with start(grpc_config=Grpc(endpoint="127.0.0.1:0", max_recv_msg_size_mib=1)) as running:
        code = refused(running, Signal.LOGS, log_request("x" * MIB))[0]
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert running.export(Signal.LOGS, log_request("x" * (MIB - 1000))) == b""


def test_a_signal_without_a_pipeline(start):
    """A signal that is in no pipeline is UNIMPLEMENTED: final."""
    with start(grpc_config=Grpc(endpoint="127.0.0.1:0"), signals=[Signal.LOGS]) as running:
        code, text, _, _ = refused(running, Signal.METRICS, b"")
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert text == "metrics are part of no pipeline of this collector"
        assert running.export(Signal.LOGS, GOOD) == b""


@pytest.mark.usefixtures("still_serving")
def test_unknown_methods(server):
    """Methods that we do not have are UNIMPLEMENTED."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Import")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("failure", "delay", "text"),
    [
        (Retryable("the disk is full", 2.5), 3, "the disk is full"),
        (RuntimeError("secret detail"), 1, "the pipeline failed; see the log of the collector"),
        (TimeoutError(), 1, "the pipeline failed; see the log of the collector"),
    ],
)
def test_what_can_be_stored_later_is_unavailable(server, failure, delay, text):
    """Retryable and everything unforeseen is UNAVAILABLE with RetryInfo in both places."""
    server.failure = failure
    code, details, status, metadata = refused(server, Signal.LOGS, GOOD)
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, text)
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds == delay
    assert RetryInfo.FromString(metadata["google.rpc.retryinfo-bin"]) == info
    server.failure = None
    assert server.export(Signal.LOGS, GOOD) == b""
    assert server.counted() == {
        'otelcol_receiver_accepted_log_records{receiver="otlp",transport="grpc"}': 1,
        'otelcol_receiver_refused_log_records{receiver="otlp",transport="grpc"}': 1,
        'otelier_receiver_refused_requests{reason="retryable",receiver="otlp",transport="grpc"}': 1,
    }


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Permanent("never"), grpc.StatusCode.INVALID_ARGUMENT),
        (TooLarge("never"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_what_can_never_be_stored_is_final(server, failure, code):
    """Permanent errors of the pipeline have final codes and no RetryInfo."""
    server.failure = failure
    found, text, _, metadata = refused(server, Signal.LOGS, GOOD)
    assert (found, text) == (code, "never")
    assert "google.rpc.retryinfo-bin" not in metadata


def test_metrics_count_points(server):
    """The response to metrics speaks of data points."""
    message = new_message(Signal.METRICS)
    scope = message.resource_metrics.add().scope_metrics.add()
    scope.metrics.add(name="good").gauge.data_points.add(as_int=1)
    body = message.SerializeToString()
    inner = b"\x12\x02\x2a\x7f"  # a metric whose gauge is cut short
    start = body.index(b"\x12", 2)
    scope_bytes = body[start + 2 :] + inner
    body = b"\x0a%c\x12%c" % (len(scope_bytes) + 2, len(scope_bytes)) + scope_bytes
    answer = ExportMetricsServiceResponse.FromString(server.export(Signal.METRICS, body))
    assert answer.partial_success.rejected_data_points == 1
    assert answer.partial_success.error_message == "1 refused: cannot be decoded"
    assert server.values() == ["good"]


def test_many_clients_at_once(server):
    """Forty clients with requests small and large are all answered, and nothing is mixed up."""
    bodies = [str(n) * (1 if n % 4 else 40_000) for n in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: server.export(Signal.LOGS, log_request(body)), bodies))
    assert answers == [b""] * 40
    assert sorted(server.values()) == sorted(bodies)


def test_settings_become_options_of_grpc():
    """Every key of the section reaches gRPC; what is 0 is left to it."""
    assert Grpc().options() == [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 20 * MIB),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_concurrent_streams", 1000),
    ]
    config = Grpc(
        max_recv_msg_size_mib=4,
        max_concurrent_streams=7,
        keepalive=Keepalive(
            server_parameters=ServerParameters(
                max_connection_idle=Duration(1),
                max_connection_age=Duration(2),
                max_connection_age_grace=Duration(3),
                time=Duration(4),
                timeout=Duration(5),
            ),
            enforcement_policy=EnforcementPolicy(min_time=Duration(6), permit_without_stream=True),
        ),
    )
    assert dict(config.options()) == {
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": 4 * MIB,
        "grpc.server_handshake_timeout_ms": 10_000,
        "grpc.max_concurrent_streams": 7,
        "grpc.max_connection_idle_ms": 1000,
        "grpc.max_connection_age_ms": 2000,
        "grpc.max_connection_age_grace_ms": 3000,
        "grpc.keepalive_time_ms": 4000,
        "grpc.keepalive_timeout_ms": 5000,
        "grpc.http2.min_ping_interval_without_data_ms": 6000,
        "grpc.keepalive_permit_without_calls": 1,
    }


@settings(max_examples=50, deadline=None)
@given(signal=st.sampled_from(list(Signal)), body=st.binary(max_size=300))
def test_random_bodies_always_get_an_answer(shared, signal, body):
    """Any bytes are OK or INVALID_ARGUMENT, never UNKNOWN or INTERNAL."""
    try:
        shared.export(signal, body)
    except grpc.RpcError as error:
        code = error.code()
    else:
        code = grpc.StatusCode.OK
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
