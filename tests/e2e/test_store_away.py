"""The store is away, dies, or hangs: the shipped configuration keeps what it takes and delivers it once (R4, D3)."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pymongo
import pytest

from tests.load import NOTHING, Load, verdict
from tests.programs import READY, Collector
from tests.servers import Mongod

pytestmark = pytest.mark.e2e

LEVELS = ("debug", "info", "warning", "error", "critical")


def shipped(folder, uri):
    """The configuration that newcomers run, on MongoDB."""
    return Collector(folder, TELEMETRY_STORE="mongodb", MONGODB_URI=uri, MONGODB_DATABASE="away")


def addresses(collector):
    return {each: collector.address("receivers::otlp", each) for each in ("http", "grpc")}


def in_mongodb(uri):
    """Every id in the database; none while it cannot be asked."""
    found = []
    with contextlib.suppress(pymongo.errors.PyMongoError), pymongo.MongoClient(uri, serverSelectionTimeoutMS=500, socketTimeoutMS=10_000) as client:  # fmt: skip
        database = client["away"]
        found += [each["name"] for each in database["spans"].find({}, {"name": 1})]
        found += [each["name"] for each in database["metrics"].find({}, {"name": 1})]
        for level in LEVELS:
            found += [
                each["message"] for each in database[f"{level}_logs"].find({}, {"message": 1})
            ]
    return found


def number_in_mongodb(uri):
    """How many records the database has, from its own books; 0 while it cannot be asked."""
    names = ["spans", "metrics", *(f"{level}_logs" for level in LEVELS)]
    with contextlib.suppress(pymongo.errors.PyMongoError), pymongo.MongoClient(uri, serverSelectionTimeoutMS=500, socketTimeoutMS=10_000) as client:  # fmt: skip
        return sum(client["away"][each].estimated_document_count() for each in names)
    return 0


def wait_for(uri, load, patience_s, process=None):
    """
    Wait until everything acknowledged is in the database.

    Returns:
        What is there, how long that took, and the most memory that the process had.
    """
    began, most = time.monotonic(), 0.0
    while True:
        waited_s = time.monotonic() - began
        if process is not None:
            most = max(most, resident_mib(process))
        found = in_mongodb(uri) if number_in_mongodb(uri) >= len(load.taken) else []
        if load.taken <= set(found):
            return found, waited_s, most
        assert waited_s < patience_s, f"{number_in_mongodb(uri)} of {len(load.taken)} are there"
        time.sleep(0.2)


def resident_mib(process):
    """How much memory a process has now."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def processor_s(*pids):
    """How much processor time each process has used."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split() for pid in pids]
    return [(int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") for stat in stats]


def test_the_shipped_configuration_queues_while_mongodb_is_down(tmp_path, mongod):
    """C9: no server yet, the collector takes data; a restart later the server is there and has it once."""
    with shipped(tmp_path, mongod.uri) as collector:
        collector.wait_for(READY)
        with Load(addresses(collector), mark="down", patience_s=30) as load:
            load.until_taken(300)
            load.finish()
        assert load.later == 0  # a database that is down is no sender's business
        assert collector.stop() == 0
    assert in_mongodb(mongod.uri) == []
    mongod.start()
    with shipped(tmp_path, mongod.uri) as collector:
        collector.wait_for(READY)
        found, _, _ = wait_for(mongod.uri, load, 90)
        assert collector.stop() == 0
    assert verdict(load, found) == NOTHING
    lines = (tmp_path / "data" / "telemetry.jsonl").read_text().count("\n")
    assert lines == len(load.taken)  # the file beside it got everything at once, and once


def stop(mongod):
    """SIGTERM, and wait until it is gone."""
    os.kill(mongod.pid, signal.SIGTERM)
    mongod._process.wait(120)  # its public ways to end are kill -9
    mongod.kill()


FAULTS = {
    "stop": (stop, Mongod.start),
    "kill": (Mongod.kill, Mongod.start),
    "freeze": (Mongod.freeze, Mongod.thaw),
}
LONG = [pytest.mark.full, pytest.mark.timeout(7200)]


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(("freeze", 3, 200), id="freeze-3"),
        *(pytest.param((fault, 600, 2000), marks=LONG, id=f"{fault}-600") for fault in FAULTS),
    ],
)
def test_an_outage_of_the_store_loses_nothing(tmp_path, mongod, record_property, outage):
    """R4: stopped, killed, or frozen under load: no sender notices, 0 lost, 0 twice, memory bounded."""
    fault, outage_s, rate = outage
    begin, end = FAULTS[fault]
    mongod.start()
    with shipped(tmp_path, mongod.uri) as collector:
        collector.wait_for(READY)
        with Load(addresses(collector), rate=rate, size=20, mark=fault, patience_s=30) as load:
            load.until_taken(rate)
            before = resident_mib(collector.process)
            begin(mongod)
            began, count = time.monotonic(), len(load.taken)
            after = before
            while time.monotonic() - began < outage_s:
                time.sleep(0.1)
                after = max(after, resident_mib(collector.process))
            waiting, took_s = len(load.taken) - count, time.monotonic() - began
            end(mongod)
            load.finish()
        pids = collector.process.pid, mongod.pid
        used = processor_s(*pids)
        found, drain_s, later = wait_for(
            mongod.uri, load, 120 + 2 * outage_s, process=collector.process
        )
        each = [(b - a) / waiting * 1e6 for a, b in zip(used, processor_s(*pids), strict=True)]
        assert collector.stop() == 0
    figures = (
        f"{fault} for {outage_s} s: {waiting} waited ({waiting / took_s:.0f}/s came in), drained "
        f"in {drain_s:.1f} s ({waiting / max(drain_s, 0.1):.0f}/s; processor time per record: "
        f"collector {each[0]:.0f} us, mongod {each[1]:.0f} us), memory +{after - before:.0f} "
        f"MiB of {before:.0f}, while it drained +{later - before:.0f}"
    )
    print(figures)
    record_property("figures", figures)
    assert verdict(load, found, seed=fault) == NOTHING
    assert waiting > 0
    assert (load.later, load.unanswered) == (0, set())
    assert after - before <= 64
