"""OTLP over HTTP against real sockets: outcomes, deadlines, headers, TLS errors."""

import socket
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from telemetry._config import exporters
from telemetry._config import settings as _settings
from telemetry._export import otlp_http
from telemetry._export.queue import Outcome, Result
from telemetry.errors import ConfigError

FAR = 60.0


def span(name="a"):
    return ReadableSpan(
        name,
        context=SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)),
        resource=Resource({}),
        start_time=1,
        end_time=2,
    )


def soon(seconds=FAR):
    return time.monotonic() + seconds


def client(url, **options):
    return otlp_http.OtlpHttp("traces", f"{url}/v1/traces", **options)


def test_a_batch_is_delivered_over_one_connection(receiver):
    """Several requests, one connection, spans as they were."""
    export = client(receiver.url, headers={"authorization": "Bearer x"}, compression="gzip")
    for name in ("a", "b"):
        assert export([span(name)], soon()) == Outcome(Result.DELIVERED)
    export.close()
    assert [span["name"] for span in receiver.spans] == ["a", "b"]
    assert {
        (headers["authorization"], headers["Content-Type"], headers["Content-Encoding"])
        for headers in receiver.headers
    } == {("Bearer x", "application/x-protobuf", "gzip")}


def test_localhost_is_this_machine_without_a_resolver(receiver, monkeypatch):
    """Where nothing resolves names, `localhost` is 127.0.0.1 and another name stays unknown (RFC 6761)."""
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host in ("localhost", "elsewhere"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    export = client(receiver.url.replace("127.0.0.1", "localhost"))
    assert export([span("a")], soon()) == Outcome(Result.DELIVERED)
    export.close()
    unknown = client(receiver.url.replace("127.0.0.1", "elsewhere"))([span("b")], soon())
    assert unknown.result is Result.UNREACHABLE
    assert [span["name"] for span in receiver.spans] == ["a"]


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (400, {}, Outcome(Result.REFUSED, "HTTP 400 Bad Request")),
        (404, {}, Outcome(Result.REFUSED, "HTTP 404 Not Found")),
        (302, {"Location": "/x"}, Outcome(Result.REFUSED, "HTTP 302 Found")),
        (500, {}, Outcome(Result.REFUSED, "HTTP 500 Internal Server Error")),
        (413, {}, Outcome(Result.TOO_LARGE, "HTTP 413 Request Entity Too Large")),
        (429, {"Retry-After": "7"}, Outcome(Result.RETRY, "HTTP 429 Too Many Requests", 7.0)),
        (502, {}, Outcome(Result.RETRY, "HTTP 502 Bad Gateway")),
        (503, {"Retry-After": "soon"}, Outcome(Result.RETRY, "HTTP 503 Service Unavailable")),
        (504, {"Connection": "close"}, Outcome(Result.RETRY, "HTTP 504 Gateway Timeout")),
    ],
)
def test_each_status_has_one_outcome(receiver, status, headers, expected):
    """The statuses that OTLP calls retryable are; the others are not; the next call works."""
    receiver.answers.append((status, headers, b"why"))
    export = client(receiver.url)
    assert export([span()], soon()) == expected
    assert export([span()], soon()) == Outcome(Result.DELIVERED)
    export.close()


def test_retry_after_as_a_date(receiver):
    """The date form of Retry-After becomes seconds, never negative."""
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    receiver.answers.append((503, {"Retry-After": past}, b""))
    export = client(receiver.url)
    assert export([span()], soon()).delay_s == 0.0
    export.close()


def test_partial_success_is_read(receiver):
    """What the collector did not take is counted, although the answer is 200."""
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    content = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    receiver.answers.extend([(200, {}, content), (200, {}, b"\xff not protobuf")])
    export = client(receiver.url)
    assert export([span()], soon()) == Outcome(Result.DELIVERED, "too old", None, 3)
    assert export([span()], soon()) == Outcome(Result.DELIVERED)
    export.close()


def test_nobody_listens(refused):
    """A refused connection is an outcome, not an exception."""
    outcome = client(refused)([span()], soon())
    assert outcome.result is Result.UNREACHABLE
    assert outcome.reason.startswith("ConnectionRefusedError")


def test_a_server_that_never_answers_is_left_at_the_deadline(black_hole):
    """The deadline ends the wait for an answer (G06)."""
    export = client(black_hole)
    outcome = export([span()], soon(0.05))
    assert outcome.result is Result.UNREACHABLE
    assert outcome.reason.startswith("TimeoutError")
    assert export([span()], soon(-1)).reason == "TimeoutError: no time left"


def test_a_dripping_server_is_left_at_the_deadline():
    """A byte now and then does not extend the deadline: it is for the whole answer (G11)."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.01):
                    try:
                        connection.sendall(b"X-Drip: 1\r\n"[:1])
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        outcome = client(url)([span()], soon(0.2))
        stop.set()
        thread.join()
    assert outcome.result is Result.UNREACHABLE


def test_a_connection_that_the_server_closed_is_opened_again():
    """A kept connection that turns out to be dead costs one more connect, not the batch."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)  # and close, without having said so

        thread = threading.Thread(target=serve)
        thread.start()
        export = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert export([span()], soon()) == Outcome(Result.DELIVERED)
        assert export([span()], soon()) == Outcome(Result.DELIVERED)
        export.close()
        thread.join()


def test_something_that_does_not_speak_http():
    """Garbage for an answer is an outcome."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 smtp ready\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        outcome = client(f"http://127.0.0.1:{listener.getsockname()[1]}")([span()], soon())
        thread.join()
    assert outcome.result is Result.UNREACHABLE


def test_a_record_that_cannot_be_encoded(receiver):
    """A span that was made without a context has no ids: the queue is told to look for it."""
    export = client(receiver.url)
    outcome = export([span(), ReadableSpan("without ids")], soon())
    assert outcome.result is Result.UNREADABLE
    export.close()


def test_what_is_no_utf8_is_sent_with_a_mark(receiver):
    """A lone surrogate in a name costs one character, and not the batch (B26)."""
    export = client(receiver.url)
    assert export([span("a\ud800b")], soon()).result is Result.DELIVERED
    assert [sent["name"] for sent in receiver.spans] == ["a\ufffdb"]
    export.close()


def settings(**environ):
    return _settings.read({}, environ)[0]


def test_endpoints_follow_the_specification():
    """A base URL gets the path of the signal; a URL of one signal is taken as it is."""
    chosen = settings(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://all:4318/prefix/",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://logs/in",
    )
    assert [exporters.endpoint(signal, chosen) for signal in _settings.SIGNALS] == [
        "http://all:4318/prefix/v1/traces",
        "http://all:4318/prefix/v1/metrics",
        "http://logs/in",
    ]


def test_proxies_are_honoured(monkeypatch, receiver):
    """HTTP_PROXY leads the request through the proxy, NO_PROXY does not."""
    monkeypatch.setenv("http_proxy", receiver.url)
    export = otlp_http.OtlpHttp("traces", "http://collector.invalid:4318/v1/traces")
    assert export._proxy == ("127.0.0.1", int(receiver.url.rpartition(":")[2]))
    monkeypatch.setenv("no_proxy", "collector.invalid")
    assert otlp_http.OtlpHttp("traces", "http://collector.invalid:4318/v1/traces")._proxy is None


def test_an_unknown_exporter_is_a_configuration_error():
    """The error names variable, value and what would work."""
    with pytest.raises(ConfigError) as caught:
        exporters.choose("logs", settings(OTEL_LOGS_EXPORTER="jaeger"))
    assert caught.value.problems == [
        "OTEL_LOGS_EXPORTER='jaeger': no such exporter is installed; use otlp, console or none"
    ]


def test_a_certificate_that_cannot_be_read_is_a_configuration_error(tmp_path):
    """The file is looked at when the program starts, not when the first batch fails."""
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ConfigError) as caught:
        exporters.choose("logs", settings(OTEL_EXPORTER_OTLP_CERTIFICATE=missing))
    assert caught.value.problems == [
        f"certificate={missing!r} cannot be read: No such file or directory; name a PEM file"
    ]


class Scripted:
    """An Export that answers as told."""

    def __init__(self, target, *results):
        self.target = target
        self.results = list(results)
        self.calls = 0

    def __call__(self, batch, deadline):
        self.calls += 1
        return Outcome(self.results.pop(0))

    def close(self):
        self.calls = -1


def test_several_exporters_each_get_a_batch_once():
    """What one of them wants again goes to that one only."""
    one = Scripted("one", Result.DELIVERED, Result.DELIVERED)
    two = Scripted("two", Result.RETRY, Result.DELIVERED, Result.DELIVERED)
    both = exporters.Several([one, two])
    batch = [span()]
    assert both(batch, soon()).result is Result.RETRY
    assert both(list(batch), soon()).result is Result.DELIVERED
    assert (one.calls, two.calls, both.target) == (1, 2, "one, two")
    assert both([span()], soon()).result is Result.DELIVERED
    both.close()
    assert (one.calls, two.calls) == (-1, -1)
