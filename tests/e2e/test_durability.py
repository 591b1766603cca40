"""kill -9 of real processes: what was acknowledged is there afterwards, once (R1, D3)."""

import asyncio
import http.client
import os
import random
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
from tests.durability import logs, stored

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

WRITER = """
import asyncio, os, sys, time
from collector.model import Batch, Request, Signal
from collector.wal import Wal
from tests.durability import config, host, logs

async def sender(wal, name):
    for number in range(10**9):
        mark = f"{name}-{number}"
        await wal.append(logs(mark + "x" * (number % 50) * 100), "logs", 1)
        os.write(1, (mark + "\\n").encode())  # the oracle hears of it only now

async def main():
    async with Wal(config(sys.argv[1], segment_bytes=1 << 16, max_bytes=1 << 30), host()) as wal:
        reader = await wal.reader("sink", ["logs"])
        os.write(1, b"ready\\n")
        await asyncio.gather(*(sender(wal, f"{sys.argv[2]}-{each}") for each in range(4)))

asyncio.run(main())
"""


def kill_a_writer(folder, round_, delay_s):
    """Start a process that appends, kill it; the ids that it had acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(round_)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout.readline() == b"ready\n"
        killer = threading.Timer(delay_s, writer.kill)
        killer.start()
        lines = writer.stdout.read().decode().split("\n")
        killer.join()
        assert writer.wait() == -signal.SIGKILL
    return lines[:-1]


def kills(folder, rounds, seed):
    """Many kills on one folder; the ids acknowledged and the ids found afterwards."""
    chance = random.Random(seed)
    answered = []
    for round_ in range(rounds):
        answered += kill_a_writer(folder, round_, chance.uniform(0.001, 0.12))
    found = [each.rstrip("x") for each in asyncio.run(stored(folder, max_bytes=1 << 30))]
    return answered, found


@pytest.mark.parametrize(
    "rounds",
    [20, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])],
)
def test_kill_9_loses_no_acknowledged_request(tmp_path, rounds):
    """R1: after each kill everything acknowledged is in the log, once, and nothing is invented."""
    answered, found = kills(tmp_path, rounds, seed=rounds)
    print(f"{rounds} kills, {len(answered)} acknowledged, {len(found)} found")
    twice = [each for each, number in Counter(found).items() if number > 1]
    assert (sorted(set(answered) - set(found)), twice) == ([], [])
    assert len(answered) > rounds
    extra = Counter(each.rpartition("-")[0] for each in set(found) - set(answered))
    assert set(extra.values()) <= {1, 2}  # per sender: the one under way, and an answer unread


CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  sqlite:
    path: {folder}/store.db
    sending_queue: {{storage: file_storage}}
extensions:
  file_storage: {{directory: {folder}/queue, segment_bytes: 65536}}
service:
  extensions: [file_storage]
  pipelines:
    logs: {{receivers: [otlp], exporters: [sqlite]}}
"""


class Collector:
    """A collector process with a durable queue in front of the embedded store."""

    def __init__(self, folder):
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.file = folder / "collector.yaml"
        self.file.write_text(CONFIG.format(port=self.port, folder=folder))
        self.process = None
        self.answered = []

    def start(self):
        self.log = (self.folder / "collector.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collector", "run", "--config", str(self.file)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stderr=self.log,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "collector.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def end(self, number):
        self.process.send_signal(number)
        self.process.wait(30)
        self.log.close()
        return self.process.returncode

    def send(self, name):
        """Send until the connection ends; ids are counted when the answer is 200."""
        with_requests = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            for number in range(10**9):
                marks = [f"{name}-{number}-{each}" for each in range(5)]
                headers = {"Content-Type": "application/x-protobuf"}
                with_requests.request("POST", "/v1/logs", encode(logs(*marks)), headers)
                answer = with_requests.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answered += marks
        except (OSError, http.client.HTTPException):
            return
        finally:
            with_requests.close()

    def in_store(self):
        with sqlite3.connect(self.folder / "store.db") as store:
            rows = store.execute("SELECT json_extract(document, '$.message') FROM logs").fetchall()
        store.close()
        return [message for (message,) in rows]


@pytest.mark.parametrize(
    "rounds", [4, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]
)
def test_kill_9_of_a_collector_stores_each_acknowledged_record_once(tmp_path, rounds):
    """R1: through receiver, log, queue and store, with kills in between: 0 lost, 0 twice."""
    collector = Collector(tmp_path)
    chance = random.Random(rounds)
    for round_ in range(rounds):
        collector.start()
        senders = [
            threading.Thread(target=collector.send, args=(f"{round_}-{each}",)) for each in range(3)
        ]
        for sender in senders:
            sender.start()
        time.sleep(chance.uniform(0.05, 0.5))
        assert collector.end(signal.SIGKILL) == -signal.SIGKILL
        for sender in senders:
            sender.join()
    collector.start()
    lost = set(collector.answered)
    deadline = time.monotonic() + 60
    while lost and time.monotonic() < deadline:
        lost = set(collector.answered) - set(collector.in_store())
        time.sleep(0.05)
    assert collector.end(signal.SIGTERM) == 0
    found = collector.in_store()
    twice = [each for each, number in Counter(found).items() if number > 1]
    print(f"{rounds} kills, {len(collector.answered)} acknowledged, {len(found)} found")
    assert (sorted(lost), twice) == ([], [])
    assert len(collector.answered) > 50
