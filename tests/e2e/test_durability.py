"""
kill -9 and SIGTERM of real processes: what was acknowledged is there afterwards, once (R1, R8, D3).

`make test-full` runs the long forms; each prints its seed and its counts.
"""

import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.durability import stored
from tests.load import NOTHING, Load, Places, in_lines, in_sqlite, verdict
from tests.programs import READY, Collector
from tests.warm import Forker

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

WRITER = """
import asyncio, os, sys, time
from collector.model import Batch, Request, Signal
from collector.wal.storage import FileStorage
from tests.durability import config, host, logs

async def sender(wal, name):
    for number in range(10**9):
        mark = f"{name}-{number}"
        await wal.append(logs(mark + "x" * (number % 50) * 100), "logs", 1)
        os.write(1, (mark + "\\n").encode())  # the oracle hears of it only now

async def main():
    async with FileStorage(config(sys.argv[1], segment_bytes=1 << 16, max_bytes=1 << 30), host()) as wal:
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
    [8, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])],
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
  file: {{path: lines.jsonl{queue}}}
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


class Lives:
    """
    Starts the collectors of one test, and measures how soon each is ready.

    Args:
        folder: where they run.
        program_each: the first of so many is started as a user does, from nothing; the others are
            forked, see `tests.warm`.
    """

    def __init__(self, folder, program_each):
        self.folder = folder
        self.program_each = program_each
        self.forker = Forker() if program_each > 1 else None
        self.ready_s, self.forked_ready_s, self.cpu_s = [], [], []

    def __enter__(self):
        if self.forker is not None:
            self.forker.__enter__()
        return self

    def __exit__(self, *exc):
        if self.forker is not None:
            self.forker.__exit__(*exc)

    def start(self):
        """A collector that is ready."""
        began = time.monotonic()
        count = len(self.ready_s) + len(self.forked_ready_s)
        if count % self.program_each:
            collector = self.forker.start(self.folder, "collector.yaml")
            collector.wait_for(READY)
            self.forked_ready_s.append(time.monotonic() - began)
            return collector
        collector = Collector(self.folder, sets=(), config="collector.yaml", PYTHONPATH=str(ROOT))
        collector.wait_for(READY)
        self.ready_s.append(time.monotonic() - began)
        stat = Path(f"/proc/{collector.process.pid}/stat").read_text().rpartition(") ")[2].split()
        self.cpu_s.append((int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"))
        return collector

    def __str__(self):
        text = f"{len(self.ready_s)} started as programs, {spread(self.ready_s)}"
        text += f" (processor time {statistics.median(self.cpu_s):.2f} s)"
        if self.forked_ready_s:
            text += f"; {len(self.forked_ready_s)} forked, {spread(self.forked_ready_s)}"
        return text


def spread(times):
    """The middle, the 99th percentile and the largest of some times."""
    at_99 = sorted(times)[min(len(times) - 1, len(times) * 99 // 100)]
    return (
        f"ready after {statistics.median(times):.2f} s (median), {at_99:.2f} s (p99), "
        f"{max(times):.2f} s (most)"
    )


def end_again_and_again(folder, build, rounds, number, *, seed, least=20, program_each=1):
    """
    A collector of this build that is ended under load, and started again, so many times.

    Returns:
        The load with what it was told, everything in the store, the exit codes, and what was done.
    """
    chance = random.Random(seed)
    codes = Counter()
    with Places("http", "grpc") as places, Lives(folder, program_each) as lives:
        settings = {"processors": "[]", "http": places["http"], "grpc": places["grpc"]}
        settings |= BUILDS[build]
        settings["queue"] = settings["queue"].format(**settings)
        (folder / "collector.yaml").write_text(CONFIG.format(**settings))
        with Load(places.addresses("http", "grpc"), mark=f"{number.name}") as load:
            for _ in range(rounds):
                with lives.start() as collector:
                    load.until_taken(least)
                    time.sleep(chance.uniform(0.0, 0.3))
                    codes[collector.stop(number)] += 1
            with lives.start() as collector:
                load.finish(60)
                deadline = time.monotonic() + 60
                while build == "queue" and (
                    load.taken - set(in_sqlite(folder / "store.db"))
                    or load.taken - set(in_lines(folder / "lines.jsonl"))
                ):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                assert collector.stop() == 0
    figures = f"{build}: {rounds} times {number.name}, seed {seed}; {lives}"
    print(figures)
    return load, in_sqlite(folder / "store.db"), codes, figures


LONG = [pytest.mark.full, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("build", ["queue", "own log"])
@pytest.mark.parametrize(
    ("rounds", "program_each"),
    [
        pytest.param(25, 5, marks=pytest.mark.timeout(600)),
        pytest.param(500, 1, marks=LONG),
    ],
)
def test_kill_9_of_a_collector_stores_each_acknowledged_record_once(
    tmp_path, record_property, build, rounds, program_each
):
    """R1: four clients, both protocols, three signals, kills: 0 lost, 0 twice, in store and file."""
    load, found, codes, figures = end_again_and_again(
        tmp_path, build, rounds, signal.SIGKILL, seed=rounds, program_each=program_each
    )
    record_property("figures", figures)
    assert verdict(load, found, seed=rounds) == NOTHING
    assert (load.unanswered, codes) == (set(), {-signal.SIGKILL: rounds})
    assert verdict(load, in_lines(tmp_path / "lines.jsonl"), seed=rounds) == NOTHING


@pytest.mark.parametrize(("rounds", "program_each"), [(5, 3), pytest.param(100, 1, marks=LONG)])
def test_sigterm_under_load_stores_what_was_accepted(
    tmp_path, record_property, rounds, program_each
):
    """R8: accepted = stored, each stop is clean, and no client is rejected."""
    load, found, codes, figures = end_again_and_again(
        tmp_path, "queue", rounds, signal.SIGTERM, seed=rounds, program_each=program_each
    )
    record_property("figures", figures)
    assert verdict(load, found, seed=rounds) == NOTHING
    assert (load.unanswered, codes) == (set(), {0: rounds})


@pytest.mark.parametrize(
    ("build", "number", "least"),
    [("answers early", signal.SIGKILL, 40), ("drops 0.1 %", signal.SIGTERM, 1500)],
)
def test_a_broken_build_is_found(tmp_path, build, number, least):
    """Mutation run: the tests above fail for a collector that breaks the promise."""
    load, found, _, _ = end_again_and_again(tmp_path, build, 1, number, seed=1, least=least)
    assert verdict(load, found, seed=1)["lost"] > 0
