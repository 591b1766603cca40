"""The progress file, what stderr shows, and `telemetry progress`."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from telemetry._batch import progress as _progress
from telemetry._cli import progress as progress_cli
from telemetry.batch import BackgroundProcessor

FIELDS = {
    *("operation", "processed", "total", "percentage", "rate_per_second", "elapsed_seconds"),
    *("eta_seconds", "current_item", "timestamp"),
    *("schema", "run_id", "pid", "host", "state", "result", "counts", "resumed", "eta_range"),
    *("cost", "last_errors", "heartbeat"),
}


def run(folder, handler, items, **options):
    options = {"key": str, "display": "off", "progress_file": folder / "p.json", **options}
    report = BackgroundProcessor("leads", handler, **options).run(items)
    return report, json.loads((folder / "p.json").read_text())


async def picky(item, ctx):
    ctx.add_cost(0.5, 4, 2)
    if item == 3:
        raise ValueError("not three")


def test_the_finished_file(tmp_path):
    """L4: the file has the seed's fields, the state and the totals; it names nobody unasked."""
    report, told = run(tmp_path, picky, range(4))
    assert set(told) == FIELDS
    assert told["last_errors"][0].pop("timestamp").endswith("Z")
    for varying in ("rate_per_second", "elapsed_seconds", "timestamp", "heartbeat", "host"):
        assert told.pop(varying) is not None
    assert told == {
        "schema": 1,
        "operation": "leads",
        "run_id": report.run_id,
        "pid": os.getpid(),
        "state": "finished",
        "result": "success",
        "processed": 4,
        "total": 4,
        "percentage": 100.0,
        "eta_seconds": None,
        "eta_range": None,
        "current_item": None,
        "counts": {"success": 3, "failure": 1, "timeout": 0, "cancellation": 0, "skip": 0},
        "resumed": 0,
        "cost": {"amount": 2.0, "tokens_in": 16, "tokens_out": 8},
        "last_errors": [{"key": None, "error_type": "ValueError", "message": "not three"}],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_keys_are_shown_on_request(tmp_path):
    """L4: current_item and the keys of errors are there with `show_items`."""
    _, told = run(tmp_path, picky, range(4), show_items=True, concurrency=1)
    assert told["current_item"] == "3"
    assert told["last_errors"][0]["key"] == "3"


def test_the_file_is_whole_at_every_moment(tmp_path):
    """L4: a reader never sees half a file, nor none, while it is being replaced."""
    file = _progress.ProgressFile(tmp_path / "p.json")
    file.write({"number": 0, "pad": ""})
    over = threading.Event()
    seen = []

    def read():
        while not over.is_set():
            told = json.loads((tmp_path / "p.json").read_bytes())
            assert len(told["pad"]) == told["number"] * 97 % 5000
            seen.append(told["number"])

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(300):
        file.write({"number": number, "pad": "x" * (number * 97 % 5000)})
    over.set()
    thread.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_a_live_run_can_be_watched(tmp_path):
    """L4, L8: while it runs the file says so: state, share, and a heartbeat that moves."""
    seen = []

    async def handler(item, ctx):
        if item < 2:
            return
        for _ in range(100):
            await asyncio.sleep(0.05)
            told = json.loads((tmp_path / "p.json").read_text())
            if told["processed"] == 2 and told not in seen:
                seen.append(told)
            if len(seen) == 2:
                return
        pytest.fail("the file does not move")

    run(tmp_path, handler, range(3), concurrency=1)
    assert [told["state"] for told in seen] == ["running", "running"]
    assert seen[0]["percentage"] == 66.67
    assert seen[0]["heartbeat"] < seen[1]["heartbeat"]


def test_what_a_killed_process_left_is_swept(tmp_path):
    """L4: the temporary file of a process that was killed is removed by the next run."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".p.json.{gone.pid}.tmp").write_text("{")
    (tmp_path / f".p.json.{os.getppid()}.tmp").write_text("{")
    run(tmp_path, picky, range(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".p.json.{os.getppid()}.tmp",
        "p.json",
    ]


def test_a_progress_file_that_cannot_be_written(tmp_path, capfd):
    """L4: a progress file that cannot be written costs a line on stderr, not the run."""
    (tmp_path / "file").write_text("")

    async def handler(item, ctx):
        return item

    processor = BackgroundProcessor(
        "leads", handler, key=str, display="off", progress_file=tmp_path / "file" / "p.json"
    )
    assert processor.run(range(3)).exit_code == 0


def told(tmp_path, **changes):
    progress = {
        "schema": 1,
        "operation": "leads",
        "run_id": "leads-1",
        "pid": os.getpid(),
        "host": __import__("socket").gethostname(),
        "state": "running",
        "result": None,
        "processed": 250,
        "total": 500,
        "percentage": 50.0,
        "rate_per_second": 4.2,
        "elapsed_seconds": 59.5,
        "eta_seconds": 59.5,
        "eta_range": None,
        "current_item": None,
        "counts": {"success": 240, "failure": 10, "timeout": 0, "cancellation": 0, "skip": 0},
        "resumed": 0,
        "cost": {"amount": 1.25, "tokens_in": 0, "tokens_out": 0},
        "last_errors": [],
        "timestamp": "2025-07-06T10:31:15Z",
        "heartbeat": time.time(),
        **changes,
    }
    path = tmp_path / f"{progress['run_id']}.json"
    path.write_text(json.dumps(progress))
    return path


def shown(*arguments):
    result = CliRunner().invoke(progress_cli.progress, [str(part) for part in arguments])
    return result.exit_code, result.output


LINE = "leads: 250/500 (50.0 %), 4.2/s, eta 1 min 00 s, failure 10, cost 1.2500"


def test_the_command_shows_a_run(tmp_path):
    """L4: `telemetry progress FILE` says how far it is, how fast, and what went wrong."""
    error = {"key": "k", "error_type": "E", "message": "a\x1b[31m\nb", "timestamp": "T"}
    path = told(tmp_path, last_errors=[error])
    assert shown(path) == (0, LINE + "\n  T k E: a\\x1b[31m\\nb\n")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "draining"}, LINE.replace("4.2/s", "draining, 4.2/s")),
        ({"eta_range": [50.0, 130.0]}, LINE.replace("eta 1 min 00 s", "eta 50 s to 2 min 10 s")),
        (
            {"eta_seconds": None, "rate_per_second": 0.0},
            LINE.replace("4.2/s, eta 1 min 00 s", "0.0/s, stalled"),
        ),
        (
            {"total": None, "percentage": None, "eta_seconds": None},
            LINE.replace("250/500 (50.0 %)", "250/?").replace("eta 1 min 00 s", "eta unknown"),
        ),
    ],
)
def test_the_words_for_a_run(tmp_path, changes, line):
    """L4: draining, uncertain, stalled, and without a total."""
    assert shown(told(tmp_path, **changes)) == (0, line + "\n")


def test_a_dead_run_is_shown_as_dead(tmp_path):
    """L4: a run whose process is gone, or whose heartbeat is old, is dead, and the exit code is 1."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code, output = shown(told(tmp_path, pid=gone.pid))
    assert (code, output.count("dead"), f"pid {gone.pid} is gone" in output) == (1, 1, True)
    code, output = shown(told(tmp_path, heartbeat=time.time() - 90))
    assert (code, f"no heartbeat for 1 min 30 s, though pid {os.getpid()} exists" in output) == (
        1,
        True,
    )
    code, output = shown(told(tmp_path, host="elsewhere", heartbeat=time.time() - 7200))
    assert (code, "no heartbeat for 2 h 00 min;" in output) == (1, True)
    assert shown(told(tmp_path, host="elsewhere", pid=gone.pid))[0] == 0
    assert shown(told(tmp_path, state="finished", result="success", pid=gone.pid))[0] == 0
    assert shown(told(tmp_path, state="finished", result="partial", pid=gone.pid))[0] == 1


def test_a_folder_of_runs(tmp_path):
    """L4: a folder shows each run once, and leaves other files alone."""
    told(tmp_path, run_id="a", operation="first")
    told(tmp_path, run_id="b", operation="second")
    (tmp_path / "copy.json").write_text((tmp_path / "a.json").read_text())
    (tmp_path / "other.json").write_text('{"schema": 1}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    code, output = shown(tmp_path, "--json")
    assert code == 0
    assert [json.loads(line)["operation"] for line in output.splitlines()] == ["first", "second"]


def test_nothing_to_show_is_wrong_usage(tmp_path):
    """L4: a path without a progress file ends with 2 and names the fix."""
    code, output = shown(tmp_path)
    assert (code, "progress_file" in output) == (2, True)
    assert shown(tmp_path / "missing")[0] == 2


def test_following_ends_with_the_run(tmp_path):
    """L4: `--follow` prints each change until the run is finished."""
    path = told(tmp_path)

    def finish():
        told(tmp_path, processed=500, percentage=100.0, state="finished", result="success")

    timer = threading.Timer(0.3, finish)
    timer.start()
    code, output = shown(path, "--follow")
    timer.join()
    assert code == 0
    first, last = output.splitlines()
    assert first == LINE
    assert (
        last == "leads: 500/500 (100.0 %), finished: success, 1 min 00 s, failure 10, cost 1.2500"
    )


def test_watching_a_run_that_is_killed(batch):
    """L4, L8: a live run is shown as running, and as dead once it was killed."""
    process = batch.start(500, sleep=0.05)
    batch.wait_for(lambda: len(batch.terminal()) > 5)
    assert shown(batch.progress)[0] == 0
    process.kill()
    process.wait()
    code, output = shown(batch.progress)
    assert (code, "dead" in output) == (1, True)
