"""
An OTLP receiver and a runner of scripts: the library is tested from outside, over sockets.

Nothing of ours is imported by the receiver: it decodes with OpenTelemetry's protobuf classes.
"""

import collections
import gzip
import http.server
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.testing import captured

__all__ = ["captured"]

REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


def plain(value):
    """An OTLP AnyValue as Python."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(inner) for inner in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def attributes(pairs):
    return {pair.key: plain(pair.value) for pair in pairs}


class Receiver:
    """What arrived, decoded; `answers` are given in turn, then 200."""

    def __init__(self, url):
        self.url = url
        self.answers = collections.deque()
        self.requests = []
        self.headers = []
        self.arrived = threading.Condition()

    def take(self, path, headers, body):
        """Note a request and say how to answer it."""
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        with self.arrived:
            status, extra, content = self.answers.popleft() if self.answers else (200, {}, b"")
            if status == 200:
                self.requests.append((path, REQUESTS[path].FromString(body)))
            self.headers.append(dict(headers))
            self.arrived.notify_all()
        return status, extra, content

    def wait(self, ready):
        """Wait until `ready(self)`; the test's own timeout is the limit."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: ready(self), 60)

    def _of(self, path):
        return [message for seen, message in self.requests if seen == path]

    @property
    def resources(self):
        return [
            attributes(group.resource.attributes)
            for _, message in self.requests
            for group in getattr(message, message.DESCRIPTOR.fields[0].name)
        ]

    @property
    def spans(self):
        return [
            {
                "name": span.name,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent_id": span.parent_span_id.hex(),
                "kind": span.kind,
                "scope": scope.scope.name,
                "attributes": attributes(span.attributes),
            }
            for message in self._of("/v1/traces")
            for group in message.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    @property
    def logs(self):
        return [
            {
                "logger": scope.scope.name,
                "message": plain(record.body),
                "severity": record.severity_number,
                "trace_id": record.trace_id.hex(),
                "span_id": record.span_id.hex(),
                "event": record.event_name,
                "attributes": attributes(record.attributes),
            }
            for message in self._of("/v1/logs")
            for group in message.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]

    @property
    def messages(self):
        return [record["message"] for record in self.logs]

    @property
    def points(self):
        return [
            (metric.name, attributes(point.attributes), point.count or point.as_int)
            if metric.WhichOneof("data") == "histogram"
            else (metric.name, attributes(point.attributes), point.as_int or point.as_double)
            for message in self._of("/v1/metrics")
            for group in message.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]


@pytest.fixture
def receiver():
    """A real OTLP/HTTP server on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, extra, content = taken.take(self.path, self.headers, body)
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # a client that leaves in the middle is part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    taken = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield taken
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def black_hole():
    """The URL of a socket that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refused():
    """The URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Where the scripts' processes keep compiled modules: each starts twice as fast."""
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def run(tmp_path, compiled):
    """Run a script in a process of its own, under the wrapper if asked to."""

    def run_script(code, *, endpoint=None, wrapped=False, flags=(), check=True, **env):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(code))
        command = [sys.executable, str(script)]
        if wrapped:
            command = [
                str(Path(sys.executable).parent / "opentelemetry-instrument"),
                *flags,
                *command,
            ]
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "LOG_", "TELEMETRY_", "PYTHONDONTWRITE"))
        }
        if endpoint is not None:
            clean["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        done = subprocess.run(
            command,
            env={**clean, "PYTHONWARNINGS": "error", "PYTHONPYCACHEPREFIX": compiled, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run_script
