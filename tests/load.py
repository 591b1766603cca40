"""
Clients that send like SDKs do, and know what they were told: the oracle of the durability tests.

Each client keeps a request until it has an answer: success, or a refusal for good. Anything else
(503, 429, a connection that breaks, no answer) means to send the same bytes again. The payload of a
record is its id, so what is found in a store can be compared with what was acknowledged.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import socket
import sqlite3
import threading
import time
from collections import Counter

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SIGNALS = ("traces", "metrics", "logs")
PATHS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # with RetryInfo, which is looked at
}
LATE_S = 1.0
"""A load with a rate that is behind by more does not make up for it."""
QUICKLY = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]


def request(signal, names, padding=""):
    """The bytes of a request with one record for each name."""
    if signal == "traces":
        message = ExportTraceServiceRequest()
        spans = message.resource_spans.add().scope_spans.add().spans
        for each in names:
            span = spans.add(name=each, start_time_unix_nano=1, end_time_unix_nano=2)
            span.trace_id = hashlib.blake2b(each.encode(), digest_size=16).digest()
            span.span_id = span.trace_id[:8]
            if padding:
                span.attributes.add(key="padding").value.string_value = padding
    elif signal == "metrics":
        message = ExportMetricsServiceRequest()
        metrics = message.resource_metrics.add().scope_metrics.add().metrics
        for each in names:
            metric = metrics.add(name=each, description=padding)
            metric.gauge.data_points.add(time_unix_nano=1, as_int=1)
    else:
        message = ExportLogsServiceRequest()
        records = message.resource_logs.add().scope_logs.add().log_records
        for each in names:
            record = records.add(time_unix_nano=1, severity_number=9)
            record.body.string_value = each
            if padding:
                record.attributes.add(key="padding").value.string_value = padding
    return message.SerializeToString()


class Places:
    """
    Ports that a process which is started and started again can count on.

    Each is bound here, without listening, for as long as the block runs: nobody is given it by
    chance, and who asks for it by number may listen there.
    """

    def __init__(self, *names):
        self._sockets = {name: socket.socket() for name in names}
        for each in self._sockets.values():
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))

    def __getitem__(self, name):
        return self._sockets[name].getsockname()[1]

    def addresses(self, *names):
        """Name -> host:port."""
        return {name: f"127.0.0.1:{self[name]}" for name in names or self._sockets}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for each in self._sockets.values():
            each.close()


class Http:
    """One connection over HTTP."""

    def __init__(self, address, timeout_s):
        host, _, port = address.rpartition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)

    def post(self, signal, body):
        """True when it was taken, False for "later", None for no answer, else why not."""
        headers = {"Content-Type": "application/x-protobuf"}
        try:
            self.connection.request("POST", f"/v1/{signal}", body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return None
        if answer.status == 200:
            return True if not text else f"partial success: {text!r}"
        if answer.status in (429, 502, 503, 504) and answer.getheader("Retry-After"):
            return False
        return f"HTTP {answer.status}: {text!r}"

    def close(self):
        self.connection.close()


class Grpc:
    """One channel over gRPC."""

    def __init__(self, address, timeout_s):
        self.channel = grpc.insecure_channel(address, QUICKLY)
        self.timeout_s = timeout_s
        self.calls = {signal: self.channel.unary_unary(path) for signal, path in PATHS.items()}

    def post(self, signal, body):
        """True when it was taken, False for "later", None for no answer, else why not."""
        try:
            text = self.calls[signal](body, timeout=self.timeout_s)
        except grpc.RpcError as error:
            code = error.code()
            details = dict(error.trailing_metadata() or ())
            told = "grpc-status-details-bin" in details
            if code in AGAIN and (code is not grpc.StatusCode.RESOURCE_EXHAUSTED or told):
                return False if told else None
            return f"gRPC {code}: {error.details()}"
        return True if not text else f"partial success: {text!r}"

    def close(self):
        self.channel.close()


class Load:
    """
    Clients in threads; in a `with` block they send.

    Args:
        addresses: "http" and "grpc" -> host:port; read again for each connection.
        clients: the protocol of each client.
        size: records in each request.
        rate: records a second of all clients, and not more after a pause; None for as fast as they
            are answered.
        padding: text in each record.
        patience_s: how long one answer may take.
        mark: what the ids of this load begin with.
    """

    def __init__(
        self,
        addresses,
        clients=("http", "http", "grpc", "grpc"),
        *,
        size=10,
        rate=None,
        padding="",
        patience_s=10.0,
        mark="id",
    ):
        self.addresses = addresses
        self.clients = clients
        self.size = size
        self.rate = rate
        self.padding = padding
        self.patience_s = patience_s
        self.mark = mark
        self.sent = Counter()
        self.taken = set()
        self.refused = {}
        self.again = 0
        self.later = 0
        """How often the answer was to come again; no answer at all is not counted here."""
        self.unanswered = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._give_up = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number, protocol))
            for number, protocol in enumerate(clients)
        ]

    def __enter__(self):
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *exc):
        self.finish(0.0)

    def finish(self, patience_s=60.0):
        """Send nothing new; what has no answer is sent again for so long."""
        self._stop.set()
        deadline = time.monotonic() + patience_s
        for each in self._threads:
            each.join(max(0.0, deadline - time.monotonic()))
        self._give_up.set()
        for each in self._threads:
            each.join()

    def until_taken(self, amount, patience_s=60.0):
        """Wait until so many more records were acknowledged."""
        goal = len(self.taken) + amount
        deadline = time.monotonic() + patience_s
        while len(self.taken) < goal:
            assert time.monotonic() < deadline, f"{len(self.taken)} of {goal} in {patience_s:g} s"
            time.sleep(0.005)

    def _client(self, number, protocol):
        made = None
        began = time.monotonic()
        try:
            for turn in itertools.count():
                if self._stop.is_set():
                    return
                if self.rate:
                    wait_s = began + turn * self.size * len(self.clients) / self.rate
                    wait_s -= time.monotonic()
                    began -= min(0.0, wait_s + LATE_S)
                    self._stop.wait(max(0.0, wait_s))
                signal = SIGNALS[(number + turn) % 3]
                head = f"{self.mark}-{number}-{turn}"
                names = [f"{head}-{each}" for each in range(self.size)]
                body = request(signal, names, self.padding)
                made = self._until_answered(made, protocol, signal, body, names)
        finally:
            if made is not None:
                made.close()

    def _until_answered(self, made, protocol, signal, body, names):
        with self._lock:
            self.sent.update(names)
        while not self._give_up.is_set():
            if made is None:
                made = {"http": Http, "grpc": Grpc}[protocol](
                    self.addresses[protocol], self.patience_s
                )
            found = made.post(signal, body)
            if found is True:
                with self._lock:
                    self.taken.update(names)
                return made
            if found:
                with self._lock:
                    self.refused[names[0]] = found
                return made
            with self._lock:
                self.again += 1
                self.later += found is False
            self._give_up.wait(0.05)
            made.close()
            made = None
        with self._lock:
            self.unanswered.update(names)
        return made


def in_sqlite(path):
    """Every id in a store."""
    found = []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as store:
        for table, key in (("spans", "name"), ("metrics", "name"), ("logs", "message")):
            rows = store.execute(f"SELECT json_extract(document, '$.{key}') FROM {table}")
            found += [each for (each,) in rows]
    return found


def in_lines(path):
    """Every id in a file of documents; each line must be whole, but for one that is being written."""
    whole, _, _ = path.read_text().rpartition("\n")
    found = [json.loads(line) for line in whole.splitlines()]
    return [each.get("message", each.get("name")) for each in found]


def verdict(load, found, *, seed=None):
    """What is wrong with what was found, as numbers; all of them shall be zero. Prints the counts."""
    counts = Counter(found)
    numbers = {
        "lost": len(load.taken - counts.keys()),
        "twice": sum(number > 1 for number in counts.values()),
        "invented": len(counts.keys() - load.sent.keys()),
        "refused for good": len(load.refused),
    }
    print(
        f"seed {seed}: {len(load.sent)} sent, {len(load.taken)} acknowledged, "
        f"{len(counts)} found, {len(load.unanswered)} unanswered, sent again {load.again} times "
        f"({load.later} times told to); "
        + ", ".join(f"{number} {name}" for name, number in numbers.items())
    )
    return numbers


NOTHING = {"lost": 0, "twice": 0, "invented": 0, "refused for good": 0}
"""The verdict that the promises demand."""
