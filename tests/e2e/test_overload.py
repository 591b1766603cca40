"""Ten times what a collector can take, in 512 MiB: refusals are retryable, nothing is lost (R7)."""

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.load import NOTHING, Load, Places, in_sqlite, verdict
from tests.programs import READY, Collector

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.timeout(7200)]

LIMIT_MIB = 512
KNEE_S = float(os.environ.get("OVERLOAD_KNEE_S", "30"))
OVERLOAD_S = float(os.environ.get("OVERLOAD_S", "300"))
CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
processors:
  memory_limiter: {{check_interval: 100ms, limit_mib: {limit}}}
exporters:
  sqlite: {{path: store.db, sending_queue: {{storage: file_storage}}}}
extensions:
  file_storage: {{directory: queue}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage]
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter], exporters: [sqlite]}}
    metrics: {{receivers: [otlp], processors: [memory_limiter], exporters: [sqlite]}}
    logs: {{receivers: [otlp], processors: [memory_limiter], exporters: [sqlite]}}
"""


@contextlib.contextmanager
def confined(pid):
    """The kernel's own limit on a process, where this user may set one; whether it is there."""
    # Control groups of version 1, else of version 2.
    root, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not (root / limit).exists():
        root, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = root / f"otelier-{pid}"
    try:
        subtree = root / "cgroup.subtree_control"
        if limit == "memory.max" and "memory" not in subtree.read_text().split():
            raise OSError("no control group that limits memory")
        group.mkdir()
        (group / limit).write_text(str(LIMIT_MIB << 20))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        deadline = time.monotonic() + 30
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(OSError):
            group.rmdir()


class Peak(threading.Thread):
    """The most memory that a process had."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{pid}/status")
        self.mib = 0.0

    def run(self):
        with contextlib.suppress(OSError, StopIteration):
            while True:
                lines = self.status.read_text().splitlines()
                line = next(each for each in lines if each.startswith("VmRSS:"))
                self.mib = max(self.mib, int(line.split()[1]) / 1024)
                time.sleep(0.1)


def rows(path):
    """How many records a store has."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        tables = ("spans", "metrics", "logs")
        found = [store.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in tables]
    store.close()
    return sum(found)


def offer(addresses, clients, seconds, mark):
    """Send as fast as answers come from so many clients; the load and records taken a second."""
    protocols = ["http", "grpc"] * (clients // 2)
    load = Load(addresses, protocols, size=100, padding="x" * 100, patience_s=30, mark=mark)
    with load:
        time.sleep(seconds)
        taken = len(load.taken)
        load.finish(120)
    return load, taken / seconds


def find_knee(addresses):
    """Twice as many clients until that brings nothing: the loads, records a second, and how many."""
    loads, knee, clients = [], 0.0, 2
    while clients <= 32:
        load, rate = offer(addresses, 2 * clients, KNEE_S / 4, f"knee{clients}")
        loads.append(load)
        if rate < knee * 1.15:
            break
        knee, clients = rate, 2 * clients
    return loads, knee, clients


def test_ten_times_the_knee_for_five_minutes(tmp_path, record_property):
    """R7: no kill by the kernel, no answer that loses data, and most of the knee is still taken."""
    with Places("http", "grpc") as places:
        text = CONFIG.format(grpc=places["grpc"], http=places["http"], limit=LIMIT_MIB * 9 // 10)
        (tmp_path / "collector.yaml").write_text(text)
        addresses = places.addresses("http", "grpc")
        with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
            collector.wait_for(READY)
            with confined(collector.process.pid) as kernel:
                peak = Peak(collector.process.pid)
                peak.start()
                loads, knee, clients = find_knee(addresses)
                load, goodput = offer(addresses, 10 * clients, OVERLOAD_S, "over")
                loads.append(load)
                assert collector.process.poll() is None
                deadline = time.monotonic() + 3600
                wanted = sum(len(each.taken) for each in loads)
                while rows(tmp_path / "store.db") < wanted:
                    assert time.monotonic() < deadline
                    time.sleep(1)
                assert collector.stop() == 0
        peak.join()
    found = in_sqlite(tmp_path / "store.db")
    figures = (
        f"knee {knee:.0f}/s with {clients} clients, {10 * clients} clients {goodput:.0f}/s "
        f"({goodput / knee:.0%}), peak {peak.mib:.0f} MiB, "
        f"limited by the {'kernel' if kernel else 'collector'}"
    )
    print(figures)
    record_property("figures", figures)
    for each in loads:
        mine = [name for name in found if name.startswith(f"{each.mark}-")]
        assert verdict(each, mine) == NOTHING
    assert peak.mib <= LIMIT_MIB * 1.1
