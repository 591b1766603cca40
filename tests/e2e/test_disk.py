"""
Power cuts and full disks under a whole collector (R2, R5, D3). They need root and mounts.

A power cut is an image of a mounted file system, copied while every thread of the collector stands
still: what was not forced to disk is not in it. `commit=1000` keeps the file system from writing by
itself in the meantime. It models "all that was not handed to the disk is gone", in order; it does
not model torn sectors or a disk that lies.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.load import NOTHING, Load, Places, in_sqlite, verdict
from tests.load import in_lines as ids_in
from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  sqlite: {{path: {place}/store.db{queue}}}
  file: {{path: {place}/lines.jsonl{queue}}}
extensions:
  file_storage: {{directory: {place}/queue, segment_bytes: 65536, reserve_bytes: {reserve}, fsync: {fsync}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  extensions: [file_storage]
  pipelines:
    traces: {{receivers: [otlp], exporters: [{sinks}]}}
    metrics: {{receivers: [otlp], exporters: [{sinks}]}}
    logs: {{receivers: [otlp], exporters: [{sinks}]}}
"""
QUEUE = ", sending_queue: {storage: file_storage}"


def write(folder, places, **settings):
    """The configuration of a collector whose data are in `place`."""
    settings = {"reserve": 0, "fsync": "true", "sinks": "sqlite", "queue": QUEUE, **settings}
    text = CONFIG.format(grpc=places["grpc"], http=places["http"], **settings)
    (folder / "collector.yaml").write_text(text)


@contextlib.contextmanager
def mounted(*arguments):
    """A mount for the block; a machine that does not allow it skips the test, and says why."""
    folder = arguments[-1]
    Path(folder).mkdir(exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine mounts nothing: {done.stderr.strip()}")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def freeze(pid):
    """Stop a process, and wait until no thread of it can be in the middle of an fsync."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while any(
        (task / "stat").read_text().rpartition(") ")[2][0] != "T"
        for task in Path(f"/proc/{pid}/task").iterdir()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def cut_power(folder, delay_s, *, patience_s=20, **settings):
    """
    Run a collector under load, cut the power, run it again on what the disk has.

    Returns:
        The load, everything in the store afterwards, and everything in the file of lines, if any.
    """
    image, after = folder / "image", folder / "after"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no ext4 can be made here: {made.stderr.decode().strip()}")
    with Places("http", "grpc") as places:
        load = Load(places.addresses("http", "grpc"), mark=f"cut{delay_s:.3f}")
        with mounted("-o", "loop,commit=1000", str(image), str(folder / "live")) as live:
            write(folder, places, place=live, **settings)
            with Collector(folder, sets=(), config="collector.yaml") as collector:
                collector.wait_for(READY)
                with load:
                    load.until_taken(40)
                    time.sleep(delay_s)
                    freeze(collector.process.pid)
                    subprocess.run(["cp", "--sparse=always", str(image), str(after)], check=True)
                    collector.process.kill()
                    load.finish(0.0)
        image.unlink()
        with mounted("-o", "loop", str(after), str(folder / "cut")) as cut:
            write(folder, places, place=cut, **settings)
            with Collector(folder, sets=(), config="collector.yaml") as collector:
                collector.wait_for(READY)
                wait_for_all(cut, load, patience_s)
                assert collector.stop() == 0
            found = in_sqlite(cut / "store.db"), in_lines(cut)
        after.unlink()
    return load, *found


def in_lines(place):
    """Every id in the file of lines; None without one."""
    path = place / "lines.jsonl"
    return ids_in(path) if path.exists() else None


def wait_for_all(place, load, patience_s=20):
    """What is in the store when the queues have delivered what they can."""
    deadline = time.monotonic() + patience_s
    while True:
        found, lines = in_sqlite(place / "store.db"), in_lines(place)
        missing = load.taken - set(found) or (lines is not None and load.taken - set(lines))
        if not missing or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


BUILDS = {
    "queue": {"queue": QUEUE, "sinks": "sqlite, file"},
    "own logs": {"queue": "", "sinks": "sqlite, file"},
}
LONG = [pytest.mark.full, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("cuts", [1, pytest.param(100, marks=LONG)])
def test_a_power_cut_loses_nothing_acknowledged(tmp_path, build, cuts):
    """R2: all that was acknowledged is in store and file, once in the store; everything opens."""
    chance = random.Random(cuts)
    for number in range(cuts):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        load, found, lines = cut_power(folder, chance.uniform(0.0, 1.0), **BUILDS[build])
        assert verdict(load, found, seed=cuts) == NOTHING
        assert verdict(load, lines, seed=cuts) | {"twice": 0} == NOTHING
        shutil.rmtree(folder)


def test_the_power_cut_finds_a_build_that_does_not_sync(tmp_path):
    """Mutation run: with `fsync: false` the same cut loses what was acknowledged."""
    late = "batch: {flush_timeout: 1h, min_size: 1000000000}"  # the store's own fsync would hide it
    queue = f", sending_queue: {{storage: file_storage, {late}}}"
    load, found, _ = cut_power(tmp_path, 0.2, fsync="false", queue=queue, patience_s=0.5)
    assert verdict(load, found, seed="no fsync")["lost"] > 0


RESUMES_S = 5.0
"""R5: how soon requests are taken again when there is room."""


@pytest.mark.parametrize(("rounds", "full_s"), [(1, 0), pytest.param(20, 60, marks=LONG)])
def test_a_full_disk_refuses_and_goes_on_alone(tmp_path, record_property, rounds, full_s):
    """R5: 32 MiB, filled from outside: retryable refusals, 0 lost, taken again within 5 s of room."""
    waits = []
    with (
        Places("http", "grpc") as places,
        mounted("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path / "disk")) as disk,
    ):
        write(tmp_path, places, place=disk, reserve=1 << 20)
        with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
            collector.wait_for(READY)
            with Load(places.addresses("http", "grpc"), rate=100, patience_s=30) as load:
                for _ in range(rounds):
                    load.until_taken(40)
                    fill(disk / "ballast", but=2 << 20)
                    until_refused(load)
                    time.sleep(full_s)
                    before = len(load.taken)
                    (disk / "ballast").unlink()
                    began = time.monotonic()
                    while len(load.taken) == before:
                        assert time.monotonic() - began < 60, f"{waits}, {shutil.disk_usage(disk)}"
                        time.sleep(0.01)
                    waits.append(time.monotonic() - began)
                load.until_taken(40)
                load.finish()
            found = wait_for_all(disk, load)
            assert collector.stop() == 0
        assert "cannot write" not in collector.text  # refused before anything failed
        figures = (
            f"disk full {rounds} times for {full_s} s: taken again after {max(waits):.1f} s at most"
        )
        print(figures)
        record_property("figures", figures)
        assert verdict(load, found, seed=rounds) == NOTHING
        assert not load.unanswered
        assert max(waits) <= RESUMES_S


def fill(path, *, but):
    """Write until so much of the disk is free, however much others write meanwhile."""
    with path.open("wb", buffering=0) as file:
        while (free := shutil.disk_usage(path.parent).free) > but:
            file.write(bytes(min(free - but, 128 << 10)))


def until_refused(load):
    """Wait until each client was told to come again, and so none of them has an answer to come."""
    later, deadline = load.later, time.monotonic() + 60
    while load.later < later + 2 * len(load.clients):
        assert time.monotonic() < deadline
        time.sleep(0.01)
