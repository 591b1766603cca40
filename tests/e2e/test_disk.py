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
  file: {{path: {place}/lines.jsonl}}
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
        The load, and everything in the store afterwards.
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
            found = in_sqlite(cut / "store.db")
            lines = cut / "lines.jsonl"
            if lines.exists():
                assert lines.read_bytes()[-1:] in (b"", b"\n")
        after.unlink()
    return load, found


def wait_for_all(place, load, patience_s=20):
    """What is in the store when the queue has delivered what it can."""
    deadline = time.monotonic() + patience_s
    found = in_sqlite(place / "store.db")
    while load.taken - set(found) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = in_sqlite(place / "store.db")
    return found


BUILDS = {
    "queue": {"queue": QUEUE, "sinks": "sqlite"},
    "own logs": {"queue": "", "sinks": "sqlite, file"},
}
LONG = [pytest.mark.full, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("cuts", [1, pytest.param(100, marks=LONG)])
def test_a_power_cut_loses_nothing_acknowledged(tmp_path, build, cuts):
    """R2: everything acknowledged is there, once; queue, store and file open after each cut."""
    chance = random.Random(cuts)
    for number in range(cuts):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        load, found = cut_power(folder, chance.uniform(0.0, 1.0), **BUILDS[build])
        assert verdict(load, found, seed=cuts) == NOTHING
        shutil.rmtree(folder)


def test_the_power_cut_finds_a_build_that_does_not_sync(tmp_path):
    """Mutation run: with `fsync: false` the same cut loses what was acknowledged."""
    late = "batch: {flush_timeout: 1h, min_size: 1000000000}"  # the store's own fsync would hide it
    queue = f", sending_queue: {{storage: file_storage, {late}}}"
    load, found = cut_power(tmp_path, 0.2, fsync="false", queue=queue, patience_s=0.5)
    assert verdict(load, found, seed="no fsync")["lost"] > 0


@pytest.mark.parametrize(("rounds", "full_s"), [(1, 0), pytest.param(20, 60, marks=LONG)])
def test_a_full_disk_refuses_and_goes_on_alone(tmp_path, rounds, full_s):
    """R5: 32 MiB, filled from outside: retryable refusals, 0 lost, taken again when there is room."""
    with (
        Places("http", "grpc") as places,
        mounted("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path / "disk")) as disk,
    ):
        write(tmp_path, places, place=disk, reserve=1 << 20)
        with Collector(tmp_path, sets=(), config="collector.yaml") as collector:
            collector.wait_for(READY)
            with Load(places.addresses("http", "grpc"), rate=500, patience_s=30) as load:
                for _ in range(rounds):
                    load.until_taken(100)
                    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - (2 << 20)))
                    later = load.later
                    deadline = time.monotonic() + 60
                    while load.later == later:
                        assert time.monotonic() < deadline
                        time.sleep(0.02)
                    time.sleep(full_s)  # refusals hold for 10 s at least, however short it was full
                    (disk / "ballast").unlink()
                    began = time.monotonic()
                    load.until_taken(40)
                    print(f"taken again after {time.monotonic() - began:.1f} s")
                load.finish()
            found = wait_for_all(disk, load)
            assert collector.stop() == 0
        assert "cannot write" not in collector.text  # refused before anything failed
        assert verdict(load, found, seed=rounds) == NOTHING
        assert not load.unanswered
