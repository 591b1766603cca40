"""
R9: the bad-input catalogue against one real collector, over real sockets.

For each case: the answer is the expected one, the good records of the same request are stored (or
none of it is), a clean request behind it is stored, the process lives, and its memory has not grown.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import socket
from collections import Counter
from pathlib import Path

import grpc
import pytest
from google.rpc.status_pb2 import Status

from collector.model import Signal
from collector.otlp import new_message
from tests.collector.receivers.otlp.bad_inputs import JSON, MIB, PATHS, PROTOBUF, plain
from tests.collector.receivers.otlp.catalogue import CASES
from tests.programs import Collector

pytestmark = pytest.mark.e2e

TOKEN = "catalogue-token-0123456789abcdef"
GROWTH = 64 * MIB
KEPT = 256 * MIB
"""What all cases together may leave behind: the allocator keeps some, a leak would not end."""
GROWTH_OF = {"B13": 128 * MIB}
SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
CONFIG = f"""
extensions:
  bearertokenauth: {{token: {TOKEN}}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0}}
      http: {{endpoint: 127.0.0.1:0}}
  otlp/guarded:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0, auth: {{authenticator: bearertokenauth}}}}
      http: {{endpoint: 127.0.0.1:0, auth: {{authenticator: bearertokenauth}}}}
exporters:
  file: {{path: stored.jsonl}}
service:
  extensions: [bearertokenauth]
  pipelines:
    traces: {{receivers: [otlp, otlp/guarded], exporters: [file]}}
    metrics: {{receivers: [otlp, otlp/guarded], exporters: [file]}}
    logs: {{receivers: [otlp, otlp/guarded], exporters: [file]}}
"""


class World:
    """A collector with two receivers, what it has stored, and clients for both transports."""

    def __init__(self, collector, folder, stack):
        self.collector = collector
        collector.wait_for("Everything is ready")
        self.addresses = {
            (guarded, transport): collector.address(
                "receivers::otlp" + "/guarded" * guarded, transport
            )
            for guarded in (False, True)
            for transport in ("grpc", "http")
        }
        self.channels = {
            guarded: stack.enter_context(
                grpc.insecure_channel(
                    self.addresses[guarded, "grpc"],
                    options=[
                        ("grpc.max_send_message_length", -1),
                        ("grpc.max_metadata_size", 1 << 20),
                    ],
                )
            )
            for guarded in (False, True)
        }
        self.file = folder / "stored.jsonl"
        self.place = 0
        self.marks = Counter()
        for number in range(20):
            self.send_clean(f"warm~{number}")
        self.baseline = self.memory("VmRSS")

    def memory(self, name):
        """Bytes of resident memory: now (VmRSS), or the most since `forget_peak` (VmHWM)."""
        lines = Path(f"/proc/{self.collector.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    def forget_peak(self):
        Path(f"/proc/{self.collector.process.pid}/clear_refs").write_text("5")

    def stored(self, mark):
        """How often a mark is in what was stored until now."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self.place)
                text = file.read()
            self.place += text.rfind(b"\n") + 1
            text = text[: text.rfind(b"\n") + 1]
            self.marks.update(re.findall(r"\b[\w.:+;=-]+~\w+", text.decode()))
        return self.marks[mark]

    def send_clean(self, mark):
        status, _ = self.over_http(plain()(mark), "/v1/logs")
        assert status == 200
        assert self.stored(mark) == 2

    # --- sending ---

    def send(self, case, mark):
        """The answers, and what the first of them says: (rejected, message)."""
        body = case.body(mark)
        call = {"http": self.http_case, "grpc": self.grpc_case, "raw": self.raw_case}[case.how]
        if case.times == 1:
            answer, told = call(case, body)
            return {answer}, told
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda _: call(case, body), range(case.times)))
        return {answer for answer, _ in results}, results[0][1]

    def http_case(self, case, body):
        headers = {name: value.format(token=TOKEN) for name, value in case.headers.items()}
        chunked = headers.pop("Transfer-Encoding", "") == "chunked"
        if case.kind is not None:
            headers["Content-Type"] = case.kind
        path = case.path or PATHS[case.signal]
        status, answer = self.over_http(
            body, path, case.method, case.guarded, headers, chunked=chunked
        )
        if case.method == "HEAD" or status == 204:
            return status, (0, "")
        if status != 200:
            known = case.kind == PROTOBUF or (case.kind or "").lower().startswith(PROTOBUF)
            found = Status.FromString(answer) if known else json.loads(answer)
            return status, (0, found.message if known else found["message"])
        if case.kind == JSON:
            partial = json.loads(answer).get("partialSuccess", {})
            counts = [int(value) for name, value in partial.items() if name.startswith("rejected")]
            return status, (sum(counts), partial.get("errorMessage", ""))
        return status, response(case.signal, answer)

    def over_http(self, body, path, method="POST", guarded=False, headers=None, *, chunked=False):
        host, _, port = self.addresses[guarded, "http"].rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as client:
            pieces = iter([body[at : at + MIB] for at in range(0, len(body), MIB)])
            client.request(
                method,
                path,
                pieces if chunked else body,
                {"Content-Type": PROTOBUF} if headers is None else headers,
                encode_chunked=chunked,
            )
            answer = client.getresponse()
            return answer.status, answer.read()

    def grpc_case(self, case, body):
        metadata = tuple(
            (name.lower(), value.format(token=TOKEN))
            for name, value in case.headers.items()
            if name not in ("compression", "cancel")
        )
        path = case.path or f"/{SERVICES[case.signal]}/Export"
        method = self.channels[case.guarded].unary_unary(path)
        compression = grpc.Compression.Gzip if "compression" in case.headers else None
        call = method.future(body, timeout=60, metadata=metadata, compression=compression)
        if "cancel" in case.headers:
            call.cancel()
        try:
            return "OK", response(case.signal, call.result())
        except grpc.RpcError as error:
            return error.code().name, (0, error.details())
        except grpc.FutureCancelledError:
            return "CANCELLED", (0, "")

    def raw_case(self, case, body):
        host, _, port = self.addresses[case.guarded, "http"].rpartition(":")
        received = b""
        with socket.create_connection((host, int(port)), timeout=60) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(body)
            if b"" in case.answer:  # a client that has nothing more to say
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while piece := client.recv(65536):
                    received += piece
        assert received.count(b"HTTP/1.1 ") <= 1
        return (int(received[9:12]) if received else b""), (0, "")


def response(signal, data):
    """(rejected, message) of a protobuf response."""
    kind = type(new_message(signal)).__name__.replace("Request", "Response")
    module = {Signal.TRACES: "trace", Signal.METRICS: "metrics", Signal.LOGS: "logs"}[signal]
    package = f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2"
    parsed = getattr(__import__(package, fromlist=[kind]), kind).FromString(data)
    partial = parsed.partial_success
    counts = [value for one, value in partial.ListFields() if one.name.startswith("rejected")]
    return sum(counts), partial.error_message


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    environ = {"MALLOC_ARENA_MAX": "2"} if "MALLOC_ARENA_MAX" not in os.environ else {}
    with (
        Collector(folder, sets=(), config=config, **environ) as collector,
        contextlib.ExitStack() as stack,
    ):
        yield World(collector, folder, stack)
        assert collector.stop() == 0


def test_the_catalogue_is_large():
    """R9: at least two hundred cases, of every row that a receiver can meet in one request."""
    assert len(CASES) >= 200
    rows = {name.partition("-")[0] for name in CASES}
    assert len(rows) >= 38


@pytest.mark.parametrize("name", CASES)
def test_case(world, name):
    """R9: the expected answer, the neighbours stored, a clean request served, memory bounded."""
    case = CASES[name]
    mark = f"{name}~mark"
    world.forget_peak()
    before = world.memory("VmRSS")
    answers, (rejected, message) = world.send(case, mark)
    assert answers <= set(case.answer), (answers, message)
    if 200 in answers or "OK" in answers:
        assert rejected == case.rejected
    assert case.text in message
    if case.stored >= 0:
        assert world.stored(mark) == case.stored
    elif answers <= {200, 400}:
        assert world.stored(mark) == (2 if answers == {200} else 0)
    peak = world.memory("VmHWM")
    grown = peak - before
    assert grown <= GROWTH_OF.get(name.partition("-")[0], GROWTH), f"{grown >> 20} MiB more memory"
    assert peak - world.baseline <= KEPT, "memory is not given back from case to case"
    world.send_clean(f"{name}~clean")
    assert world.collector.process.poll() is None
