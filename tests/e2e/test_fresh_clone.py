"""A newcomer's machine: the two commands in a fresh copy, and the wheel without test packages."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import Collector

ROOT = Path(__file__).parents[2]
PORTS = (4317, 4318, 4319, 13133)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def environment():
    """The environment without anything that this test run brings along."""
    gone = ("PYTHONPATH", "VIRTUAL_ENV", "TELEMETRY_STORE", "MONGODB_URI")
    clean = {key: value for key, value in os.environ.items() if key not in gone}
    return {key: value for key, value in clean.items() if not key.startswith("OTEL_")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files that git knows or would take, in a folder of their own, without .venv or data."""
    folder = tmp_path_factory.mktemp("clone") / "otelier"
    if shutil.which("git") is None or not (ROOT / ".git").exists():  # an unpacked archive
        left_out = (
            ".venv",
            "data",
            "build",
            "dist",
            "__pycache__",
            ".*_cache",
            ".hypothesis",
            "*.so",
        )
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))
        return folder
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run_until(clone, ending, **extra):
    """`make run`, its output up to a line that holds `ending`, then Ctrl-C and the exit code."""
    process = subprocess.Popen(
        ["make", "run", f"PYTHON={sys.executable}"],
        cwd=clone,
        env={**environment(), **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if ending in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    return process.returncode, "".join(lines) + rest


def needs_free_ports():
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                if os.environ.get("REQUIRE_SERVICES") == "1":
                    pytest.fail(f"port {port} is in use; `make run` needs it")
                pytest.skip(f"port {port} is in use: is a collector running?")


def test_make_run_shows_a_trace(clone):
    """D2, D3, D4: from a fresh clone to the trace of a real program, then a clean Ctrl-C."""
    needs_free_ports()
    code, output = run_until(clone, "Ctrl-C ends it")
    trace_id = re.search(r"trace_id=([0-9a-f]{32})", output)
    assert trace_id, output
    waterfall = output.partition(f"$ .venv/bin/collector trace {trace_id[1]}")[2]
    assert trace_id[1] in waterfall, output
    assert "INFO" in waterfall
    assert "WARNING" in waterfall
    assert "Traceback" not in output
    assert "Shutdown complete." in output
    printed = re.findall(r"^\$ (\S+)|Ask it: (\S+)|your own: (\S+) ", output, re.MULTILINE)
    programs = {word for words in printed for word in words if word} - {"export"}
    assert programs == {".venv/bin/collector", ".venv/bin/opentelemetry-instrument"}
    assert all((clone / program).exists() for program in programs)
    assert code in (0, -signal.SIGINT), output  # make itself ends by the signal


def test_a_port_in_use_is_named_with_a_command_that_works(clone):
    """A foreign program on a port ends `make run` with the port and a command that gets by."""
    needs_free_ports()
    with socket.create_server(("127.0.0.1", 4318)):
        code, output = run_until(clone, "Error 1")
        assert code != 0
        assert "in use by another program: 4318." in output
        assert "Traceback" not in output
        command = re.search(r"^ +(\S+/collector .*)$", output, re.MULTILINE)[1].split()
        with Collector(clone, sets=(), config=None, program=command) as collector:
            collector.wait_for("Everything is ready")
            assert collector.stop() == 0


def test_a_second_make_run_uses_the_collector_of_the_first(clone):
    """Two at once: the second one shows its trace too, and leaves the collector running."""
    needs_free_ports()
    with Collector(clone, sets=(), config=None, program=[".venv/bin/collector"]) as collector:
        collector.wait_for("Everything is ready")
        done = subprocess.run(
            ["make", "run", f"PYTHON={sys.executable}"],
            cwd=clone,
            env=environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "A collector runs already" in done.stdout
        assert re.search(r"^trace [0-9a-f]{32}$", done.stdout, re.MULTILINE), done.stdout
        assert collector.stop() == 0


def test_a_missing_python_is_one_clear_line(clone):
    """`make` without a suitable Python says what is missing and how to name one."""
    done = subprocess.run(
        ["make", "run", "PYTHON=", "--always-make"],
        cwd=clone,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "no Python 3.11 or newer found" in done.stderr


def test_the_wheel_works_without_test_packages(clone, tmp_path):
    """The built wheel starts both programs and imports both packages; no test package is there."""
    python = str(clone / ".venv" / "bin" / "python")
    subprocess.run(["make", "install", f"PYTHON={sys.executable}"], cwd=clone, check=True)

    def pip(*arguments):
        command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, cwd=tmp_path)

    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(clone))
    (wheel,) = tmp_path.glob("otelier-*.whl")
    pip("uninstall", "--yes", "otelier")
    pip("install", "--no-deps", str(wheel))

    def run(*command):
        return subprocess.run(
            [str(clone / ".venv" / "bin" / command[0]), *command[1:]],
            cwd=tmp_path,
            env=environment(),
            check=False,
            capture_output=True,
            text=True,
        )

    where = run("python", "-c", "import telemetry, collector; print(collector.__file__)")
    assert "site-packages" in where.stdout, where.stderr
    assert run("python", "-c", "import pytest").returncode != 0
    native = run("python", "-c", "from collector.documents.schema import NATIVE; print(NATIVE)")
    assert native.stdout == "True\n", native.stderr
    assert run("telemetry", "--version").returncode == 0
    assert run("collector", "--version").returncode == 0
    shutil.copy(ROOT / "otel-collector.yaml", tmp_path)
    assert run("collector", "validate").returncode == 0, run("collector", "validate").stderr
