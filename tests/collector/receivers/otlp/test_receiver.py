"""The receiver with the stock OpenTelemetry exporters, its life cycle, counters and settings."""

import concurrent.futures
import os
import socket
import subprocess
import sys
import threading

import grpc
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from collector.errors import StartFailed
from collector.model import Duration, Signal
from collector.otlp import items, new_message
from collector.receivers.otlp.receiver import Grpc, Http, Otlp, Protocols

RESOURCE = Resource({"service.name": "shop"})


def log_request(*bodies):
    message = new_message(Signal.LOGS)
    scope = message.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return message.SerializeToString()


def exporter(server, transport, signal, compressed):
    """A stock exporter towards the receiver."""
    if transport == "grpc":
        kind = {Signal.TRACES: GrpcSpans, Signal.METRICS: GrpcMetrics, Signal.LOGS: GrpcLogs}[
            signal
        ]
        compression = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
        return kind(endpoint=server.grpc, insecure=True, compression=compression)
    kind = {Signal.TRACES: HttpSpans, Signal.METRICS: HttpMetrics, Signal.LOGS: HttpLogs}[signal]
    host, port = server.http
    return kind(
        endpoint=f"http://{host}:{port}/v1/{signal}",
        compression=Compression.Gzip if compressed else Compression.NoCompression,
    )


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_stock_exporter_of_spans(server, transport, compressed):
    """The SDK's span exporter is understood over both transports, plain and gzipped."""
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    sender = exporter(server, transport, Signal.TRACES, compressed)
    provider.add_span_processor(SimpleSpanProcessor(sender))
    with provider.get_tracer("t").start_as_current_span("work") as span:
        span.set_attribute("order.id", "o-1")
    provider.shutdown()
    (batch,) = server.batches
    ((group, scope, found),) = items(batch)
    assert (found.name, scope.scope.name) == ("work", "t")
    assert int.from_bytes(found.trace_id) == span.get_span_context().trace_id
    assert [(a.key, a.value.string_value) for a in group.resource.attributes] == [
        ("service.name", "shop")
    ]
    assert (batch.request.transport, len(batch.request.key)) == (transport, 16)
    assert batch.wire == batch.message.SerializeToString()
    name = f'otelcol_receiver_accepted_spans{{receiver="otlp",transport="{transport}"}}'
    assert server.counted() == {name: 1}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_stock_exporter_of_logs(server, transport, compressed):
    """The SDK's log exporter is understood over both transports, plain and gzipped."""
    provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    sender = exporter(server, transport, Signal.LOGS, compressed)
    provider.add_log_record_processor(SimpleLogRecordProcessor(sender))
    provider.get_logger("l").emit(
        LogRecord(timestamp=5, severity_number=SeverityNumber.WARN, body="careful")
    )
    provider.shutdown()
    ((_, scope, record),) = items(server.batches[0])
    assert (record.body.string_value, record.severity_number, record.time_unix_nano) == (
        "careful",
        13,
        5,
    )
    assert scope.scope.name == "l"
    name = f'otelcol_receiver_accepted_log_records{{receiver="otlp",transport="{transport}"}}'
    assert server.counted() == {name: 1}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_stock_exporter_of_metrics(server, transport, compressed):
    """The SDK's metric exporter is understood over both transports, plain and gzipped."""
    sender = exporter(server, transport, Signal.METRICS, compressed)
    reader = PeriodicExportingMetricReader(sender, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
    orders = provider.get_meter("m").create_counter("orders")
    orders.add(2, {"shop": "a"})
    orders.add(3, {"shop": "b"})
    provider.shutdown()
    ((_, _, metric),) = items(server.batches[0])
    assert metric.name == "orders"
    assert sorted(point.as_int for point in metric.sum.data_points) == [2, 3]
    name = f'otelcol_receiver_accepted_metric_points{{receiver="otlp",transport="{transport}"}}'
    assert server.counted() == {name: 2}


def test_only_configured_transports_listen(start):
    """A protocol that is not named is off."""
    with start(http_config=Http(endpoint="127.0.0.1:0")) as running:
        assert list(running.receiver.endpoints) == ["http"]
    with start(grpc_config=Grpc(endpoint="127.0.0.1:0")) as running:
        assert list(running.receiver.endpoints) == ["grpc"]
        assert running.export(Signal.LOGS, log_request("a")) == b""
        assert running.values() == ["a"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_port_in_use_is_one_clear_line(start, protocol):
    """A port in use ends the start with the key, the address and the fix; nothing keeps listening."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"localhost:{other.getsockname()[1]}"
        settings = {
            "grpc_config": Grpc(endpoint=endpoint if protocol == "grpc" else "localhost:0"),
            "http_config": Http(endpoint=endpoint if protocol == "http" else "localhost:0"),
        }
        running = start(**settings)
        with pytest.raises(StartFailed) as caught:
            running.__enter__()
    assert str(caught.value) == (
        f'receivers::otlp::protocols::{protocol}::endpoint: cannot listen on "{endpoint}": '
        "the address is in use; stop the other process or choose another endpoint"
    )
    if protocol == "http":
        with pytest.raises(grpc.RpcError) as gone:
            running.export(Signal.LOGS, b"")
        assert gone.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_second_receiver_on_the_same_port_is_refused(server, start):
    """Port sharing is off: two collectors never split the traffic in silence."""
    with pytest.raises(StartFailed):
        start(grpc_config=Grpc(endpoint=server.grpc)).__enter__()


def listening(running, protocol):
    """Whether new requests are still let in."""
    try:
        if protocol == "grpc":
            running.export(Signal.LOGS, b"")
        else:
            socket.create_connection(running.http, timeout=30).close()
    except (grpc.RpcError, OSError):
        return False
    return True


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_stopping_answers_what_is_in_work(start, protocol):
    """Stop waits for a request that the pipeline has, and answers it; new ones are refused."""
    running = start(
        grpc_config=Grpc(endpoint="127.0.0.1:0"), http_config=Http(endpoint="127.0.0.1:0")
    )
    running.__enter__()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running.free.clear()
        if protocol == "grpc":
            answer = pool.submit(running.export, Signal.LOGS, log_request("a"))
        else:
            answer = pool.submit(running.post, "/v1/logs", log_request("a"))
        assert running.waiting.acquire(timeout=30)
        stopped = pool.submit(running.stop)
        while listening(running, protocol):  # bounded by the test's own timeout
            pass
        assert not stopped.done()
        assert not answer.done()  # nothing is acknowledged before the pipeline returns
        running.free.set()
        stopped.result(30)
        result = answer.result(30)
    assert (result if protocol == "grpc" else result[0]) == (b"" if protocol == "grpc" else 200)
    assert running.values() == ["a"]


def test_too_many_calls_at_once_are_told_to_come_again(server):
    """With 256 requests in work the next is UNAVAILABLE with RetryInfo, and HTTP says 503."""
    server.free.clear()
    with grpc.insecure_channel(server.grpc) as channel:
        method = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        calls = [method.future(log_request(str(n)), timeout=60) for n in range(256)]
        for _ in calls:
            assert server.waiting.acquire(timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            method(log_request("one too many"), timeout=60)
        status, headers, body = server.post("/v1/logs", log_request("one too many"))
        server.free.set()
        for call in calls:
            call.result(60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "256 requests are in work already"
    assert "google.rpc.retryinfo-bin" in dict(caught.value.trailing_metadata())
    assert (status, headers["retry-after"]) == (503, "1")
    assert b"256 requests are in work already" in body
    assert sorted(server.values(), key=int) == [str(n) for n in range(256)]


def test_bytes_in_flight_are_bounded(start):
    """B12: when the requests in work use up the byte budget, the next is 503, and taken later."""
    large = log_request("x" * (60 << 20))
    with start(http_config=Http(endpoint="127.0.0.1:0", max_request_body_size=64 << 20)) as running:
        running.free.clear()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first = pool.submit(running.post, "/v1/logs", large)
            assert running.waiting.acquire(timeout=60)
            status, headers, body = running.post("/v1/logs", log_request("y" * (8 << 20)))
            running.free.set()
            assert first.result(60)[0] == 200
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"256 MiB of requests are in work already" in body
        assert running.post("/v1/logs", log_request("z"))[0] == 200
        assert [value[0] for value in running.values()] == ["x", "z"]


def test_a_client_that_leaves_does_not_stop_the_write(server):
    """A call that its client cancels is still stored, and counted."""
    server.free.clear()
    with grpc.insecure_channel(server.grpc) as channel:
        method = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        call = method.future(log_request("kept"), timeout=60)
        assert server.waiting.acquire(timeout=30)
        call.cancel()
        assert call.cancelled()
    server.free.set()
    assert server.export(Signal.LOGS, log_request("next")) == b""
    while len(server.batches) < 2:  # bounded by the test's own timeout
        threading.Event().wait(0.01)
    assert sorted(server.values()) == ["kept", "next"]


def test_what_is_left_out_is_counted_by_reason(server):
    """Refused and repaired items have counters of their own."""
    message = new_message(Signal.TRACES)
    scope = message.resource_spans.add().scope_spans.add()
    scope.spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, name="go@d")
    scope.spans.add(name="no ids")
    body = message.SerializeToString().replace(b"@", b"\xff")
    assert server.post("/v1/traces", body)[0] == 200
    assert server.values() == ["go\ufffdd"]
    assert server.counted() == {
        'otelcol_receiver_accepted_spans{receiver="otlp",transport="http"}': 1,
        'otelcol_receiver_refused_spans{receiver="otlp",transport="http"}': 1,
        'otelier_receiver_rejected_items{reason="ids",receiver="otlp"}': 1,
        'otelier_receiver_repaired{kind="utf8",receiver="otlp"}': 1,
    }


def test_settings_without_a_protocol_are_wrong():
    """The OpenTelemetry Collector's text for a receiver that would listen nowhere."""
    assert Otlp.Config().check() == [
        "must specify at least one protocol when using the OTLP receiver"
    ]
    assert Otlp.Config(protocols=Protocols(grpc=Grpc())).check() == []


def test_settings_out_of_range_are_named():
    """Each wrong setting is one text."""
    assert Grpc().check() == []
    assert Http().check() == []
    assert Grpc(max_recv_msg_size_mib=-1, max_concurrent_streams=-1).check() == [
        "max_recv_msg_size_mib must be between 0 and 1024",
        "max_concurrent_streams must not be negative",
    ]
    wrong = Http(
        max_request_body_size=0,
        compression_algorithms=("gzip", "lz4"),
        read_timeout=Duration(0),
        logs_url_path="v1/traces",
    )
    assert wrong.check() == [
        "max_request_body_size must be greater than zero",
        (
            'compression_algorithms: "lz4" is not supported, use gzip, zstd, zlib, deflate, snappy or '
            "x-snappy-framed"
        ),
        "read_timeout must be greater than zero",
        "traces_url_path, metrics_url_path and logs_url_path must differ",
    ]


def test_b16_the_receiver_does_not_start_on_the_pure_python_parser():
    """B16: with protobuf's pure-Python backend nothing listens, and the text names the fix."""
    program = """
import asyncio, logging
from collector.errors import ConfigError
from collector.model import Host
from collector.receivers.otlp.receiver import Http, Otlp, Protocols
from collector.stats import Stats

async def main():
    config = Otlp.Config(protocols=Protocols(http=Http(endpoint="127.0.0.1:0")))
    receiver = Otlp(config, Host("otlp", Stats(), logging.getLogger("x")), {})
    try:
        await receiver.__aenter__()
    except ConfigError as error:
        print(receiver.endpoints, error)

asyncio.run(main())
"""
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "{} protobuf runs on its pure-Python backend, which is slow and unsafe for input from "
        "outside; unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or install a protobuf wheel for "
        "this platform\n"
    )
