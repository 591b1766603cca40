"""Our own programs as real processes, for end-to-end tests."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "otel-collector.yaml"
READY = "Everything is ready. Begin running and processing data."
FREE_PORTS = (
    "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
    "receivers.otlp.protocols.http.endpoint=127.0.0.1:0",
    "extensions.health_check.endpoint=127.0.0.1:0",
    "extensions.query.endpoint=127.0.0.1:0",
    "service.telemetry.metrics.readers=[{pull: {exporter: {prometheus: {port: 0}}}}]",
)


class Collector:
    """A collector process whose stderr is read line by line."""

    def __init__(
        self, folder, *arguments, sets=FREE_PORTS, config=SHIPPED, program=None, **environ
    ):
        words = [f"--set={each}" for each in sets]
        words += [f"--config={config}"] if config else []
        self.lines = []
        self.news = threading.Condition()
        self.process = subprocess.Popen(
            [*(program or [sys.executable, "-m", "collector"]), *words, *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **environ},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.lines.append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.lines.append("<end>")
            self.news.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()

    def wait_for(self, text):
        """The first line that contains the text."""

        def found():
            return next((line for line in self.lines if text in line), None)

        with self.news:
            self.news.wait_for(lambda: found() or "<end>" in self.lines, timeout=60)
            line = found()
        assert line, f"no line with {text!r} in:\n" + "\n".join(self.lines)
        return line

    def address(self, component, protocol):
        """Where a component listens, from the start banner."""
        banner = self.wait_for(f"{component}: ")
        return re.search(rf"\b{protocol} ([0-9.]+:[0-9]+)", banner)[1]

    def stop(self, number=signal.SIGTERM):
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self):
        code = self.process.wait(60)
        self.reader.join()
        return code

    @property
    def text(self):
        return "\n".join(line for line in self.lines if line != "<end>")
