"""Starts tests/telemetry/batch/program.py and reads what it leaves behind."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "program.py"
TERMINAL = ("success", "failure", "timeout", "skip")


class Batch:
    """One batch over several runs: its files in a folder, its processes one after the other."""

    def __init__(self, folder):
        self.folder = folder
        self.journal = folder / "leads.jsonl"
        self.progress = folder / "progress.json"
        self.ledger = folder / "ledger"
        self.report_file = folder / "report.json"
        self.processes = []

    def start(self, items=20, **options):
        """Start the program; ended by the fixture if the test does not."""
        given = {
            "items": items,
            "journal": str(self.journal),
            "progress": str(self.progress),
            "ledger": str(self.ledger),
            "report": str(self.report_file),
            **options,
        }
        self.report_file.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(given)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.processes.append(process)
        return process

    def run(self, items=20, **options):
        """Start the program and wait for its end; gives the exit code."""
        return self.end(self.start(items, **options))

    def end(self, process):
        """Wait for the end of a process; its streams are kept on the batch."""
        self.stdout, self.stderr = process.communicate(timeout=60)
        return process.returncode

    @property
    def report(self):
        return json.loads(self.report_file.read_text())

    def lines(self):
        """The whole lines of the journal."""
        if not self.journal.exists():
            return []
        whole = self.journal.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def terminal(self):
        """Key -> number of terminal records."""
        return collections.Counter(
            line["key"]
            for line in self.lines()
            if line["type"] == "item" and line["outcome"] in TERMINAL
        )

    def noted(self, word):
        """Key -> how often the handler wrote this word."""
        if not self.ledger.exists():
            return collections.Counter()
        pairs = [line.split() for line in self.ledger.read_text().splitlines()]
        return collections.Counter(key for said, key in pairs if said == word)

    def wait_for(self, condition, seconds=30):
        """Poll until the condition holds."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                pytest.fail("the batch did not get there")
            time.sleep(0.002)


@pytest.fixture
def batch(tmp_path):
    running = Batch(tmp_path)
    yield running
    for process in running.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
