"""A program is killed before it could send; the collector finds what it left, once (D3, C9)."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.load import Places, in_sqlite
from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e

CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
  spool: {{directory: {spool}, poll_interval: 100ms}}
exporters:
  sqlite: {{path: store.db{queue}}}
extensions:
  file_storage: {{directory: queue}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage]
  pipelines:
    traces: {{receivers: [otlp, spool], exporters: [sqlite]}}
    logs: {{receivers: [otlp, spool], exporters: [sqlite]}}
"""
PROGRAM = """
import os, signal, sys
import telemetry
telemetry.configure(service_name="shop")
logger = telemetry.get_logger("shop")
mark, amount = sys.argv[1], int(sys.argv[2])
for number in range(amount):
    with telemetry.span(f"{mark}-span-{number}"):
        logger.info(f"{mark}-log-{number}")
print("written", flush=True)
if len(sys.argv) > 3:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(folder, port, mark, amount, *die):
    """A program that logs and traces, in write-through mode."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mark, str(amount), *die],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_METRICS_EXPORTER": "none",
            "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
            "TELEMETRY_SPOOL_WRITE_THROUGH": "true",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def killed(folder, port, mark, amount):
    """Such a program, killed by SIGKILL as soon as the last call has returned."""
    with start(folder, port, mark, amount, "die") as program:
        assert program.stdout.read() == "written\n"
        assert program.wait(60) == -signal.SIGKILL
    return expected(mark, amount)


def expected(mark, amount):
    return {f"{mark}-{kind}-{number}" for kind in ("span", "log") for number in range(amount)}


def ours(folder):
    """What is stored of these programs; not what the library says about itself."""
    return [each for each in in_sqlite(folder / "store.db") if "-span-" in each or "-log-" in each]


def wait_for(folder, wanted):
    deadline = time.monotonic() + 90
    while True:
        found = ours(folder)
        if wanted <= set(found):
            return found
        assert time.monotonic() < deadline, sorted(wanted - set(found))[:10]
        time.sleep(0.1)


@pytest.mark.parametrize("queue", ["", ", sending_queue: {storage: file_storage}"])
def test_what_killed_programs_left_is_stored_once(tmp_path, queue):
    """Nobody listened, the program was killed: the collector, started later, stores every record."""
    with Places("http") as places:
        wanted = killed(tmp_path, places["http"], "first", 40)
        wanted |= killed(tmp_path, places["http"], "second", 40)
        text = CONFIG.format(port=places["http"], spool=tmp_path / "spool", queue=queue)
        (tmp_path / "collector.yaml").write_text(text)
        with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
            collector.wait_for(READY)
            wait_for(tmp_path, wanted)
            while list((tmp_path / "spool").glob("*.spool")):
                time.sleep(0.05)
            assert collector.stop() == 0
    assert Counter(ours(tmp_path)) == Counter(wanted)


def test_program_and_collector_come_back_together(tmp_path):
    """Both find the orphans at the same moment, and the program sends new ones: each is stored once."""
    with Places("http") as places:
        wanted = set()
        for number in range(6):
            wanted |= killed(tmp_path, places["http"], f"old{number}", 20)
        text = CONFIG.format(port=places["http"], spool=tmp_path / "spool", queue="")
        (tmp_path / "collector.yaml").write_text(text)
        programs = [start(tmp_path, places["http"], f"new{each}", 20) for each in range(2)]
        with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
            for number, program in enumerate(programs):
                program.communicate(timeout=90)
                assert program.returncode == 0
                wanted |= expected(f"new{number}", 20)
            collector.wait_for(READY)
            wait_for(tmp_path, wanted)
            while list((tmp_path / "spool").glob("*.spool")):
                time.sleep(0.05)
            assert collector.stop() == 0
    assert Counter(ours(tmp_path)) == Counter(wanted)


def test_a_collector_killed_while_it_reads_stores_nothing_twice(tmp_path):
    """Killed between the acknowledgement and the note in the file: the repeat is recognised."""
    with Places("http") as places:
        wanted = killed(tmp_path, places["http"], "old", 300)
        text = CONFIG.format(port=places["http"], spool=tmp_path / "spool", queue="")
        (tmp_path / "collector.yaml").write_text(text)
        for _ in range(3):
            with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
                collector.wait_for(READY)
                assert collector.stop(signal.SIGKILL) == -signal.SIGKILL
        with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
            collector.wait_for(READY)
            wait_for(tmp_path, wanted)
            assert collector.stop() == 0
    assert Counter(ours(tmp_path)) == Counter(wanted)
