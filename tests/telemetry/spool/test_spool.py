"""Spool files: what is written outlives the process, and exactly one other process delivers it."""

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry._export.queue import ExportQueue, Outcome, Result
from telemetry._spool import file as _spool
from telemetry._spool.file import SpoolFile, Unit
from telemetry._spool.replay import Replay
from telemetry._spool.spool import Spool

FAR = 60.0


def units(path):
    return [(unit.signal, unit.body, unit.records) for unit in _spool.peek(path)[0].units]


def test_a_file_is_what_the_format_says(tmp_path):
    """Magic, then frames: length, CRC-32, kind, signal, records, id, time, payload; little endian."""
    file = SpoolFile.create(tmp_path, "a shop/1")
    file.request("logs", 3, b"body")
    file.name(_spool.DONE, (1,))
    file.close()
    (path,) = _spool.files(tmp_path)
    assert path.name.startswith(f"a-shop-1.{os.getpid()}.")
    assert path.stat().st_mode & 0o777 == 0o600
    data = path.read_bytes()
    assert data[:8] == b"OTSPOOL1"
    frames, position = [], 8
    while position < len(data):
        length, crc = struct.unpack_from("<II", data, position)
        assert zlib.crc32(data[position + 8 : position + 32 + length]) == crc
        kind, line, zero, records, number, when = struct.unpack_from("<BBHIQQ", data, position + 8)
        assert (zero, abs(time.time_ns() - when) < 60e9) == (0, True)
        payload = data[position + 32 : position + 32 + length]
        frames.append((kind, line, records, number, payload))
        position += 32 + length
    assert position == len(data)
    meta = json.loads(frames[0][4])
    assert (meta["service"], meta["pid"]) == ("a shop/1", os.getpid())
    assert [frame[:4] for frame in frames] == [(0, 0, 0, 0), (1, 3, 3, 1), (3, 0, 0, 2)]
    assert (frames[1][4], frames[2][4]) == (b"body", struct.pack("<Q", 1))


def test_sealed_requests_are_one_request_and_done_ones_are_none(tmp_path):
    """What was sent together is sent again together, with the same bytes; what is done is not."""
    file = SpoolFile.create(tmp_path, "shop")
    ids = [file.request("logs", 1, f"<{number}>".encode()) for number in range(7)]
    file.name(_spool.SEAL, (ids[1], ids[2], ids[3], ids[4]))
    file.name(_spool.SEAL, (ids[1], ids[2]))  # the batch was too large, and was halved
    file.name(_spool.SEAL, (ids[3], ids[4]))
    file.name(_spool.DONE, (ids[1], ids[2]))
    file.name(_spool.DONE, (ids[6],))
    file.close()
    assert units(file.path) == [
        ("logs", b"<0>", 1),
        ("logs", b"<3><4>", 2),
        ("logs", b"<5>", 1),
    ]


def test_a_torn_tail_is_cut_off_and_damage_costs_one_frame(tmp_path):
    """A half-written frame is no news; a wrong CRC in the middle is skipped and counted."""
    file = SpoolFile.create(tmp_path, "shop")
    ends = [file.size]
    for number in range(3):
        file.request("traces", 1, f"body {number}".encode())
        ends.append(file.size)
    file.close()
    whole = file.path.read_bytes()
    for cut in range(ends[-1]):
        content = _spool.parse(whole[:cut])
        kept = sum(end <= cut for end in ends[1:])
        assert ([unit.body for unit in content.units], content.bad) == (
            [f"body {number}".encode() for number in range(kept)],
            1 if 0 < cut < 8 else 0,
        )
    damaged = bytearray(whole)
    damaged[ends[1] + 33] ^= 1
    content = _spool.parse(bytes(damaged))
    assert ([unit.body for unit in content.units], content.bad) == ([b"body 0", b"body 2"], 1)
    file.path.write_bytes(whole[:-1])
    adopted, content = SpoolFile.adopt(file.path)
    assert file.path.stat().st_size == ends[2]  # so that what is appended can be read
    adopted.name(_spool.DONE, content.units[0].ids)
    adopted.close()
    assert units(file.path) == [("traces", b"body 1", 1)]


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_can_be_read(noise, position):
    """Whatever stands in a file, reading it ends with what is sound."""
    sound = _spool.MAGIC + _spool.frame(_spool.REQUEST, 3, 1, 1, b"x" * 20)
    _spool.parse(noise)
    _spool.parse(sound[:position] + noise + sound[position:])
    assert [unit.body for unit in _spool.parse(sound + noise).units][:1] == [b"x" * 20]


def test_exactly_one_owner(tmp_path):
    """A file has an owner until that process ends or lets go; the next one is the only one."""
    file = SpoolFile.create(tmp_path, "shop")
    assert SpoolFile.adopt(file.path) is None
    assert _spool.peek(file.path)[1] is True
    file.close()
    first = SpoolFile.adopt(file.path)
    assert (first is not None, SpoolFile.adopt(file.path)) == (True, None)
    first[0].remove()
    assert (SpoolFile.adopt(file.path), _spool.files(tmp_path)) == (None, [])


def test_links_and_strangers_are_left_alone(tmp_path):
    """A symbolic link is not followed, and a file of something else is not delivered."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "a.spool").symlink_to(elsewhere)
    assert _spool.files(folder) == []
    assert SpoolFile.adopt(folder / "a.spool") is None
    assert _spool.parse(b"something else").units == []


class OtlpEncoder:
    """An Export that keeps requests and answers as told."""

    target = "memory"

    def __init__(self, answer=None):
        self.answer = answer or Outcome(Result.DELIVERED)
        self.bodies = []

    def __call__(self, batch, deadline):
        raise AssertionError("with a spool, what is sent was encoded before")

    def send(self, body, deadline):
        if self.answer.result is Result.DELIVERED:
            self.bodies.append(body)
        return self.answer

    def close(self):
        pass


def encode(items):
    """Refuses what is bad, as the real encoders do."""
    if "bad" in items:
        raise ValueError("bad")
    return b"".join(f"<{item}>".encode() for item in items)


def spool_in(folder, *, through=False, max_bytes=10_000_000):
    return Spool(
        folder, service="shop", max_bytes=max_bytes, through=through, encode={"logs": encode}
    )


def queue_to(wire, spool, **options):
    return ExportQueue("logs", lambda: wire, spool=spool, **options)


def end(queue, spool):
    queue.close_soon(time.monotonic() + FAR, time.monotonic() + FAR)
    queue.close()
    spool.close()


AWAY = Outcome(Result.UNREACHABLE, "refused")


def test_what_cannot_be_sent_at_exit_is_on_disk(tmp_path):
    """Queue and flight go to the spool in the order of emission, and the ledger adds up (G12)."""
    spool = spool_in(tmp_path)
    queue = queue_to(OtlpEncoder(AWAY), spool, batch_size=2, delay_s=FAR)
    for item in [0, 1, "bad", 3, 4]:
        queue.put(item, 1)
    end(queue, spool)
    assert queue.report() == {
        "produced": 5,
        "exported": 0,
        "pending": 0,
        "dropped": {"conversion_error": 1},
        "spooled": 4,
    }
    (path,) = _spool.files(tmp_path)
    assert sorted(units(path)) == [
        ("logs", b"<0><1>", 2),
        ("logs", b"<3>", 1),
        ("logs", b"<4>", 1),
    ]


def test_a_full_queue_sheds_its_oldest_to_disk(tmp_path):
    """With the collector away nothing is dropped while the spool has room; all of it is there."""
    spool = spool_in(tmp_path)
    queue = queue_to(OtlpEncoder(AWAY), spool, queue_size=64, batch_size=8, delay_s=0.001)
    spool.serve(queue.shed)
    for number in range(2000):
        queue.put(number, 1)
        while queue.report()["pending"] >= 50:
            time.sleep(0.001)  # a program has other things to do, too
    end(queue, spool)
    assert queue.report() == {
        "produced": 2000,
        "exported": 0,
        "pending": 0,
        "dropped": {},
        "spooled": 2000,
    }
    found = [body for path in _spool.files(tmp_path) for _, body, _ in units(path)]
    numbers = [int(part) for body in found for part in body.decode().strip("<>").split("><")]
    assert sorted(numbers) == list(range(2000))


def test_a_full_spool_refuses_what_is_new(tmp_path):
    """The folder keeps to its bound; what has no room is counted as lost, as without a spool."""
    spool = spool_in(tmp_path, max_bytes=2_000)
    queue = queue_to(OtlpEncoder(AWAY), spool, batch_size=1, delay_s=FAR)
    for number in range(200):
        queue.put(number, 1)
    end(queue, spool)
    report = queue.report()
    assert _spool.used_bytes(tmp_path) <= 2_000 + 300  # a file's first frame is not counted ahead
    assert 0 < report["spooled"] < 200
    assert report["dropped"] == {"export_failed": 200 - report["spooled"]}


def test_a_folder_that_cannot_be_written_costs_what_it_would_without(tmp_path, capsys):
    """No exception, one line that names the folder, and the loss is counted by its reason."""
    (tmp_path / "file").write_text("")
    spool = spool_in(tmp_path / "file" / "spool")
    queue = queue_to(OtlpEncoder(AWAY), spool, delay_s=FAR)
    queue.put(1, 1)
    end(queue, spool)
    assert queue.report()["dropped"] == {"export_failed": 1}
    assert "cannot be written" in capsys.readouterr().err


def replay_of(spool, queue, wire, max_age_s=FAR):
    return Replay(
        spool,
        queues={"logs": queue},
        makers={"logs": lambda: wire},
        timeout_s=FAR,
        max_age_s=max_age_s,
    )


def wait_for(ready):
    while not ready():
        time.sleep(0.01)


def test_own_spilled_records_are_delivered_when_the_collector_is_back(tmp_path):
    """They return to the ledger as exported, and the files go."""
    spool = spool_in(tmp_path)
    wire = OtlpEncoder(AWAY)
    queue = queue_to(wire, spool, delay_s=FAR)
    for number in range(4):
        queue.put(number, 1)
    queue.set_aside()
    assert queue.report()["spooled"] == 4
    wire.answer = Outcome(Result.DELIVERED)
    replay = replay_of(spool, queue, wire)
    replay.start()
    wait_for(lambda: queue.report()["spooled"] == 0)
    replay.close()
    assert queue.report() == {
        "produced": 4,
        "exported": 4,
        "pending": 0,
        "dropped": {},
        "spooled": 0,
    }
    assert wire.bodies == [b"<0><1><2><3>"]
    wait_for(lambda: _spool.files(tmp_path) == [])
    end(queue, spool)


def orphan(folder, *bodies):
    file = SpoolFile.create(folder, "before")
    for body in bodies:
        file.request("logs", 1, body)
    file.close()
    return file.path


def test_orphans_are_delivered_in_order_and_counted_apart(tmp_path):
    """What earlier processes left is delivered with the same bytes, oldest first, and deleted."""
    orphan(tmp_path, b"<a>", b"<b>")
    orphan(tmp_path, b"<c>")
    spool, wire = spool_in(tmp_path), OtlpEncoder()
    queue = queue_to(wire, spool)
    replay = replay_of(spool, queue, wire)
    replay.start()
    wait_for(lambda: _spool.files(tmp_path) == [])
    replay.close()
    assert wire.bodies == [b"<a>", b"<b>", b"<c>"]
    assert replay.adopted == {"logs": {"exported": 3, "dropped": {}}}
    assert queue.report()["produced"] == 0
    end(queue, spool)


@pytest.mark.parametrize(
    ("answer", "max_age_s", "dropped"),
    [
        (Outcome(Result.REFUSED, "400"), FAR, {"export_failed": 2}),
        (Outcome(Result.TOO_LARGE, "413"), FAR, {"too_large": 2}),
        (Outcome(Result.DELIVERED), 1e-6, {"spool_expired": 2}),
    ],
)
def test_what_nobody_takes_is_dropped_and_counted(tmp_path, answer, max_age_s, dropped):
    """A refusal and too great an age are final: the file goes, the loss is counted."""
    orphan(tmp_path, b"<a>", b"<b>")
    spool = spool_in(tmp_path)
    queue = queue_to(OtlpEncoder(answer), spool)
    replay = replay_of(spool, queue, OtlpEncoder(answer), max_age_s)
    replay.start()
    wait_for(lambda: _spool.files(tmp_path) == [])
    replay.close()
    assert replay.adopted == {"logs": {"exported": 0, "dropped": dropped}}
    end(queue, spool)


def test_an_orphan_stays_while_the_collector_is_away(tmp_path):
    """Nothing is lost by a failed try: the file and all that is in it stay for the next one."""
    path = orphan(tmp_path, b"<a>", b"<b>")
    tried = []

    class Busy(OtlpEncoder):
        def send(self, body, deadline):
            tried.append(body)
            return Outcome(Result.RETRY, "503")

    spool = spool_in(tmp_path)
    queue = queue_to(Busy(), spool)
    replay = replay_of(spool, queue, Busy())
    replay.start()
    wait_for(lambda: tried)
    replay.close()
    wait_for(lambda: not _spool.peek(path)[1])
    assert units(path) == [("logs", b"<a>", 1), ("logs", b"<b>", 1)]
    end(queue, spool)


def test_write_through_has_each_record_on_disk_before_the_call_returns(tmp_path):
    """A record is in the file when `put` is over, marked when delivered; the file goes at the end."""
    spool, wire = spool_in(tmp_path, through=True), OtlpEncoder()
    queue = queue_to(wire, spool, delay_s=FAR)
    queue.put(1, 1)
    queue.put(2, 1)
    (path,) = _spool.files(tmp_path)
    assert units(path) == [("logs", b"<1>", 1), ("logs", b"<2>", 1)]
    assert queue.flush(time.monotonic() + FAR)
    assert units(path) == []
    assert wire.bodies == [b"<1><2>"]
    queue.put("bad", 1)
    queue.put(3, 1)
    assert units(path) == [("logs", b"<3>", 1)]
    end(queue, spool)
    assert queue.report() == {
        "produced": 4,
        "exported": 3,
        "pending": 0,
        "dropped": {"conversion_error": 1},
        "spooled": 0,
    }
    assert _spool.files(tmp_path) == []


def test_what_was_being_sent_is_sent_again_with_the_same_bytes(tmp_path):
    """Killed between the sending and the mark: the next process repeats the request as it was."""
    spool = spool_in(tmp_path, through=True)
    reached = []

    class Late(OtlpEncoder):
        def send(self, body, deadline):
            reached.append(body)  # the collector has it, and the answer is lost
            return AWAY

    queue = queue_to(Late(), spool, delay_s=FAR, batch_size=3)
    for number in range(5):
        queue.put(number, 1)
    end(queue, spool)
    assert reached[0] == b"<0><1><2>"
    (path,) = _spool.files(tmp_path)
    again = [unit.body for unit in SpoolFile.adopt(path)[1].units]
    assert again == [b"<0><1><2>", b"<3>", b"<4>"]
    assert queue.report()["spooled"] == 5


def test_a_child_lets_go_of_its_parents_files(tmp_path):
    """A fork does not keep a file locked after its owner's death, and does not write to it."""
    script = f"""
    import os, signal, time
    from pathlib import Path
    from telemetry._spool.spool import Spool
    spool = Spool(Path({str(tmp_path)!r}), service="s", max_bytes=10**6, through=False,
                  encode={{"logs": lambda items: b"x"}})
    spool.keep("logs", b"parent", 1)
    child = os.fork()
    if child == 0:
        os.close(1)
        time.sleep(600)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, check=False
    )
    child = int(done.stdout)
    try:
        (path,) = _spool.files(tmp_path)
        adopted, content = SpoolFile.adopt(path)
        assert content.units == [
            Unit("logs", b"parent", 1, (1,), content.units[0].written_ns),
        ]
        adopted.close()
    finally:
        os.kill(child, signal.SIGKILL)


# --- whole processes ---

EMIT = """
    import os, signal, sys, telemetry
    logger = telemetry.get_logger("app")
    with telemetry.span("work"):
        for number in range(3):
            logger.info(f"record {number}")
"""


def test_the_next_process_delivers_what_the_last_one_could_not(run, receiver, refused, tmp_path):
    """Collector down at exit, up at the next start: all signals arrive, once, and are told of."""
    folder = str(tmp_path / "spool")
    done = run(
        EMIT,
        wrapped=True,
        endpoint=refused,
        TELEMETRY_SPOOL_DIR=folder,
        TELEMETRY_REPORT="1",
        LOG_FORMAT="none",
        OTEL_LOG_LEVEL="error",
    )
    assert done.stderr == (
        "otelier: report: 1 spans = 1 spooled; 3 log records = 3 spooled; 0 metric points = 0\n"
    )
    code = """
    import os, time, telemetry
    telemetry.get_logger("app").info("second")
    while os.listdir(os.environ["TELEMETRY_SPOOL_DIR"]):
        time.sleep(0.01)
    """
    done = run(
        code,
        wrapped=True,
        endpoint=receiver.url,
        TELEMETRY_SPOOL_DIR=folder,
        TELEMETRY_REPORT="1",
        LOG_FORMAT="none",
    )
    assert sorted(receiver.messages) == ["record 0", "record 1", "record 2", "second"]
    assert [span["name"] for span in receiver.spans] == ["work"]
    assert done.stderr == (
        "otelier: report: 0 spans = 0 (adopted: 1 exported, 0 dropped);"
        " 1 log records = 1 exported (adopted: 3 exported, 0 dropped); 0 metric points = 0\n"
    )


def test_sigkill_right_after_the_span(run, receiver, black_hole, tmp_path):
    """In write-through mode what had ended before a SIGKILL is delivered by the next process."""
    folder = str(tmp_path / "spool")
    code = f"""
    {EMIT}
    os.kill(os.getpid(), signal.SIGKILL)
    """
    env = {"TELEMETRY_SPOOL_DIR": folder, "TELEMETRY_SPOOL_WRITE_THROUGH": "true"}
    for _ in range(2):
        done = run(code, wrapped=True, endpoint=black_hole, check=False, LOG_FORMAT="none", **env)
        assert done.returncode == -signal.SIGKILL
    code = """
    import os, time, telemetry
    telemetry.get_logger("app").debug("nothing")
    with telemetry.span("starter"):
        pass
    while os.listdir(os.environ["TELEMETRY_SPOOL_DIR"]):
        telemetry.flush()
        if len(os.listdir(os.environ["TELEMETRY_SPOOL_DIR"])) == 1:
            break
        time.sleep(0.01)
    """
    run(code, wrapped=True, endpoint=receiver.url, LOG_FORMAT="none", **env)
    assert sorted(receiver.messages) == sorted([f"record {number}" for number in range(3)] * 2)
    assert sorted(span["name"] for span in receiver.spans) == ["starter", "work", "work"]
    assert list(Path(folder).iterdir()) == []


def test_processes_at_once_deliver_each_file_once(run, receiver, refused, tmp_path):
    """Several processes that start together share the orphans out; nothing arrives twice (R18)."""
    folder = str(tmp_path / "spool")
    code = """
    import os, telemetry
    telemetry.configure(log_format="none", diagnostics="none")
    for number in range(12):
        if os.fork() == 0:
            telemetry.get_logger("app").info(f"child {number}")
            telemetry.shutdown()
            os._exit(0)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    """
    run(code, endpoint=refused, TELEMETRY_SPOOL_DIR=folder)
    assert len(list(Path(folder).iterdir())) == 12
    code = """
    import os, time, telemetry
    telemetry.configure(log_format="none")
    for _ in range(3):
        if os.fork() == 0:
            telemetry.get_logger("app").info("adopter")
            while os.listdir(os.environ["TELEMETRY_SPOOL_DIR"]):
                time.sleep(0.01)
            telemetry.shutdown()
            os._exit(0)
    for _ in range(3):
        assert os.wait()[1] == 0
    """
    run(code, endpoint=receiver.url, TELEMETRY_SPOOL_DIR=folder)
    expected = [*(f"child {number}" for number in range(12)), *["adopter"] * 3]
    assert sorted(receiver.messages) == sorted(expected)


def test_an_outage_longer_than_the_queue_loses_nothing(run, receiver, tmp_path):
    """More records than the queue holds while the collector answers 503: all arrive, once each."""
    receiver.answers.extend([(503, {"Retry-After": "1"}, b"")] * 2)
    code = """
    import json, time, telemetry
    telemetry.configure(log_queue_size=64, log_batch_size=16, log_delay_ms=1, log_format="none",
                        metrics_exporter="none")
    logger = telemetry.get_logger("app")
    for number in range(600):
        logger.info("record", number=number)
        while telemetry.report()["logs"]["pending"] > 48:
            time.sleep(0.001)
    most = telemetry.report()["logs"]
    while (now := telemetry.report()["logs"])["spooled"] or now["pending"]:
        telemetry.flush(0.1)
        time.sleep(0.05)
    print(json.dumps([most["spooled"] > 0, now]))
    """
    done = run(code, endpoint=receiver.url, TELEMETRY_SPOOL_DIR=str(tmp_path / "spool"))
    assert json.loads(done.stdout) == [
        True,
        {"produced": 600, "exported": 600, "pending": 0, "dropped": {}, "spooled": 0},
    ]
    numbers = [log["attributes"]["number"] for log in receiver.logs]
    assert sorted(numbers) == list(range(600))
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spool_that_cannot_work_is_said(run, refused, tmp_path):
    """Over gRPC there is no spool: one line says so, and the program runs."""
    done = run(
        "import telemetry; telemetry.configure()",
        endpoint=refused,
        TELEMETRY_SPOOL_DIR=str(tmp_path / "spool"),
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    )
    assert done.stderr == (
        "otelier: TELEMETRY_SPOOL_DIR has no effect: the spool needs OTLP over http/protobuf\n"
    )
    assert not Path(tmp_path / "spool").exists()


def test_a_loss_becomes_a_metric(run, receiver):
    """From its first loss on a process sends what became of its records: they add up (G04)."""
    code = """
    import telemetry
    telemetry.configure(log_format="none", diagnostics="none")
    logger = telemetry.get_logger("app")
    logger.info("refused")
    telemetry.flush()
    logger.info("taken")
    telemetry.flush()
    telemetry.flush()
    """
    receiver.answers.append((400, {}, b""))
    run(code, endpoint=receiver.url)
    last = {
        (name, labels.get("delivery.outcome"), labels.get("error.type")): value
        for name, labels, value in receiver.points
        if labels.get("delivery.signal") == "logs"
    }
    assert last["delivery.produced.records", None, None] == 2
    assert last["delivery.records", "delivered", None] == 1
    assert last["delivery.records", "dropped", "export_failed"] == 1
    assert last["delivery.unsent.records", None, None] == 0


def test_the_report_at_exit_is_there_in_debug(run, receiver):
    """OTEL_LOG_LEVEL=debug says it too; unasked, a process that lost nothing is quiet."""
    done = run(EMIT, wrapped=True, endpoint=receiver.url, OTEL_LOG_LEVEL="debug", LOG_FORMAT="none")
    assert (
        "otelier: report: 1 spans = 1 exported; 3 log records = 3 exported; 0 metric points = 0"
        in done.stderr.splitlines()
    )
    assert run(EMIT, wrapped=True, endpoint=receiver.url, LOG_FORMAT="none").stderr == ""


def test_a_worker_that_will_be_killed_sets_aside_what_it_could_not_send(run, refused, tmp_path):
    """A Celery child flushes, spools the rest and leaves by os._exit: nothing is lost (C12)."""
    code = """
    import os, telemetry
    from telemetry.instrumentation._celery import lifecycle
    telemetry.configure(log_format="none", diagnostics="none")
    if os.fork() == 0:
        telemetry.get_logger("app").info("from the child")
        with telemetry.span("task"):
            pass
        lifecycle.process_shutdown()
        os._exit(0)
    assert os.wait()[1] == 0
    """
    folder = tmp_path / "spool"
    run(code, endpoint=refused, TELEMETRY_SPOOL_DIR=str(folder))
    (path,) = _spool.files(folder)
    assert sorted((signal, records) for signal, _, records in units(path)) == [
        ("logs", 1),
        ("traces", 1),
    ]


@pytest.mark.parametrize("through", ["false", "true"])
def test_secrets_do_not_reach_the_spool(run, refused, tmp_path, through):
    """What is written is what would be sent: redacted, in both modes."""
    code = """
    import telemetry
    telemetry.configure(log_format="none", diagnostics="none")
    telemetry.get_logger("app").info("login", password="hunter2-secret", user="kept-value")
    with telemetry.span("login", password="hunter2-secret", user="kept-value"):
        pass
    """
    folder = tmp_path / "spool"
    env = {"TELEMETRY_SPOOL_DIR": str(folder), "TELEMETRY_SPOOL_WRITE_THROUGH": through}
    run(code, endpoint=refused, **env)
    found = b"".join(path.read_bytes() for path in _spool.files(folder))
    assert (found.count(b"hunter2"), found.count(b"kept-value")) == (0, 2)
