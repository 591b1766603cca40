"""
kill -9 and SIGTERM of real processes: what was acknowledged is there afterwards, once (R1, R8, D3).

`make test-full` runs the long forms; each prints its seed and its counts.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.durability import stored
from tests.load import NOTHING, Load, Places, in_sqlite, verdict
from tests.programs import READY, Collector

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
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
processors: {{"tests.broken:Drops": {{}}}}
exporters:
  sqlite: {{path: store.db{queue}}}
  file: {{path: lines.jsonl}}
extensions: {{"{storage}": {{directory: queue, segment_bytes: 65536, reserve_bytes: 0}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: ["{storage}"]
  pipelines:
    traces: {{receivers: [otlp], processors: {processors}, exporters: [sqlite, file]}}
    metrics: {{receivers: [otlp], processors: {processors}, exporters: [sqlite, file]}}
    logs: {{receivers: [otlp], processors: {processors}, exporters: [sqlite, file]}}
"""
QUEUE = ', sending_queue: {{storage: "{storage}"}}'
BUILDS = {
    "queue": {"storage": "file_storage", "queue": QUEUE},
    "own log": {"storage": "file_storage", "queue": ""},  # the store's commit is the answer
    "answers early": {"storage": "tests.broken:Hasty", "queue": QUEUE},
    "drops 0.1 %": {
        "storage": "file_storage",
        "queue": "",
        "processors": "['tests.broken:Drops']",
    },
}


def end_again_and_again(folder, build, rounds, number, *, seed, least=40):
    """
    A collector of this build that is ended under load, and started again, so many times.

    Returns:
        The load with what it was told, everything in the store, and the exit codes.
    """
    chance = random.Random(seed)
    codes, ready_s = Counter(), []
    with Places("http", "grpc") as places:
        settings = {"processors": "[]", "http": places["http"], "grpc": places["grpc"]}
        settings |= BUILDS[build]
        settings["queue"] = settings["queue"].format(**settings)
        (folder / "collector.yaml").write_text(CONFIG.format(**settings))

        def start():
            began = time.monotonic()
            collector = Collector(folder, sets=(), config="collector.yaml", PYTHONPATH=str(ROOT))
            collector.wait_for(READY)
            ready_s.append(time.monotonic() - began)
            return collector

        with Load(places.addresses("http", "grpc"), mark=f"{number.name}") as load:
            for _ in range(rounds):
                with start() as collector:
                    load.until_taken(least)
                    time.sleep(chance.uniform(0.0, 0.3))
                    codes[collector.stop(number)] += 1
            with start() as collector:
                load.finish(60)
                deadline = time.monotonic() + 30
                found = in_sqlite(folder / "store.db")
                while build == "queue" and load.taken - set(found):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                    found = in_sqlite(folder / "store.db")
                assert collector.stop() == 0
    print(f"{build}: {rounds} times {number.name}, ready after {max(ready_s):.2f} s at most")
    return load, in_sqlite(folder / "store.db"), codes


LONG = [pytest.mark.full, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("build", ["queue", "own log"])
@pytest.mark.parametrize("rounds", [6, pytest.param(500, marks=LONG)])
def test_kill_9_of_a_collector_stores_each_acknowledged_record_once(tmp_path, build, rounds):
    """R1: four clients, both protocols, three signals, kills in between: 0 lost, 0 twice."""
    load, found, codes = end_again_and_again(tmp_path, build, rounds, signal.SIGKILL, seed=rounds)
    assert verdict(load, found, seed=rounds) == NOTHING
    assert (load.unanswered, codes) == (set(), {-signal.SIGKILL: rounds})
    lines = (tmp_path / "lines.jsonl").read_text().splitlines(keepends=True)
    assert [line for line in lines if not line.endswith("}\n")] == []  # never a torn line


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=LONG)])
def test_sigterm_under_load_stores_what_was_accepted(tmp_path, rounds):
    """R8: accepted = stored, each stop is clean, and no client is refused for good."""
    load, found, codes = end_again_and_again(tmp_path, "queue", rounds, signal.SIGTERM, seed=rounds)
    assert verdict(load, found, seed=rounds) == NOTHING
    assert (load.unanswered, codes) == (set(), {0: rounds})


@pytest.mark.parametrize(
    ("build", "number", "least"),
    [("answers early", signal.SIGKILL, 40), ("drops 0.1 %", signal.SIGTERM, 1500)],
)
def test_a_broken_build_is_found(tmp_path, build, number, least):
    """Mutation run: the tests above fail for a collector that breaks the promise."""
    load, found, _ = end_again_and_again(tmp_path, build, 1, number, seed=1, least=least)
    assert verdict(load, found, seed=1)["lost"] > 0
