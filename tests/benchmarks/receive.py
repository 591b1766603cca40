"""
OTLP over gRPC in: what a collector acknowledges a second and core, on disk or passed on.

First case: received, decoded, written to the durable log and forced to disk, then answered; what
exports is told to a port where nobody listens, so that nothing else is counted. Second case: the same
and passed on over OTLP to a local receiver, beside `rotel` (a Rust agent, from PyPI), which answers
before anything is on disk and keeps what it has in memory. Requests are prepared; rates are per second
of processor time of the collector's process, all threads, and the sides take turns.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc

from collector.model import Signal
from collector.otlp import new_message
from tests.benchmarks.documents import request as spans_request
from tests.benchmarks.insert import processor_s
from tests.benchmarks.measure import result
from tests.programs import READY, Collector

LOGS, LOG_BYTES = 1000, 300
SPANS = 512
IN_FLIGHT = 4
ROUNDS = 4
SERVICES = {Signal.TRACES: "trace.v1.Trace", Signal.LOGS: "logs.v1.Logs"}
NAMES = {Signal.TRACES: "span", Signal.LOGS: "log"}
SIZES = {Signal.TRACES: SPANS, Signal.LOGS: LOGS}
AT_LEAST = {Signal.TRACES: 60_000, Signal.LOGS: 150_000}
ROTEL = Path(sys.prefix) / "peers" / "rotel" / "rotel-agent"
CONFIG = """
extensions:
  file_storage: {{directory: ./queue, create_directory: true}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}}}}}
exporters:
  otlp: {{endpoint: "{sink}", tls: {{insecure: true}}, compression: none,
         sending_queue: {{storage: file_storage}}, retry_on_failure: {{initial_interval: 30s}}}}
service:
  extensions: [file_storage]
  telemetry: {{logs: {{level: INFO}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp]}}
    logs: {{receivers: [otlp], exporters: [otlp]}}
"""


def method(signal: Signal) -> str:
    """The gRPC method of a signal."""
    return f"/opentelemetry.proto.collector.{SERVICES[signal]}Service/Export"


def body(signal: Signal, number: int) -> bytes:
    """A request of its own: 512 spans of ten attributes, or a thousand log records of 300 bytes."""
    if signal is Signal.TRACES:
        message = new_message(signal)
        message.ParseFromString(spans_request(SPANS))
        message.resource_spans[0].scope_spans[0].spans[0].name = f"request {number}"
        return bytes(message.SerializeToString())
    message = new_message(signal)
    group = message.resource_logs.add()
    group.resource.attributes.add(key="service.name").value.string_value = f"shop-{number}"
    records = group.scope_logs.add().log_records
    for index in range(LOGS):
        record = records.add(time_unix_nano=1_700_000_000_000_000_000 + index, severity_number=9)
        record.body.string_value = f"order {index} loaded"
        record.attributes.add(key="order.id").value.string_value = f"o-{number}-{index}"
        missing = LOG_BYTES - record.ByteSize() - 12
        record.attributes.add(key="text").value.string_value = "x" * missing
    return bytes(message.SerializeToString())


class Sink:
    """An OTLP/gRPC receiver that takes everything and looks at nothing."""

    def __init__(self) -> None:
        pool = futures.ThreadPoolExecutor(4)
        self._server = grpc.server(pool, options=[("grpc.max_receive_message_length", 64 << 20)])
        handlers = {
            signal: grpc.unary_unary_rpc_method_handler(lambda _body, _context: b"")
            for signal in SERVICES
        }
        for signal, handler in handlers.items():
            service = f"opentelemetry.proto.collector.{SERVICES[signal]}Service"
            generic = grpc.method_handlers_generic_handler(service, {"Export": handler})
            self._server.add_generic_rpc_handlers((generic,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def send(address: str, signal: Signal, requests: Sequence[bytes]) -> None:
    """Give all requests, a few at a time; each is acknowledged."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(method(signal))

        def one(request: bytes) -> None:
            for _ in range(100):
                try:
                    call(request, timeout=60, wait_for_ready=True)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    time.sleep(0.05)
                else:
                    return
            raise RuntimeError("never acknowledged")

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(one, requests))


def settled(pid: int) -> float:
    """Processor time of a process once it does nothing more: what was taken has been passed on."""
    before = processor_s(pid)
    while True:
        time.sleep(0.5)
        now = processor_s(pid)
        if now - before < 0.02:
            return now
        before = now


def measure(pid: int, address: str, count: int) -> dict[Signal, tuple[float, float]]:
    """Items a second on the clock, and of processor time; the best of some rounds."""
    best: dict[Signal, tuple[float, float]] = dict.fromkeys(SERVICES, (0.0, 0.0))
    number = 0
    for _ in range(ROUNDS):
        for signal in SERVICES:
            requests = [body(signal, number + index) for index in range(count)]
            number += count
            items = count * SIZES[signal]
            spent, start = settled(pid), time.perf_counter()
            send(address, signal, requests)
            took = time.perf_counter() - start
            used = settled(pid) - spent
            clock, core = best[signal]
            best[signal] = max(clock, items / took), max(core, items / used)
    return best


def ours(folder: Path, sink: str, count: int) -> tuple[dict[Signal, tuple[float, float]], float]:
    """Our collector: rates, and the memory that it had at most, in MB."""
    config = folder / "collector.yaml"
    config.write_text(CONFIG.format(sink=sink))
    with Collector(folder, sets=(), config=config) as program:
        program.wait_for(READY)
        rates = measure(program.process.pid, program.address("receivers::otlp", "grpc"), count)
        status = Path(f"/proc/{program.process.pid}/status").read_text()
        program.stop()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return rates, int(peak[1]) / 1024 if peak else 0.0


def rotel(folder: Path, sink: str, count: int) -> dict[Signal, tuple[float, float]]:
    """The peer: OTLP in, OTLP out, in memory."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        grpc_port, http_port = one.getsockname()[1], two.getsockname()[1]
    options = {
        "otlp-grpc-endpoint": f"127.0.0.1:{grpc_port}",
        "otlp-http-endpoint": f"127.0.0.1:{http_port}",
        "exporter": "otlp",
        "otlp-exporter-endpoint": f"http://{sink}",
        "otlp-exporter-compression": "none",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with subprocess.Popen(
        [str(ROTEL), "start", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as agent:
        try:
            return measure(agent.pid, f"127.0.0.1:{grpc_port}", count)
        finally:
            agent.terminate()


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rates of both cases, and of the peer."""
    count = 20 if options.short else 120
    with tempfile.TemporaryDirectory() as name, Sink() as sink:
        folders = [Path(name) / each for each in ("kept", "passed", "peer")]
        for folder in folders:
            folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            refused = f"127.0.0.1:{nobody.getsockname()[1]}"
        kept, _ = ours(folders[0], refused, count)
        target = f"127.0.0.1:{sink.port}"
        passed, peak = ours(folders[1], target, count)
        peer = rotel(folders[2], target, count) if ROTEL.exists() else {}
    for signal, (clock, core) in kept.items():
        item = NAMES[signal]
        yield result(
            f"gRPC in, {item}s acknowledged after fsync, per core",
            core,
            f"{item}s/s",
            at_least=AT_LEAST[signal],
        )
        yield result(
            f"gRPC in, {item}s acknowledged after fsync, on the clock", clock, f"{item}s/s"
        )
    for signal, (_, core) in passed.items():
        item = NAMES[signal]
        given: dict[str, Any] = {}
        if signal in peer:
            given = {"peer": "rotel, in memory", "peer_value": peer[signal][1]}
        yield result(
            f"gRPC in, fsync, gRPC out: {item}s per core",
            core,
            f"{item}s/s",
            more_is_better=True,
            **given,
        )
    yield result("memory of the collector that passes on, at most", peak, "MB", at_most=150)
