"""A real OTLP receiver on free ports, with a consumer behind it that remembers what it is given."""

import asyncio
import contextlib
import http.client
import logging
import socket
import threading

import grpc
import pytest

from collector.model import Host, Signal
from collector.receivers.otlp.receiver import Grpc, Http, Limits, Otlp, Protocols
from collector.stats import Stats

SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}


class Running:
    """
    A receiver on an event loop in a thread of its own, so that clients may block.

    `batches` is what the pipeline was given; `failure` is what it raises; while `held` is set it
    waits for `release`.
    """

    def __init__(self, *, grpc_config, http_config, signals, limits=None, extensions=None):
        self.batches = []
        self.failure = None
        self.stats = Stats()
        self.baseline = {}
        self.waiting = threading.Semaphore(0)
        self.free = threading.Event()
        self.free.set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.receiver = Otlp(
            Otlp.Config(
                protocols=Protocols(grpc=grpc_config, http=http_config), limits=limits or Limits()
            ),
            Host(
                id="otlp",
                stats=self.stats,
                log=logging.getLogger("test.otlp"),
                extensions=extensions or {},
            ),
            dict.fromkeys(signals, self.consume),
        )

    def call(self, awaitable):
        """The result of a coroutine on the receiver's loop."""
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(60)

    async def consume(self, batch):
        if not self.free.is_set():
            self.waiting.release()
            await asyncio.to_thread(self.free.wait)
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)

    def __enter__(self):
        try:
            self.call(self.receiver.__aenter__())
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exc):
        self.free.set()
        self.stop()

    def stop(self):
        try:
            self.call(self.receiver.__aexit__())
        finally:
            self.end()

    def end(self):
        """Stop the loop; every task on it must be done."""

        async def left():
            return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

        remaining = self.call(left())
        self.call(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        assert remaining == []

    def forget(self):
        self.batches.clear()
        self.failure = None
        self.free.set()
        self.baseline = self.stats.snapshot()

    def counted(self):
        """What was counted since `forget`."""
        now = self.stats.snapshot()
        new = {name: value - self.baseline.get(name, 0) for name, value in now.items()}
        return {name: value for name, value in new.items() if value}

    @property
    def http(self):
        host, _, port = self.receiver.endpoints["http"].rpartition(":")
        return host, int(port)

    @property
    def grpc(self):
        return self.receiver.endpoints["grpc"]

    def connect(self, tls=None):
        """An HTTP client on a connection of its own."""
        if tls is not None:
            return http.client.HTTPSConnection(*self.http, timeout=30, context=tls)
        return http.client.HTTPConnection(*self.http, timeout=30)

    def post(
        self, path, body=b"", kind="application/x-protobuf", *, method="POST", tls=None, **headers
    ):
        """One request on a connection of its own: status, headers, body."""
        with contextlib.closing(self.connect(tls)) as client:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            if kind is not None:
                names["Content-Type"] = kind
            client.request(method, path, body, names)
            answer = client.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def raw(self, data):
        """Everything that the server says until it closes."""
        with socket.create_connection(self.http, timeout=30) as client:
            client.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := client.recv(65536):
                    received += piece
            return received

    def channel(self, tls=None):
        """A gRPC channel; `tls` are credentials."""
        options = [("grpc.max_send_message_length", -1)]
        if tls is not None:
            return grpc.secure_channel(self.grpc, tls, options=options)
        return grpc.insecure_channel(self.grpc, options=options)

    def export(self, signal, body, *, tls=None, **options):
        """One gRPC call: the bytes of the response; raises grpc.RpcError."""
        with self.channel(tls) as channel:
            method = channel.unary_unary(f"/{SERVICES[signal]}/Export")
            return method(body, timeout=30, **options)

    def values(self):
        """Every log body, span name and metric name that arrived, in order."""
        found = []
        for batch in self.batches:
            from collector.otlp import items

            for _, _, item in items(batch):
                found.append(item.body.string_value if batch.signal is Signal.LOGS else item.name)
        return found


@pytest.fixture(scope="session")
def start():
    """What makes a receiver with settings of its own, for a `with` block."""

    def run(*, grpc_config=None, http_config=None, signals=tuple(Signal), **more):
        return Running(grpc_config=grpc_config, http_config=http_config, signals=signals, **more)

    return run


@pytest.fixture(scope="session")
def shared(start):
    with start(
        grpc_config=Grpc(endpoint="localhost:0"), http_config=Http(endpoint="localhost:0")
    ) as running:
        yield running


@pytest.fixture
def server(shared):
    """One receiver with both transports and default settings, without memories."""
    shared.forget()
    yield shared
    shared.forget()
