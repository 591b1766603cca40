"""
The three outputs of a run, in the folders that people know.

    debug/classification-DATE.log       what the code said in detail
    debug/api-calls-DATE.log            what it said about calls to others
    debug/performance-DATE.log          records that carry a duration
    production/operations-DATE.log      INFO and above
    production/errors-DATE.log          ERROR and above
    production/metrics-DATE.log         events: progress, totals, business events
    progress/current-operation.log      a line each ten seconds; progress/NAME.json beside it

The three debug files together hold every record. What is logged at all stays with the application's
levels and LOG_LEVEL. The day is in the file's name, so that rotation is opening another file: no
rename, no lock, and several processes may share a folder, as each record is one append. Files of
past days are compressed by a thread of low priority. A disk that is full costs lines, never the run.
"""

import contextlib
import gzip
import logging
import os
import re
import shutil
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from telemetry import _diagnostics, _values
from telemetry._batch import progress
from telemetry._batch.plan import Plan
from telemetry._batch.results import Results
from telemetry._batch.types import BatchError, Logs
from telemetry._logs import format as formats
from telemetry._logs import record as records
from telemetry.attributes import BATCH_ITEM_DURATION_S, BATCH_PROGRESS, EXECUTION_TIME_MS

CLIENTS: Final = frozenset(
    ("aiohttp", "anthropic", "botocore", "httpcore", "httpx", "openai", "requests", "urllib3")
)
"""Loggers of libraries that call others."""
TIMES: Final = (
    EXECUTION_TIME_MS,
    BATCH_ITEM_DURATION_S,
    "duration_ms",
    "duration_s",
    "elapsed_ms",
    "latency_ms",
)
SETTLED_S: Final = 300.0
_DATED = re.compile(r"[a-z-]+-(\d{4}-\d{2}-\d{2})\.log(\.gz)?")


class Line(logging.Formatter):
    """`2025-07-06T10:30:15Z INFO message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, with the traceback below it."""
        named, ids = formats.split(record)
        time_ = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = f"{time_} {record.levelname} {formats.escaped(formats.message(record))}"
        for key, value in {**named, **ids}.items():
            shown = repr(value) if isinstance(value, str) and not value.isalnum() else value
            text += f" {formats.escaped(key)}={formats.escaped(str(shown))}"
        error = records.error(record)
        if error is not None:
            stack = formats.exception(error)[2].rstrip("\n")
            text = "\n".join([text, *(formats.escaped(part) for part in stack.split("\n"))])
        return text


class Outputs(logging.Handler):
    """
    A handler on the root logger for the length of a run.

    Args:
        logs: where to, and what happens to old files.
    """

    otelier = True

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.DEBUG)
        self._logs = logs
        self.folder = Path(logs.folder)
        self._files: dict[str, int] = {}
        self._day = ""
        self._level: tuple[int, int] | None = None
        style = os.environ.get("LOG_FORMAT", "").strip().lower()
        self.setFormatter(formats.Json() if style == "json" else Line())
        for name in ("debug", "production", "progress"):
            (self.folder / name).mkdir(mode=0o750, parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        root = logging.getLogger()
        asked = os.environ.get("LOG_LEVEL", "").strip().upper()
        known = logging.getLevelNamesMapping().get(asked)
        if known is None and root.level == logging.WARNING and not root.handlers:
            known = logging.INFO  # a root logger that is not configured
        if known is not None and known != root.level:
            self._level = (root.level, known)
            root.setLevel(known)
        root.addHandler(self)
        self._tidy()
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        if self._level is not None and root.level == self._level[1]:
            root.setLevel(self._level[0])
        with self.lock or contextlib.nullcontext():
            self._close_files()
        super().close()

    @staticmethod
    def progress_folder(logs: Logs) -> Path:
        """Where progress files are."""
        return Path(logs.folder) / "progress"

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record to the files that want it."""
        try:
            day = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d")
            if day != self._day:
                self._turn(day)
            line = self.format(record) + "\n"
            data = line.encode("utf-8", "backslashreplace")
            for name in self._wanted_by(record):
                self._append(name, f"{name}-{day}.log", data)
        except Exception as error:
            _diagnostics.say("logs", f"{self.folder}: a line was lost: {_values.text(error)}")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as in logging.Handler
        """Nothing is printed: emit() has said it."""

    def progress(self, text: str) -> None:
        """A line of progress/current-operation.log."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self.lock or contextlib.nullcontext():
            try:
                name = "progress/current-operation"
                self._append(name, f"{name}.log", f"{stamp} {text}\n".encode())
            except Exception as error:
                _diagnostics.say("logs", f"{self.folder}: a line was lost: {_values.text(error)}")

    def event(self, name: str, body: str, fields: dict[str, Any]) -> None:
        """A record for the files alone: it went to OpenTelemetry by itself."""
        record = logging.makeLogRecord(
            {
                "name": "telemetry.batch",
                "levelno": logging.INFO,
                "levelname": "INFO",
                "msg": body,
                records.EVENT_NAME: name,
                **fields,
            }
        )
        self.handle(record)

    def _wanted_by(self, record: logging.LogRecord) -> list[str]:
        own = record.__dict__
        event = own.get(records.EVENT_NAME)
        names = []
        if record.levelno >= logging.INFO and event != BATCH_PROGRESS:
            names.append("production/operations")
        if record.levelno >= logging.ERROR:
            names.append("production/errors")
        if event is not None and record.levelno < logging.ERROR:
            names.append("production/metrics")
        if record.name.partition(".")[0] in CLIENTS or any(
            key.startswith(("gen_ai.", "http.")) for key in (*own, str(event))
        ):
            names.append("debug/api-calls")
        elif any(key in own for key in TIMES):
            names.append("debug/performance")
        else:
            names.append("debug/classification")
        return names

    def _append(self, name: str, file_name: str, data: bytes) -> None:
        file = self._files.get(name)
        if file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = self._files[name] = os.open(self.folder / file_name, flags, 0o640)
        os.write(file, data)

    def _turn(self, day: str) -> None:
        first = not self._day
        self._close_files()
        self._day = day
        if not first:
            self._tidy()

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def _tidy(self) -> None:
        threading.Thread(
            target=tidy, args=(self._logs,), name="otelier-batch-logs", daemon=True
        ).start()


def tidy(logs: Logs) -> None:
    """Compress and delete the files of past days; several processes may do so at once."""
    with contextlib.suppress(OSError):
        if sys.platform == "linux":  # elsewhere it would be the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    today = datetime.now().astimezone().date()
    for path in sorted(Path(logs.folder).glob("*/*.log*")):
        found = _DATED.fullmatch(path.name)
        with contextlib.suppress(OSError, ValueError, EOFError):
            if found is None:
                if path.name.endswith(".gz.tmp") and _age(path) > SETTLED_S:
                    path.unlink()
                continue
            days = (today - datetime.strptime(found[1], "%Y-%m-%d").date()).days  # noqa: DTZ007 - a day
            if logs.keep_days is not None and days > logs.keep_days:
                path.unlink()
            elif logs.compress and days > 0 and not found[2] and _age(path) > SETTLED_S:
                _compress(path)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _compress(path: Path) -> None:
    packed = path.with_name(path.name + ".gz")
    temporary = path.with_name(path.name + ".gz.tmp")
    with temporary.open("xb") as raw:  # exclusive: another process may be at it
        if packed.exists():  # lines that came late: gzip members may follow each other
            raw.write(packed.read_bytes())
        with gzip.open(raw, "wb") as out, path.open("rb") as source:
            shutil.copyfileobj(source, out)
        raw.flush()
        os.fsync(raw.fileno())
    temporary.replace(packed)
    path.unlink()


def opened(plan: Plan, stack: contextlib.ExitStack) -> Outputs | None:
    """The log files that a run asks for; raises BatchError."""
    if plan.logs is None:
        return None
    try:
        return stack.enter_context(Outputs(plan.logs))
    except OSError as error:
        message = f"{plan.logs.folder}: logs cannot be written there ({error.strerror}); choose another folder"
        raise BatchError(message) from error


def results_of(plan: Plan, *, goes_on: bool) -> Results:
    """Where its results go, after those of earlier runs on the journal; raises BatchError."""
    try:
        return Results(plan.results, goes_on=goes_on)
    except OSError as error:
        message = f"{plan.results}: results cannot be written there ({error.strerror}); choose another path"
        raise BatchError(message) from error


def progress_file(plan: Plan) -> progress.ProgressFile | None:
    """The file that was asked for, else the one in the folder of the logs."""
    if plan.logs is None:
        return None if plan.progress_file is None else progress.ProgressFile(plan.progress_file)
    folder = Outputs.progress_folder(plan.logs)
    path = plan.progress_file or folder / f"{plan.name}.json"
    return progress.ProgressFile(path, copy=folder / "batch-status.json")
