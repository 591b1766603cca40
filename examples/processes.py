"""
Programs that belong together: started as process groups, watched, and ended.

Each one is a group of its own, so Ctrl-C reaches this program alone, and ending a group ends what its
program has started. Should this process be killed, Linux ends its children.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

BIN = Path(sys.executable).parent
START_S, STOP_S, EXAMPLE_S = 90.0, 20.0, 180.0


class Failed(Exception):
    """Something did not start; the sentence for the user."""


def end_with_parent() -> None:
    """Let Linux end this process when the demo is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Stack:
    """
    The processes of the demo.

    Args:
        folder: for their files and logs.
        ports: where they listen.
    """

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, name: str) -> str:
        """Where one of them answers."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, name: str, command: list[str], **environ: str) -> subprocess.Popen[bytes]:
        """Start a program as a process group of its own; what it prints goes into `<name>.log`."""
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("OTEL_", "TELEMETRY_", "LOG_", "CELERY_", "OTELIER_", "REDIS_"))
        }
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**clean, "PATH": path, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; no thread runs here
            )
        self._running[name] = process
        return process

    def wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        """Return when a program is ready."""
        end = time.monotonic() + START_S
        while not ready():
            code = self._running[name].poll()
            if code is not None or time.monotonic() > end:
                how = f"ended with {code}" if code is not None else f"is not ready in {START_S:g} s"
                raise Failed(
                    f"{name} {how}; the end of {self.folder / name}.log:\n{self._log(name)}"
                )
            time.sleep(0.1)

    def finish(self, name: str) -> None:
        """Wait until an example has ended."""
        process = self._running[name]
        try:
            code = process.wait(EXAMPLE_S)
        except subprocess.TimeoutExpired:
            raise Failed(
                f"{name} does not end within {EXAMPLE_S:g} s:\n{self._log(name)}"
            ) from None
        if code:
            raise Failed(f"{name} ended with {code}:\n{self._log(name)}")
        del self._running[name]

    def ended(self) -> str | None:
        """The name of a program that ended by itself."""
        return next((n for n, each in self._running.items() if each.poll() is not None), None)

    def stop(self) -> None:
        """Ask every process group to end, the senders before those that they send to."""
        for name, process in reversed(self._running.items()):
            signal_group(process, signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                print(f"{name} does not end by itself: killed", flush=True)
            signal_group(process, signal.SIGKILL)  # what it may have left behind
            process.wait()
        self._running.clear()

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-1500:]


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and its children; the group is gone when all of them are."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def answers(url: str) -> bool:
    """Whether there is a 200."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
            return True
    except (urllib.error.URLError, OSError):
        return False


def is_used(port: int) -> bool:
    """Whether a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(names: Iterable[str]) -> dict[str, int]:
    """A free port for each name; all are held until the last is found, so that none comes twice."""
    probes = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    found = {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return found
