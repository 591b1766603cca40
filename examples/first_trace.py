"""
What `make run` does: start the collector, run the quickstart under the wrapper, show its trace.

The three commands are the ones that you would type; each is printed before it runs. The collector
stays in the foreground until Ctrl-C.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
HEALTH = "http://localhost:13133"
QUERY = "http://localhost:4319"
START_S = 30


def say(*command: str) -> list[str]:
    """Print a command as one would type it, and return it with the program's full path."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    return [str(BIN / command[0]), *command[1:]]


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
    print(f"\nThe collector runs. Ask it: collector logs --level info, or {QUERY}")
    print("Send it your own: opentelemetry-instrument <your command>. Ctrl-C ends it.", flush=True)
    return collector.wait()


if __name__ == "__main__":
    sys.exit(main())
