"""Two collectors in a row, killed and started again in the middle (R1, D3)."""

import http.client
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from collector.otlp import encode
from tests.certificates import Authority
from tests.durability import logs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent

EXPORTERS = {
    "otlp_http": "endpoint: http://127.0.0.1:{http}",
    "otlp_grpc": "endpoint: https://localhost:{grpc}\n    tls: {{ca_file: {ca}}}",
}

NEAR = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{near}"}}}}}}
exporters:
  {kind}:
    {endpoint}
    sending_queue: {{storage: file_storage}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 200ms}}
extensions:
  file_storage: {{directory: {folder}/near}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage]
  pipelines:
    logs: {{receivers: [otlp], exporters: [{kind}]}}
"""
FAR = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{http}"}}
      grpc: {{endpoint: "127.0.0.1:{grpc}", tls: {{cert_file: {certificate}, key_file: {key}}}}}
exporters:
  sqlite:
    path: {folder}/store.db
    sending_queue: {{storage: file_storage}}
extensions:
  file_storage: {{directory: {folder}/far}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage]
  pipelines:
    logs: {{receivers: [otlp], exporters: [sqlite]}}
"""


class Program:
    """A collector process that can be killed and started again on the same ports."""

    def __init__(self, folder, name, text, ports):
        self.file = folder / f"{name}.yaml"
        self.file.write_text(text)
        self.log_file = folder / f"{name}.log"
        self.ports = ports
        self.process = None

    def start(self):
        self.log = self.log_file.open("ab")
        command = [sys.executable, "-m", "collector", "run", "--config", str(self.file)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=self.log)
        deadline = time.monotonic() + 60
        for port in self.ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert self.process.poll() is None, self.log_file.read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def end(self, number=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.log.close()
            self.process = None


class Sender(threading.Thread):
    """Sends request after request; remembers the ids that were answered with 200."""

    def __init__(self, port, name):
        super().__init__()
        self.port = port
        self.name_ = name
        self.answered = []
        self.stopped = threading.Event()

    def run(self):
        number = 0
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.stopped.is_set():
            marks = [f"{self.name_}-{number}-{each}" for each in range(5)]
            headers = {"Content-Type": "application/x-protobuf"}
            try:
                connection.request("POST", "/v1/logs", encode(logs(*marks)), headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self.stopped.wait(0.02)  # its next try has the same ids: the same request
                continue
            if answer.status == 200:
                self.answered += marks
                number += 1
                self.stopped.wait(0.005)  # a trickle: the kills are the load
        connection.close()


def stored(path):
    with sqlite3.connect(path) as store:
        rows = store.execute("SELECT json_extract(document, '$.message') FROM logs").fetchall()
    store.close()
    return [message for (message,) in rows]


def wait_until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_ports(amount):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(amount)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.parametrize("kind", list(EXPORTERS))
def test_a_chain_loses_and_doubles_nothing(tmp_path, kind):
    """R1: both collectors are killed under load, HTTP or gRPC over TLS; each id is stored once."""
    near, far_http, far_grpc = free_ports(3)
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    names = {"near": near, "http": far_http, "grpc": far_grpc, "folder": tmp_path, "kind": kind}
    names |= {"ca": authority.certificate, "certificate": certificate, "key": key}
    names["endpoint"] = EXPORTERS[kind].format(**names)
    first = Program(tmp_path, "near", NEAR.format(**names), [near])
    second = Program(tmp_path, "far", FAR.format(**names), [far_http, far_grpc])
    sender = Sender(near, kind)
    try:
        first.start()  # nobody listens behind it yet
        sender.start()
        wait_until(lambda: len(sender.answered) > 50)
        second.start()
        wait_until(lambda: len(stored(tmp_path / "store.db")) > 20)
        second.end()
        before = len(sender.answered)
        wait_until(lambda: len(sender.answered) > before + 50)
        first.end()
        second.start()
        first.start()
        before = len(sender.answered)
        wait_until(lambda: len(sender.answered) > before + 50)
        sender.stopped.set()
        sender.join()
        answered = set(sender.answered)
        wait_until(lambda: not answered - set(stored(tmp_path / "store.db")))
    finally:
        sender.stopped.set()
        first.end()
        second.end()
    found = Counter(stored(tmp_path / "store.db"))
    assert [each for each, number in found.items() if number > 1] == []
    assert len(set(found) - answered) <= 5  # the request under way when it stopped
