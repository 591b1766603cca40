"""A request that comes again is the same one, new data with equal bytes is not (D3, decision 13)."""

import concurrent.futures
import contextlib
import gzip
import json
import socket
import sqlite3
import struct
import time
import urllib.request

import grpc
import pytest

from collector.errors import Retryable
from collector.model import Signal
from collector.otlp import new_message
from collector.receivers.otlp import resends
from collector.receivers.otlp.grpc import Grpc
from collector.receivers.otlp.http import Http
from collector.receivers.otlp.resends import Resends
from tests.collector.receivers.conftest import SERVICES
from tests.programs import READY, Collector

BODY = json.dumps(
    {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "beat"}}]}]}]}
).encode()
JSON = "application/json"
GIVE_UP_S = 60


@pytest.fixture
def running(start):
    config = {
        "grpc_config": Grpc(endpoint="localhost:0"),
        "http_config": Http(endpoint="localhost:0"),
    }
    with start(**config) as server:
        yield server


def keys(server):
    return [batch.request.key for batch in server.batches]


def post(server):
    return server.post("/v1/logs", BODY, JSON)[0]


def wire():
    message = new_message(Signal.LOGS)
    message.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "beat"
    return message.SerializeToString()


def until(condition):
    """Wait for something that another thread does."""
    end = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_equal_requests_after_a_success(running):
    """Each that follows an answered one is new data, on new connections and on one."""
    assert [post(running) for _ in range(3)] == [200] * 3
    with contextlib.closing(running.connect()) as client:
        for _ in range(3):
            client.request("POST", "/v1/logs", BODY, {"Content-Type": JSON})
            assert client.getresponse().read() == b"{}"
    for _ in range(3):
        running.export(Signal.LOGS, wire())
    assert len(set(keys(running))) == len(running.batches) == 9


def test_equal_requests_at_the_same_time(running):
    """Senders that are all still waiting have not given up: what they send is new data."""
    running.free.clear()
    with concurrent.futures.ThreadPoolExecutor(6) as clients:
        answers = [clients.submit(post, running) for _ in range(5)]
        answers.append(clients.submit(running.export, Signal.LOGS, wire()))
        for _ in answers:
            assert running.waiting.acquire(timeout=GIVE_UP_S)
        running.free.set()
        assert [each.result(GIVE_UP_S) for each in answers] == [200] * 5 + [b""]
    assert len(set(keys(running))) == 6


def test_a_request_that_was_refused_comes_again(running):
    """B44: refused for now, over any transport or compression, then taken: one request."""
    running.failure = Retryable("full")
    packed = {"Content_Encoding": "gzip"}
    assert running.post("/v1/logs", wire())[0] == 503
    assert running.post("/v1/logs", gzip.compress(wire()), **packed)[0] == 503
    with pytest.raises(grpc.RpcError):
        running.export(Signal.LOGS, wire())
    (tries,) = [seen.tries for seen in running.receiver.admission.resends._seen.values()]
    refused = [each.key for each in tries]
    running.failure = None
    running.export(Signal.LOGS, wire())
    assert refused == keys(running)
    assert running.post("/v1/logs", wire())[0] == 200
    assert keys(running)[1] not in refused


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_breaks_before_the_answer(running, end):
    """The sender cannot have heard: what it sends again is the same request, once."""
    head = f"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
    running.free.clear()
    client = socket.create_connection(running.http, 30)
    client.sendall(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
    assert running.waiting.acquire(timeout=GIVE_UP_S)
    if end == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    tries = next(iter(running.receiver.admission.resends._seen.values())).tries
    until(tries[0].exchange.broken)
    running.free.set()
    assert [post(running), post(running)] == [200, 200]
    until(lambda: len(running.batches) == 3)
    first, again, new = sorted(keys(running), key=keys(running).count, reverse=True)
    assert first == again != new


def test_a_call_that_is_cancelled(running):
    """The same over gRPC."""
    running.free.clear()
    with running.channel() as channel:
        call = channel.unary_unary(f"/{SERVICES[Signal.LOGS]}/Export").future(wire(), timeout=30)
        assert running.waiting.acquire(timeout=GIVE_UP_S)
        call.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            call.result()
    tries = next(iter(running.receiver.admission.resends._seen.values())).tries
    until(lambda: tries[0].state == "lost")
    running.free.set()
    running.export(Signal.LOGS, wire())
    running.export(Signal.LOGS, wire())
    until(lambda: len(running.batches) == 3)
    assert len(set(keys(running))) == 2


def test_a_sender_that_may_have_given_up(running, monkeypatch):
    """A try that is in work for longer than senders wait is what comes again."""
    monkeypatch.setattr(resends, "PATIENCE_S", 0.0)
    running.free.clear()
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(post, running)]
        assert running.waiting.acquire(timeout=GIVE_UP_S)
        answers.append(clients.submit(post, running))
        assert running.waiting.acquire(timeout=GIVE_UP_S)
        running.free.set()
        assert [each.result(GIVE_UP_S) for each in answers] == [200, 200]
    assert len(set(keys(running))) == 1


class Exchange:
    """A connection of which a test says what became of it."""

    def __init__(self, delivered=None):
        self.now = delivered

    def broken(self):
        return self.now is False

    def delivered(self):
        return self.now


def memory(tmp_path, problems):
    made = Resends(tmp_path / "answers", problems.append)
    made.open()
    return made


async def test_after_a_kill(tmp_path):
    """What was under way comes again with its identity, what was delivered does not; files are bounded."""
    problems = []
    first = memory(tmp_path, problems)
    digests = [bytes([number]) * 16 for number in range(3)]
    tries = [first.begin(digest, Exchange(delivered=True)) for digest in digests]
    tries += [first.begin(digests[0], Exchange())]  # equal bytes in a second try, never answered
    tries[0].answered()
    tries[1].answered()
    first._settle()  # the process is killed here: nothing is closed
    second = memory(tmp_path, problems)
    again = [second.begin(digest, Exchange()) for digest in digests]
    assert again[0].key == tries[3].key  # the try without an answer
    assert again[1].key != tries[1].key
    assert again[2].key == tries[2].key
    for number in range(3 * resends.LINES):
        one = second.begin(number.to_bytes(16), Exchange(delivered=True))
        one.answered()
        if number % 1000 == 0:
            second._settle()
    second.close()
    assert len(second._seen) <= 2 * resends.LINES
    sizes = [each.stat().st_size for each in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 3 * resends.LINES * resends.LINE.size
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o640}
    assert problems == []


test_after_a_kill.pytestmark = [pytest.mark.anyio]


def test_a_damaged_memory_is_no_reason_not_to_start(tmp_path):
    """Half a line, garbage, a link: what can be read is, and what is written goes elsewhere."""
    (tmp_path / "answers.1").write_bytes(b"garbage" * 99)
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "answers").symlink_to(tmp_path / "victim")
    problems = []
    memory(tmp_path, problems).close()
    assert ((tmp_path / "victim").read_bytes(), problems) == (b"precious", [])


CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "localhost:0"}}}}
exporters: {sqlite: {path: t.db}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {logs: {receivers: [otlp], exporters: [sqlite]}, metrics: {receivers: [otlp], exporters: [sqlite]}}
"""


@pytest.mark.e2e
def test_heartbeats_through_a_kill(tmp_path):
    """Log records and points without a time are stored each, before and after a kill."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    point = {"name": "g", "gauge": {"dataPoints": [{"asInt": "1"}]}}
    metrics = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [point]}]}]}).encode()
    for _ in range(2):
        with Collector(tmp_path, sets=(), config="c.yaml") as collector:
            collector.wait_for(READY)
            where = f"http://{collector.address('receivers::otlp', 'http')}/v1/"
            for _ in range(3):
                for path, body in (("logs", BODY), ("metrics", metrics)):
                    asked = urllib.request.Request(where + path, body, {"Content-Type": JSON})
                    assert urllib.request.urlopen(asked, timeout=30).status == 200
            answers = tmp_path / "answers-otlp"
            until(lambda file=answers: delivered(file) >= 6)
            collector.process.kill()
    with sqlite3.connect(tmp_path / "t.db") as database:
        counts = [
            database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("logs", "metrics")
        ]
    assert counts == [6, 6]


def delivered(file):
    data = file.read_bytes()
    return sum(kind == resends.DELIVERED for kind, _, _ in resends.LINE.iter_unpack(data))
