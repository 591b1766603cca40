"""Signals, terminals and pipes: a batch as a process among others."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from telemetry.batch import BackgroundProcessor
from tests.telemetry.batch.conftest import PROGRAM


def started(batch, count, **options):
    process = batch.start(50, concurrency=count, **options)
    batch.wait_for(lambda: batch.noted("start").total() >= count)
    return process


@pytest.mark.parametrize(("given", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_drains(batch, given, code):
    """L2: the first signal starts nothing new and lets what runs finish."""
    process = started(batch, 4, sleep=0.3)
    process.send_signal(given)
    assert batch.end(process) == code
    told = batch.report
    assert told["interrupted"] == []
    assert batch.noted("start").total() == told["total"] - told["not_started"] == 4
    assert json.loads(batch.progress.read_text())["state"] == "finished"


def test_what_outlives_the_grace_time_is_cancelled(batch):
    """L2: running items get the grace time and no more; they are interrupted, not finished."""
    process = started(batch, 3, sleep=3600, grace=0.1)
    process.send_signal(signal.SIGTERM)
    assert batch.end(process) == 143
    assert sorted(batch.report["interrupted"]) == ["lead-0", "lead-1", "lead-2"]
    assert batch.terminal() == {}


def test_the_second_signal_cancels(batch):
    """L2: the second signal cancels what runs, at once; the next run works on it again."""
    process = started(batch, 3, sleep=3600)
    process.send_signal(signal.SIGTERM)
    batch.wait_for(
        lambda: (
            batch.progress.exists()
            and json.loads(batch.progress.read_text())["state"] == "draining"
        )
    )
    process.send_signal(signal.SIGTERM)
    assert batch.end(process) == 143
    told = batch.report
    assert sorted(told["interrupted"]) == ["lead-0", "lead-1", "lead-2"]
    assert told["cost"] == 1.5  # what was spent is told, though nothing came of it
    assert batch.run(50, sleep=0.0) == 0
    assert batch.terminal() == {f"lead-{number}": 1 for number in range(50)}


def test_a_handler_that_ignores_its_cancellation_is_left_behind(batch):
    """L2: a handler that swallows the cancellation cannot keep the process."""
    process = started(batch, 2, handler="deaf", grace=0.0)
    process.send_signal(signal.SIGINT)
    assert batch.end(process) == 130
    assert batch.report["abandoned"] == 2
    assert "Task was destroyed" not in batch.stderr


def test_a_thread_that_never_returns_is_left_behind(batch):
    """L2: a function that blocks for ever cannot keep the process either."""
    process = started(batch, 2, handler="blocking", grace=0.0)
    process.send_signal(signal.SIGTERM)
    assert batch.end(process) == 143
    assert batch.report["abandoned"] == 2


def test_the_third_signal_leaves_at_once(batch):
    """L2: the third signal ends the process even while a handler blocks the event loop."""
    process = started(batch, 1, handler="busy")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # pending signals of one kind merge
    assert batch.end(process) == 143
    assert not batch.report_file.exists()


def test_an_ignored_signal_stays_ignored(batch):
    """L8: a job that a script put in the background ignores Ctrl-C, as the shell has told it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started(batch, 2, sleep=0.2)
    finally:
        signal.signal(signal.SIGINT, before)
    process.send_signal(signal.SIGINT)
    batch.wait_for(lambda: len(batch.terminal()) >= 4)
    process.send_signal(signal.SIGTERM)
    assert batch.end(process) == 143


def test_handlers_are_restored(tmp_path):
    """L2: after a run the application's own signal handlers are in place again."""

    def own(*_):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        seen = []

        async def handler(item, ctx):
            seen.append(signal.getsignal(signal.SIGTERM))

        BackgroundProcessor("b", handler, key=str, display="off").run([1])
        assert signal.getsignal(signal.SIGTERM) is own
        assert seen[0] is not own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_lines_and_results_are_apart(batch):
    """L5: without a terminal stderr gets plain lines; stdout gets results and nothing else."""
    assert batch.run(5, results="-") == 0
    lines = [json.loads(line) for line in batch.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["item"] * 5 + ["summary"]
    assert {line["key"] for line in lines[:5]} == {f"lead-{number}" for number in range(5)}
    assert lines[5]["counts"]["success"] == 4
    assert "\x1b" not in batch.stderr
    assert "leads: 5/5 (100.0 %), finished: success" in batch.stderr


def test_without_results_stdout_is_empty(batch):
    """L5: nothing is written to stdout that nobody asked for."""
    assert batch.run(5) == 0
    assert batch.stdout == ""


def own_terminal():
    """Make stderr the terminal that this process is in the foreground of."""
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


def test_a_bar_on_a_terminal(batch):
    """L5: on a terminal stderr shows a bar, while stdout, a pipe, has only results."""
    leader, follower = pty.openpty()
    options = {
        "items": 10,
        "ledger": str(batch.ledger),
        "progress": str(batch.progress),
        "results": "-",
        "sleep": 0.02,
    }
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(options)],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        start_new_session=True,
        preexec_fn=own_terminal,  # noqa: PLW1509 - no thread runs here
    )
    batch.processes.append(process)
    os.close(follower)
    screen = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # the terminal's other side is closed
            break
        if not chunk:
            break
        screen += chunk
    out = process.stdout.read()
    process.wait()
    os.close(leader)
    assert process.returncode == 0
    assert "━".encode() in screen
    assert b"finished: success" in screen
    assert len(out.splitlines()) == 11


@pytest.mark.parametrize("streams", ["closed", "nohup"])
def test_no_terminal_at_all(batch, streams):
    """L8: a run needs no terminal: with nohup, in the background, with closed streams."""
    options = json.dumps({"items": 5, "ledger": str(batch.ledger), "journal": str(batch.journal)})
    shell = {
        "closed": '"$0" "$1" "$2" <&- >&- 2>&- &\nwait $!',
        "nohup": 'nohup "$0" "$1" "$2" >out.txt 2>&1 &\nwait $!',
    }[streams]
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, str(PROGRAM), options],
        cwd=batch.folder,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert batch.terminal() == {f"lead-{number}": 1 for number in range(5)}
    if streams == "nohup":
        assert "5/5 (100.0 %), finished: success" in (batch.folder / "out.txt").read_text()
