"""
One cell of the matrix: a fresh environment, the wheel, a train, the smoke program, and what arrived.

The wheel is built once, with the clone's own Python, and goes as it is into every environment: that
is the promise of its tag. The receiver is the clone's collector, a process of its own, whose file
exporter says what came in under the service name of the cell. uv makes the environments, because
it makes one in seconds.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.matrix.trains import Train
from tests.programs import Collector

ROOT = Path(__file__).parents[2]
SMOKE = Path(__file__).with_name("smoke.py")
MODES = ("code", "wrapper")
PROGRAM_S = 120
INSTALL_S = 300

SPANS = {"step", "load order", "GET /orders/{order_id}", "PRODUCER", "CONSUMER"}
LOGS = {"log call", "stdlib", "order o-1", "scored"}
METRICS = {"shop.orders", "shop.amount"}


@dataclass
class Cell:
    """What became of one Python with one train."""

    python: str
    train: str
    problems: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    cores: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def uv(*arguments: str) -> str:
    """
    Run uv, where this environment has none the one on PATH; what it printed.

    Raises:
        RuntimeError: with the end of what it said.
    """
    own = Path(sys.executable).with_name("uv")
    program = str(own) if own.exists() else shutil.which("uv")
    if program is None:
        raise RuntimeError("uv is not installed: pip install uv")
    done = subprocess.run(
        [program, "--quiet", *arguments],
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_S,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return done.stdout


def clean(**extra: str) -> dict[str, str]:
    """This process's environment without what would reach into a cell."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_CONSTRAINT", "PIP_CONSTRAINT")
    kept = {
        name: text
        for name, text in os.environ.items()
        if name not in ours and not name.startswith(("OTEL_", "TELEMETRY_", "OTELIER_PURE"))
    }
    return {**kept, **extra}


def build_wheel(folder: Path) -> Path:
    """The wheel of this tree, built as `pip wheel` does it."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel"),
            *("--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)),
        ],
        env=clean(),
        check=True,
        timeout=INSTALL_S,
    )
    (wheel,) = folder.glob("otelier-*.whl")
    return wheel


def environment(
    folder: Path, python: str, wanted: Sequence[str], *, pre: bool = False, pins: Path | None = None
) -> Path:
    """
    A fresh virtual environment with these requirements; the folder of its programs.

    Raises:
        RuntimeError: they cannot be installed together.
    """
    uv("venv", "--python", python, str(folder))
    inside = folder / "bin"
    options = ["--prerelease", "allow"] if pre else []
    options += ["--constraint", str(pins)] if pins else []
    uv("pip", "install", "--python", str(inside / "python"), *options, *wanted)
    return inside


@contextmanager
def receiver(folder: Path) -> Iterator[tuple[str, Path]]:
    """A collector: its OTLP/HTTP address, and the file with what arrived."""
    with Collector(folder, TELEMETRY_DATA=str(folder)) as collector:
        collector.wait_for("Everything is ready")
        yield f"http://{collector.address('receivers::otlp', 'http')}", folder / "telemetry.jsonl"
        collector.stop()


def run_cell(
    python: tuple[str, str], train: Train, wheel: Path, endpoint: str, arrived: Path
) -> Cell:
    """
    Install and run; every problem is in the answer.

    Args:
        python: the version and the path.
        train: the OpenTelemetry packages.
        wheel: of this tree.
        endpoint: of the receiver.
        arrived: the file with what it received.
    """
    cell = Cell(python[0], train.name)
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        try:
            inside = environment(
                Path(name) / "venv",
                python[1],
                [str(wheel), "fastapi", "celery", *train.pins],
                pre=train.pre,
            )
            if train.forced:
                uv("pip", "install", "--python", f"{inside}/python", "--no-deps", *train.forced)
        except (RuntimeError, subprocess.SubprocessError) as error:
            cell.problems.append(f"install: {str(error).splitlines()[-1]}")
            return cell
        for mode in MODES:
            _run(cell, mode, inside, endpoint, arrived)
    return cell


def _run(cell: Cell, mode: str, inside: Path, endpoint: str, arrived: Path) -> None:
    service = f"{cell.python}-{cell.train}-{mode}"
    program = [str(inside / "python"), str(SMOKE), mode]
    if mode == "wrapper":
        program.insert(0, str(inside / "opentelemetry-instrument"))
    try:
        done = subprocess.run(
            program,
            cwd=inside.parent,
            env=clean(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME=service),
            capture_output=True,
            text=True,
            check=False,
            timeout=PROGRAM_S,
        )
    except subprocess.TimeoutExpired:
        cell.problems.append(f"{mode}: not finished after {PROGRAM_S} s")
        return
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        cell.problems.append(f"{mode}: exit code {done.returncode}: {last}")
        return
    if "Traceback" in done.stderr:
        cell.problems.append(f"{mode}: a traceback on stderr: {done.stderr.strip()[-300:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    cell.versions, cell.cores = said["versions"], said["cores"]
    if not said["delivered"]:
        cell.problems.append(f"{mode}: flush() was not done in time")
    cell.problems += [f"{mode}: {text}" for text in lacking(arrived, service)]


def lacking(arrived: Path, service: str) -> list[str]:
    """What the smoke program sends and the receiver does not have."""
    spans, logs, metrics = set[str](), set[str](), set[str]()
    for line in arrived.read_text().splitlines():
        item = json.loads(line)
        if item.get("service") != service:
            continue
        if "span_id" in item:
            spans |= {item["name"], item["kind"]}
        elif "severity_number" in item:
            logs.add(str(item.get("message")))
        else:
            metrics.add(str(item.get("name")))
    return [
        f"{what} missing: {', '.join(sorted(wanted - have))}"
        for what, wanted, have in (
            ("spans", SPANS, spans),
            ("logs", LOGS, logs),
            ("metrics", METRICS, metrics),
        )
        if wanted - have
    ]
