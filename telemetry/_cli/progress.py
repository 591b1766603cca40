"""
`telemetry progress FILE|FOLDER`: how far batches are, read from their progress files; with `--runs`,
what each run on a journal did and spent.

A file says what its process last knew. Whether that process still lives is judged here: a run that
is not finished, and whose pid is gone on this machine or whose heartbeat is old, is shown as dead.
Exit codes: 0, 1 when a run is dead or ended badly, 2 when there is nothing to show.
"""

import json
import socket
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from telemetry._batch import progress as _progress
from telemetry._logs import format as formats

STALE_S: Final = 30.0
INTERVAL_S: Final = 1.0
REQUIRED: Final = ("operation", "processed", "total", "state", "pid", "host", "heartbeat", "counts")


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--follow", "-f", is_flag=True, help="Go on until all runs are finished or dead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per run and change.")
@click.option(
    "--runs",
    "of_journal",
    is_flag=True,
    help="PATH is a journal: what each run on it did and spent.",
)
def progress(path: Path, *, follow: bool, as_json: bool, of_journal: bool) -> None:
    """Show how far batches are: PATH is a progress file, or a folder of them."""
    if of_journal:
        _show_runs(path, as_json=as_json)
        return
    said: dict[str, str] = {}
    while True:
        runs = read(path)
        if not runs and not said:
            message = (
                f"{path}: no progress file there; name the progress_file of a batch, or its folder"
            )
            raise click.UsageError(message)
        for run in runs:
            text = json.dumps(run) if as_json else shown(run)
            if said.get(run["run_id"]) != text:
                said[run["run_id"]] = text
                click.echo(text)
        if not follow or all(run["state"] in ("finished", "dead") for run in runs):
            break
        time.sleep(INTERVAL_S)
    bad = any(run["state"] == "dead" or run.get("result") not in (None, "success") for run in runs)
    sys.exit(1 if bad else 0)


def _show_runs(path: Path, *, as_json: bool) -> None:
    """The runs of a journal, one a line, and their sum."""
    from telemetry._batch import journal  # noqa: PLC0415 - a progress file needs no asyncio

    found = journal.runs_of(path) if path.is_file() else []
    if not found:
        message = f"{path}: no runs there; name the journal of a batch"
        raise click.UsageError(message)
    for run in found:
        if as_json:
            click.echo(json.dumps(run.shown()))
        else:
            click.echo(formats.escaped(run.line()))
    if not as_json:
        total = sum((run.cost for run in found), Decimal(0))
        click.echo(f"{len(found)} runs, cost {total}")


def read(path: Path) -> list[dict[str, Any]]:
    """The runs in a file or a folder, each once, with their state judged."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    runs: dict[str, dict[str, Any]] = {}
    for file in files:
        run = _load(file)
        if run is not None and run["run_id"] not in runs:
            runs[run["run_id"]] = judged(run, time.time())
    return list(runs.values())


def judged(run: dict[str, Any], now: float) -> dict[str, Any]:
    """A run with the state `dead`, and why, when its process is gone."""
    if run["state"] == "finished":
        return run
    silent = max(now - run["heartbeat"], 0.0)
    here = run["host"] == socket.gethostname()
    if here and not _progress.alive(run["pid"]):
        return {**run, "state": "dead", "reason": f"pid {run['pid']} is gone"}
    if silent > STALE_S:
        there = f", though pid {run['pid']} exists" if here else ""
        reason = f"no heartbeat for {_progress.duration(silent)}{there}"
        return {**run, "state": "dead", "reason": reason}
    return run


def shown(run: dict[str, Any]) -> str:
    """A run for people: one line, and one for each of its last errors."""
    lines = [_progress.line(run)]
    if run["state"] == "dead":
        lines[0] += f" - {formats.escaped(str(run['reason']))}; run it again to resume"
    for error in run.get("last_errors") or ():
        key = "" if error.get("key") is None else f" {error['key']}"
        text = f"  {error.get('timestamp')}{key} {error.get('error_type')}: {error.get('message')}"
        lines.append(formats.escaped(text))
    return "\n".join(lines)


def _load(file: Path) -> dict[str, Any] | None:
    """The content of a progress file; None when it is none."""
    try:
        found = json.loads(file.read_bytes())
        if not all(name in found for name in REQUIRED) or found.get("schema") != _progress.SCHEMA:
            return None
        _progress.line(found)  # as a whole it must be what it claims to be
        found["run_id"], found["pid"], found["heartbeat"] = (
            str(found["run_id"]),
            int(found["pid"]),
            float(found["heartbeat"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return dict(found)
