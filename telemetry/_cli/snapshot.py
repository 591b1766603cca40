"""
What a running process has: handlers, providers, instrumentations, threads, and its ledger.

For `telemetry doctor`, which starts a program under the wrapper with TELEMETRY_SNAPSHOT set: at its
end each process of it appends one line of JSON to that file. Nothing of this is imported otherwise.
"""

import json
import logging
import os
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider

from telemetry import _diagnostics, _values
from telemetry._cli import versions
from telemetry._config import state


class Snapshot:
    """What this process has at the beginning of its end; written at the end, with the ledger."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        try:
            self._found = take()
        except Exception as error:
            _diagnostics.say("snapshot", f"no snapshot was taken: {_values.text(error)}")

    def write(self, path: str) -> None:
        """Append it as one line in one write; never raises."""
        try:
            line = json.dumps({**self._found, "report": state.report()}, default=str) + "\n"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except Exception as error:
            _diagnostics.say("snapshot", f"no snapshot was written: {_values.text(error)}")


def take() -> dict[str, Any]:
    """What this process has now."""
    pipeline = state.pipeline()
    return {
        "pid": os.getpid(),
        "program": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "",
        "handlers": _handlers(),
        "providers": {
            "traces": _named(trace.get_tracer_provider()),
            "metrics": _named(metrics.get_meter_provider()),
            "logs": _named(get_logger_provider()),
        },
        "fast_path": versions.fast_path(),
        "joined": [] if pipeline is None else pipeline.foreign,
        "instrumented": _instrumented(),
        "threads": sorted(
            thread.name for thread in threading.enumerate() if thread.name.startswith("otelier")
        ),
    }


def _named(thing: object) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def _handlers() -> dict[str, list[str]]:
    """Logger -> its handlers; only loggers that have some, with `ours` marked."""
    found: dict[str, list[str]] = {}
    loggers: list[tuple[str, logging.Logger]] = [("root", logging.getLogger())]
    for name, logger in sorted(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            loggers.append((name, logger))
    for name, logger in loggers:
        if logger.handlers:
            shown = name if logger.propagate or name == "root" else f"{name} (does not propagate)"
            found[shown] = [
                _named(handler) + (" (ours)" if getattr(handler, "otelier", False) else "")
                for handler in logger.handlers
            ]
    return found


def _instrumented() -> list[str]:
    """The instrumentations that are on in this process."""
    found = []
    for entry_point in entry_points(group="opentelemetry_instrumentor"):
        module = sys.modules.get(entry_point.module)
        kind = getattr(module, entry_point.attr, None)
        try:
            if kind is not None and kind().is_instrumented_by_opentelemetry:
                found.append(entry_point.name)
        except Exception:
            found.append(f"{entry_point.name} (cannot be asked)")
    celery = sys.modules.get("telemetry.instrumentation.celery")
    if celery is not None and "celery" in sys.modules:
        found.append("celery (ours)")
    return found
