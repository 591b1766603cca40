"""
Collectors that are forked from a process which has done the imports: real ones, ready in 50 ms.

Starting Python and importing is most of what a collector's start costs. A test that kills dozens of
them starts some as a user does (`tests.programs.Collector`) and the others here: the same command
line, the same process of its own, killed and waited for by the same system calls.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORKER = """
import json, os, sys
import collector.exporters.file.exporter, collector.receivers.otlp.receiver, collector.service.service
import collector.stores.sqlite.store, collector.wal.storage, collector.cli.run
from collector.cli import main
from tests.servers import die_with_parent

print("ready", flush=True)
for line in sys.stdin:
    folder, log, arguments = json.loads(line)
    pid = os.fork()
    if not pid:
        try:
            die_with_parent()
            os.chdir(folder)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            os.dup2(2, 1)
            os._exit(main(arguments))
        finally:
            os._exit(99)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forker:
    """A process that starts collectors, one at a time."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()  # it ends with its input, and a collector ends with it
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def start(self, folder, config):
        """A collector that runs in a folder; the one before must have ended."""
        return Forked(self.process, folder, config)


class Forked:
    """One collector of a `Forker`, with the part of `Collector` that the tests here need."""

    def __init__(self, forker, folder, config):
        self.forker = forker
        self.log = Path(folder) / "collector.log"
        self.log.unlink(missing_ok=True)
        words = [str(folder), str(self.log), [f"--config={config}"]]
        forker.stdin.write(json.dumps(words) + "\n")
        forker.stdin.flush()
        self.pid = int(forker.stdout.readline())
        self.running = True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.running:
            self.stop(signal.SIGKILL)

    def wait_for(self, text):
        """Wait until the log has a text."""
        deadline = time.monotonic() + 60
        while text not in (found := self.text):
            assert time.monotonic() < deadline, found
            time.sleep(0.002)

    def stop(self, number=signal.SIGTERM):
        """Send a signal and wait; the exit code."""
        os.kill(self.pid, number)
        self.running = False
        return int(self.forker.stdout.readline())

    @property
    def text(self):
        return self.log.read_text() if self.log.exists() else ""
