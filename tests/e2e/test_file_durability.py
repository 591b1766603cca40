"""The file exporter in a real collector that is killed, and whose disk is full."""

import contextlib
import gzip
import http.client
import json
import re
import resource
import signal
import sys
import threading
import time
import urllib.request

import pytest

from tests.programs import READY, Collector

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="prlimit sets limits of a running process"),
]

GIVE_UP_S = 90
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
exporters:
  file:
    path: logs/rest.log
    create_directory: true
    format: json
    compression: gzip
    rotation: {max_megabytes: 1, max_backups: 0}
    routes:
      - {path: logs/even.log, match: [{attributes: {even: "true"}}]}
      - {path: logs/lines.log, format: text}
    sending_queue: {storage: file_storage}
    retry_on_failure: {initial_interval: 100ms, max_interval: 200ms}
  file/small:
    path: logs/small.log
    format: logfmt
    sending_queue: {storage: file_storage}
extensions:
  file_storage: {directory: queue, segment_bytes: 65536, reserve_bytes: 65536}
  health_check: {endpoint: "127.0.0.1:0"}
service:
  extensions: [file_storage, health_check]
  pipelines:
    logs: {receivers: [otlp], exporters: [file]}
    logs/small: {receivers: [otlp], exporters: [file/small]}
"""


def collector(folder):
    config = folder / "collector.yaml"
    config.write_text(CONFIG)
    return Collector(folder, config=config, sets=())


def send(address, numbers, size=2000):
    """Send one request with these records; whether it was acknowledged."""
    records = [
        {
            "body": {"stringValue": f"n{number:07}-" + "x" * size},
            "attributes": [{"key": "even", "value": {"boolValue": number % 2 == 0}}],
        }
        for number in numbers
    ]
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}
    request = urllib.request.Request(
        f"http://{address}/v1/logs",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status == 200 and json.load(answer) == {}
    except (OSError, http.client.HTTPException):
        return False


def lines(folder, name):
    """Every line of a file and of those put aside; each must be whole. None while files move."""
    found = []
    try:
        for path in sorted(folder.glob(f"{name}*.log*")):
            if path.suffix in (".log", ".gz"):
                data = path.read_bytes()
                text = gzip.decompress(data) if path.suffix == ".gz" else data
                found += text.decode().splitlines()
    except FileNotFoundError:
        return None
    return found


def numbers_of(folder, name):
    """The numbers of the records in a file, as often as they stand there."""
    found = lines(folder, name)
    return None if found is None else [int(re.search(r"\bn(\d{7})-", line)[1]) for line in found]


def wait_until(holds):
    give_up = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_kill_9_under_load_loses_nothing_acknowledged(tmp_path):
    """After kill -9 in the middle of writing, rotating and packing, all that was acknowledged is there."""
    acknowledged = set()
    lock = threading.Lock()
    counter = iter(range(0, 10_000_000, 20))

    def client(address, stop):
        while not stop.is_set():
            with lock:
                first = next(counter)
            numbers = range(first, first + 20)
            if not send(address, numbers):
                return
            with lock:
                acknowledged.update(numbers)

    for life in range(3):
        with collector(tmp_path) as running:
            running.wait_for(READY)
            address = running.address("receivers::otlp", "http")
            stop = threading.Event()
            clients = [threading.Thread(target=client, args=(address, stop)) for _ in range(3)]
            goal = len(acknowledged) + 400 + 150 * life
            for each in clients:
                each.start()
            wait_until(lambda goal=goal: len(acknowledged) >= goal)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
            stop.set()
            for each in clients:
                each.join()
    logs = tmp_path / "logs"
    even = {number for number in acknowledged if number % 2 == 0}
    with collector(tmp_path) as running:
        running.wait_for(READY)
        wait_until(lambda: acknowledged <= set(numbers_of(logs, "lines") or ()))
        wait_until(lambda: even <= set(numbers_of(logs, "even") or ()))
        wait_until(lambda: acknowledged <= set(numbers_of(logs, "small") or ()))
        assert running.stop() == 0
    assert set(numbers_of(logs, "rest")) == set()
    assert all(number % 2 == 0 for number in numbers_of(logs, "even"))
    for line in lines(logs, "even"):
        assert set(json.loads(line)) >= {"message", "timestamp", "_id"}
    found = numbers_of(logs, "lines")
    print(f"acknowledged {len(acknowledged)}, stored {len(set(found))}, lines {len(found)}")


def healthy(address):
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().status == 200


def test_a_full_disk_stops_the_cursor_and_not_the_collector(tmp_path):
    """R5: lines wait in the queue, others go on, nothing is lost or doubled, and it resumes by itself."""
    logs = tmp_path / "logs"
    with collector(tmp_path) as running:
        running.wait_for(READY)
        address = running.address("receivers::otlp", "http")
        health = running.address("extensions::health_check", "http")
        soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
        # No file may grow beyond 256 KiB: for the files of lines that is a full disk, and not for
        # the others, which are small.
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (256 << 10, hard))
        for first in range(0, 300, 10):
            assert send(address, range(first, first + 10))
        running.wait_for("Will retry the request after interval: cannot write to logs/lines.log")
        wait_until(lambda: len(set(numbers_of(logs, "lines") or ())) >= 50)
        assert healthy(health)
        assert send(address, range(300, 310), size=1)
        assert max((logs / name).stat().st_size for name in ("lines.log", "even.log")) <= 256 << 10
        assert set(numbers_of(logs, "lines")) < set(range(310))
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        wait_until(lambda: len(numbers_of(logs, "lines") or ()) >= 310)
        wait_until(lambda: len(numbers_of(logs, "even") or ()) >= 155)
        assert running.stop() == 0
    assert sorted(numbers_of(logs, "lines")) == list(range(310))
    assert sorted(numbers_of(logs, "even")) == list(range(0, 310, 2))
    assert not list(logs.glob("*.torn"))
