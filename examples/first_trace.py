"""
What `make run` does: start the collector, run the quickstart under the wrapper, show its trace.

The three commands are the ones that you would type; each is printed before it runs, as it works in
your shell: with the folder of the programs where that is not on PATH. The collector stays in the
foreground until Ctrl-C. A collector that runs already is used; a port that another program has is
named before anything starts.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
HEALTH = "http://127.0.0.1:13133"  # an address: a bare machine may not know localhost
QUERY = "http://127.0.0.1:4319"
PORTS = {
    4317: "receivers.otlp.protocols.grpc.endpoint",
    4318: "receivers.otlp.protocols.http.endpoint",
    4319: "extensions.query.endpoint",
    13133: "extensions.health_check.endpoint",
}
PROGRAMS = ("collector", "opentelemetry-instrument", "python")
START_S = 30


def typed(program: str) -> str:
    """How a program of this environment is called from a shell in the working folder."""
    here = BIN / program
    if shutil.which(program) == str(here):
        return program
    return str(here.relative_to(ROOT)) if here.is_relative_to(ROOT) else str(here)


def say(*command: str) -> list[str]:
    """Print a command as one would type it, and return it with the program's full path."""
    words = [typed(word) if word in PROGRAMS else word for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    return [str(BIN / command[0]), *command[1:]]


def is_used(port: int) -> bool:
    """Whether a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def collector_runs() -> bool:
    """Whether what answers is a collector of ours, with the ports of otel-collector.yaml."""
    try:
        with urllib.request.urlopen(HEALTH, timeout=2) as health:
            ready = b"Server available" in health.read(1000)
        with urllib.request.urlopen(QUERY, timeout=2) as answers:
            return ready and b"collector" in answers.read(10_000) and is_used(4318)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def name_taken(ports: list[int]) -> None:
    """Say which ports another program has, and what can be done, in commands that work."""
    print(f"\nin use by another program: {', '.join(map(str, ports))}. Either stop it; what it is:")
    print(f"    ss -ltnp 'sport = :{ports[0]}'")
    sets = " ".join(f"--set {PORTS[port]}=127.0.0.1:0" for port in ports)
    print("or run the collector on other ports; it prints which, for OTEL_EXPORTER_OTLP_ENDPOINT:")
    print(f"    {typed('collector')} {sets}", flush=True)


def wait_until_ready(collector: subprocess.Popen[bytes]) -> bool:
    """Whether the collector answers; False when it ended or stayed silent."""
    deadline = time.monotonic() + START_S
    while collector.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(HEALTH, timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def show_first_trace() -> int:
    """Run the example under the wrapper and ask for its trace."""
    # Its log lines are shown in the trace; on the console they would only stand there twice.
    print("\n$ export LOG_FORMAT=none", end="")
    named = ("--service_name", "quickstart")
    wrapper = say("opentelemetry-instrument", *named, "python", "examples/quickstart.py")
    ran = subprocess.run(
        wrapper,
        cwd=ROOT,
        env={**os.environ, "LOG_FORMAT": "none", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(ran.stdout, end="")
    if ran.returncode != 0:
        return ran.returncode
    trace_id = ran.stdout.rpartition("trace_id=")[2].strip()
    return subprocess.run(say("collector", "trace", trace_id), cwd=ROOT, check=False).returncode


def main() -> int:
    """Return the exit code: 0 after Ctrl-C, else that of the step that failed."""
    if collector_runs():
        print(
            "A collector runs already (a second `make run`?): it is used, and goes on afterwards."
        )
        return show_first_trace()
    if taken := [port for port in PORTS if is_used(port)]:
        name_taken(taken)
        return 1
    collector = subprocess.Popen(
        say("collector", "--config", "otel-collector.yaml"), cwd=ROOT, process_group=0
    )

    def stop(*_: object) -> None:
        collector.send_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if not wait_until_ready(collector):
        if collector.poll() is None:
            print(f"the collector did not get ready within {START_S} s", file=sys.stderr)
            collector.terminate()
        return collector.wait() or 1
    failed = show_first_trace()
    if failed:
        collector.terminate()
        collector.wait()
        return failed
    print(f"\nThe collector runs. Ask it: {typed('collector')} logs --level info, or {QUERY}")
    wrapper = typed("opentelemetry-instrument")
    print(f"Send it your own: {wrapper} <your command>. Ctrl-C ends it.", flush=True)
    return collector.wait()


if __name__ == "__main__":
    sys.exit(main())
