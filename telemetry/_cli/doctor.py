"""
`telemetry doctor`: what telemetry would do in this environment, what would be lost, and the fix.

Most of it is read from where the program itself will read it: the table of settings, the entry
points, the spool's files. Two things are tried: each endpoint gets a real, empty OTLP request; and a
program is run under the wrapper (the one that is given, else one that does nothing), which tells at
its end who has set it up and which handlers it has. Secrets are masked.

A problem is something that would be lost or doubled, or a setting that does not do what it says;
each is one line with its fix, and any makes the exit code 1. A note is a bound that is there on
purpose.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from telemetry import __version__, _values
from telemetry._cli import versions
from telemetry._config import configure, distro, exporters
from telemetry._config import settings as _settings
from telemetry._export import loopback
from telemetry._export.result import Outcome, Result
from telemetry._redaction import subject_key
from telemetry._spool import file
from telemetry.instrumentation import fastapi

TIMEOUT_S: Final = 2.0
PROBE_S: Final = 30.0
OURS: Final = "otelier"


def examine(command: Sequence[str] = ()) -> dict[str, Any]:
    """
    Everything that `doctor` prints.

    Args:
        command: a program to run under the wrapper; one that does nothing by default.
    """
    settings, problems = _settings.read()
    problems.extend(fastapi.problems())
    if not settings.disabled and (exposed := exporters.in_the_open(settings)):
        problems.append(exposed)
    notes: list[str] = []
    who = {
        kind: _chosen(group, variable, problems)
        for kind, group, variable in (
            ("distro", "opentelemetry_distro", "OTEL_PYTHON_DISTRO"),
            ("configurator", "opentelemetry_configurator", "OTEL_PYTHON_CONFIGURATOR"),
        )
    }
    won = all(found["chosen"] == OURS for found in who.values())
    endpoints: dict[str, Any] = {}
    processes: list[dict[str, Any]] = []
    if settings.disabled:
        problems.append("OTEL_SDK_DISABLED: nothing is recorded; unset it to switch telemetry on")
    else:
        for signal in _settings.SIGNALS:
            if "otlp" in "".join(getattr(settings, f"{signal}_exporter")):
                endpoints[signal] = _reach(signal, settings, problems)
        processes = _processes(command, problems, expected=won)
        _bounds(settings, notes)
        _subjects(notes)
    problems.extend(versions.mismatches())
    problems.extend(_unheard(processes, settings))
    notes.extend(versions.notes(processes, getattr(settings, "fast_path", "auto")))
    return {
        "version": __version__,
        "python": platform.python_version(),
        "packages": versions.installed(),
        "core": versions.core()[0],
        **who,
        "settings": [_row(name, settings) for name in _settings.TABLE],
        "instrumentations": _instrumentations(),
        "server_span": _owner(),
        "endpoints": endpoints,
        "spool": _spooled(settings, problems),
        "processes": processes,
        "notes": notes,
        "problems": problems,
    }


# --- settings, distro, instrumentations ---


def _row(name: str, settings: _settings.Settings) -> dict[str, Any]:
    table = _settings.TABLE[name]
    row = {
        "name": name,
        "value": _masked(getattr(settings, name), secret=table["secret"]),
        "source": settings.sources.get(name, "default"),
    }
    own = {
        signal: _masked(value, secret=table["secret"])
        for (signal, setting), value in settings.overrides.items()
        if setting == name
    }
    return {**row, "per_signal": own} if own else row


def _masked(value: Any, *, secret: bool) -> Any:
    if secret and value:
        return dict.fromkeys(value, "[REDACTED]") if isinstance(value, Mapping) else "[REDACTED]"
    if isinstance(value, str) and "@" in value and "://" in value:
        parts = urlsplit(value)
        return parts._replace(netloc=f"[REDACTED]@{parts.netloc.rpartition('@')[2]}").geturl()
    if isinstance(value, (str, int, float, tuple)) or value is None:
        return value
    return dict(value) if isinstance(value, Mapping) else _values.text(value, 200)


def _chosen(group: str, variable: str, problems: list[str]) -> dict[str, Any]:
    """Which of the installed entry points of a group the wrapper takes."""
    found = [entry_point.name for entry_point in entry_points(group=group)]
    wanted = os.environ.get(variable)
    chosen = wanted if wanted in found else (found[0] if found and wanted is None else None)
    if chosen != OURS:
        problems.append(
            f"{group}: {chosen or 'nothing'} is taken, not otelier; set {variable}=otelier"
        )
    elif wanted is None and len(set(found)) > 1:
        rivals = ", ".join(sorted(set(found) - {OURS}))
        problems.append(f"{group}: {rivals} may be taken instead; set {variable}=otelier")
    return {"chosen": chosen, "installed": found}


def _instrumentations() -> dict[str, str]:
    """Each installed instrumentation -> what the wrapper would do with it."""
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").replace(" ", "")
    off = disabled.split(",")
    found = {}
    for entry_point in sorted(entry_points(group="opentelemetry_instrumentor")):
        if "*" in off or entry_point.name in off:
            found[entry_point.name] = "off: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
        elif entry_point.name in distro.skipped():
            found[entry_point.name] = "left out: its work is done elsewhere"
        elif entry_point.name == "celery":
            found[entry_point.name] = "on: telemetry.instrumentation.celery, in its place"
        else:
            conflict = _conflict(entry_point)
            found[entry_point.name] = f"off: {conflict}" if conflict else "on"
    return found


def _conflict(entry_point: EntryPoint) -> str | None:
    """Why an instrumentation does not fit what is installed."""
    from opentelemetry.instrumentation.dependencies import (  # noqa: PLC0415 - doctor only
        get_dist_dependency_conflicts,
    )

    if entry_point.dist is None:
        return None
    conflict = get_dist_dependency_conflicts(entry_point.dist)
    return None if conflict is None else _values.text(conflict, 200)


def _owner() -> str:
    """Who owns the server span here, by the rule that there is exactly one."""
    try:
        installed = version("fastapi")
    except PackageNotFoundError:
        return "no FastAPI installed; whoever instruments the application makes it, we make none"
    if "fastapi" in distro.skipped():
        return f"FastAPI {installed} itself; contrib's instrumentation is left out"
    return f"opentelemetry-instrumentation-fastapi (FastAPI {installed} does not trace itself)"


# --- endpoints ---


def _reach(signal: str, settings: _settings.Settings, problems: list[str]) -> dict[str, Any]:
    """Whether something listens where a signal is sent, and takes an empty OTLP request."""
    grpc = settings.of(signal, "protocol") == "grpc"
    if grpc:
        given = settings.given("endpoint") or (signal, "endpoint") in settings.overrides
        url = settings.of(signal, "endpoint") if given else "http://localhost:4317"
    else:
        url = exporters.endpoint(signal, settings)
    parts = urlsplit(url)
    shown = _masked(url, secret=False)
    address = (
        loopback.known(parts.hostname or "localhost"),
        parts.port or (443 if parts.scheme == "https" else 80),
    )
    try:
        with socket.create_connection(address, TIMEOUT_S):
            pass
    except OSError as error:
        reason = str(error)
        problems.append(f"{signal}: nothing answers at {shown} ({reason}); start the collector")
        return {"url": shown, "reachable": False, "reason": reason}
    try:
        answer = exporters.probe(signal, settings, time.monotonic() + TIMEOUT_S)
    except Exception as error:
        answer = Outcome(Result.REFUSED, _values.text(error, 300))
    if answer.result is Result.DELIVERED:
        return {"url": shown, "reachable": True, "answer": "takes OTLP"}
    fix = "is this an OTLP endpoint?"
    if any(word in answer.reason for word in ("401", "403", "UNAUTHENTICATED", "PERMISSION")):
        fix = "check OTEL_EXPORTER_OTLP_HEADERS"
    elif answer.result is Result.RETRY:
        fix = "the collector is there and takes nothing now"
    problems.append(f"{signal}: {shown} does not take OTLP ({answer.reason}); {fix}")
    return {"url": shown, "reachable": True, "answer": answer.reason}


# --- the spool ---


def _spooled(settings: _settings.Settings, problems: list[str]) -> dict[str, Any] | None:
    """What lies in the spool, and whether it can be written."""
    if not settings.spool_dir:
        return None
    folder = Path(settings.spool_dir).expanduser().absolute()
    encoders = [exporters.encoder(signal, settings) for signal in _settings.SIGNALS]
    if not file.supported() or not any(encoders):
        problems.append("TELEMETRY_SPOOL_DIR: has no effect without OTLP over http/protobuf")
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        problems.append(
            f"TELEMETRY_SPOOL_DIR: {above} cannot be written; allow it, or name another"
        )
    state: dict[str, Any] = {"folder": str(folder), "files": 0, "owned": 0, "bytes": 0}
    waiting: dict[str, int] = {}
    oldest = time.time_ns()
    damaged = 0
    for path in file.files(folder):
        try:
            content, owned = file.peek(path)
            state["bytes"] += path.stat().st_size
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}); check its owner")
            continue
        state["files"] += 1
        state["owned"] += owned
        damaged += content.bad
        for unit in content.units:
            waiting[unit.signal] = waiting.get(unit.signal, 0) + unit.records
            oldest = min(oldest, unit.written_ns)
    age = max(time.time_ns() - oldest, 0) / 1e9
    state |= {"max_bytes": settings.spool_bytes, "waiting": waiting, "oldest_s": round(age, 1)}
    if damaged:
        problems.append(f"{folder}: {damaged} damaged frames will be skipped; check the disk")
    if state["bytes"] > settings.spool_bytes * 0.9:
        problems.append(
            f"{folder}: almost full; start the collector, or raise TELEMETRY_SPOOL_BYTES"
        )
    if waiting and age > settings.spool_max_age / 2:
        problems.append(
            f"{folder}: the oldest records are {age / 3600:.0f} h old and will be dropped after"
            f" {settings.spool_max_age / 3600:.0f} h; start the collector"
        )
    return state


# --- a real process ---


def _processes(
    command: Sequence[str], problems: list[str], *, expected: bool
) -> list[dict[str, Any]]:
    """What the processes of a program under the wrapper have at their end."""
    wrapper = Path(sys.executable).parent / "opentelemetry-instrument"
    found = str(wrapper) if wrapper.exists() else shutil.which("opentelemetry-instrument")
    if found is None:
        problems.append(
            "opentelemetry-instrument: not on PATH; install opentelemetry-instrumentation"
        )
        return []
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "snapshots"
        program = list(command) or [sys.executable, "-c", ""]
        quiet = subprocess.DEVNULL if not command else sys.stderr
        try:
            done = subprocess.run(  # noqa: S603 - the user's own command
                [found, *program],
                env={**os.environ, configure.SNAPSHOT: str(told)},
                stdout=quiet,
                stderr=quiet,
                check=False,
                timeout=None if command else PROBE_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            problems.append(f"{program[0]}: cannot be run under the wrapper ({error})")
            return []
        snapshots = []
        if told.exists():
            snapshots = [json.loads(line) for line in told.read_text().splitlines()]
    if not snapshots and expected:
        problems.append(
            f"{Path(program[0]).name}: ended with code {done.returncode} and without telemetry;"
            " run it under opentelemetry-instrument to see why"
        )
    for snapshot in snapshots:
        for signal, ledger in snapshot["report"].items():
            lost = sum(ledger["dropped"].values()) - ledger["dropped"].get("fork_discard", 0)
            if lost:
                problems.append(f"pid {snapshot['pid']}: {lost} records of {signal} were lost")
    return snapshots


def _unheard(processes: Sequence[Mapping[str, Any]], settings: _settings.Settings) -> list[str]:
    """Processes whose root logger has lost our handlers: something has replaced them since."""
    if not [name for name in settings.logs_exporter if name.lower() != "none"]:
        return []
    return [
        f"pid {process['pid']}: the root logger has no handler of otelier, so its records are not"
        " sent; something replaced the handlers later (logging.config, basicConfig(force=True)):"
        " let it run before telemetry, or keep the handlers that are there"
        for process in processes
        if not any("(ours)" in handler for handler in process["handlers"].get("root", ()))
    ]


def _subjects(notes: list[str]) -> None:
    """Where pseudonyms have their key from."""
    notes.append(subject_key.describe())


def _bounds(settings: _settings.Settings, notes: list[str]) -> None:
    """What is lost on purpose, or would be in a bad moment."""
    for signal in _settings.SIGNALS:
        exporter = getattr(settings, f"{signal}_exporter")
        if not [name for name in exporter if name.lower() != "none"]:
            notes.append(f"{signal} go nowhere (OTEL_{signal.upper()}_EXPORTER=none)")
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if sampler not in ("", "always_on", "parentbased_always_on"):
        argument = os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1")
        notes.append(f"spans are sampled: {sampler} {argument}")
    if settings.log_level != "DEBUG":
        notes.append(f"log records below {settings.log_level} are not made (LOG_LEVEL)")
    room = f"{settings.span_queue_size} spans and {settings.log_queue_size} log records"
    if settings.spool_dir:
        notes.append(f"with the collector away: {room} wait in memory, the rest in the spool")
    else:
        notes.append(
            f"with the collector away: {room} wait, newer ones are dropped, and what waits"
            " at exit is lost; set TELEMETRY_SPOOL_DIR to keep it"
        )
    if not (settings.spool_dir and settings.spool_write_through):
        notes.append(
            "SIGKILL: what was emitted in the last second is lost;"
            " TELEMETRY_SPOOL_WRITE_THROUGH keeps it"
        )


# --- the page ---

SHOWN: Final = ("service_name", "endpoint", "protocol", "exit_timeout", "spool_dir", "log_level")
"""Settings that are shown even when nobody has set them."""


def page(findings: Mapping[str, Any], *, everything: bool = False) -> str:
    """The findings for people."""
    packages = findings["packages"]
    releases = ", ".join(
        f"{name} {packages.get(f'opentelemetry-{name}', 'is missing')}"
        for name in ("api", "sdk", "instrumentation")
    )
    lines = [
        f"otelier {findings['version']} on Python {findings['python']}, {findings['core']} core",
        f"opentelemetry: {releases}",
        "",
    ]
    for kind in ("distro", "configurator"):
        installed = ", ".join(findings[kind]["installed"])
        lines.append(f"{kind:14}{findings[kind]['chosen']}  (installed: {installed})")
    lines += [f"{'server span':14}{findings['server_span']}", ""]
    hidden = 0
    for row in findings["settings"]:
        own = row.get("per_signal", {})
        if row["source"] == "default" and row["name"] not in SHOWN and not own and not everything:
            hidden += 1
            continue
        lines.append(f"{row['name']:22}{_word(row['value']):34}{row['source']}")
        for signal, value in own.items():
            lines.append(f"  {signal:20}{_word(value):34}its own variable")
    if hidden:
        lines.append(f"({hidden} more settings have their defaults; --all shows them)")
    lines.append("")
    for name, state in findings["instrumentations"].items():
        lines.append(f"{'instruments':14}{name:14}{state}")
    for signal, endpoint in findings["endpoints"].items():
        state = f"NOT reachable: {endpoint.get('reason')}"
        if endpoint["reachable"]:
            state = endpoint["answer"]
        lines.append(f"{signal:14}{endpoint['url']}  {state}")
    if spool := findings["spool"]:
        waiting = ", ".join(f"{count} {name}" for name, count in spool["waiting"].items())
        lines.append(
            f"{'spool':14}{spool['folder']}  {spool['files']} files ({spool['owned']} in use),"
            f" {spool['bytes']} of {spool['max_bytes']} bytes, waiting: {waiting or 'nothing'}"
        )
    for process in findings["processes"]:
        lines += ["", *_process(process)]
    lines.append("")
    lines.extend(f"note: {note}" for note in findings["notes"])
    lines.append("")
    lines.extend(findings["problems"] or ["no problems found"])
    return "\n".join(lines)


def _process(process: Mapping[str, Any]) -> list[str]:
    lines = [f"process {process['pid']} {process['program']}".rstrip()]
    for logger, handlers in process["handlers"].items():
        lines.append(f"  {'handlers':12}{logger}: {', '.join(handlers)}")
    providers = ", ".join(f"{name} {kind}" for name, kind in process["providers"].items())
    lines.append(f"  {'providers':12}{providers}")
    lines.append(f"  {'instruments':12}{', '.join(process['instrumented']) or 'nothing'}")
    if fast := process.get("fast_path"):
        signals = ", ".join(fast["signals"]) or "nothing"
        lines.append(f"  {'fast path':12}{signals}")
    lines.append(f"  {'ledger':12}{configure.account(process['report']).removeprefix('report: ')}")
    return lines


def _word(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={inner}" for key, inner in value.items())
    return "-" if value is None else str(value)
