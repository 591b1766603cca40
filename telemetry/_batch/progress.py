"""
How far a run is: the progress file for watchers, and a bar or lines for the terminal.

The file is one JSON object, replaced as a whole (temporary file, fsync, rename), so that a reader
never sees half of one. It is rewritten at least once a second while the run lives: an old heartbeat
means a dead or stuck process. A disk that is full costs the file its freshness, never the run.

On a terminal that this process is in the foreground of, stderr shows a bar; anywhere else (pipes,
nohup, a job in the background) it gets a plain line at each change of state and each ten seconds.
Nothing is ever written to stdout.
"""

import contextlib
import functools
import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from telemetry import _diagnostics
from telemetry._logs import format as formats

SCHEMA: Final = 1
STATES: Final = ("pending", "running", "draining", "finished")
LINE_EVERY_S: Final = 10.0
DISPLAYS: Final = ("auto", "bar", "lines", "off")


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    micros = round(seconds * 1e6)
    return f"{_second(micros // 1_000_000)}.{micros // 1000 % 1000:03}Z"


@functools.lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class ProgressFile:
    """
    A JSON file that is always whole.

    Args:
        path: of the file.
        copy: a second place for the same content, without its own fsync.
    """

    def __init__(self, path: str | os.PathLike[str], copy: Path | None = None) -> None:
        self.path = Path(path)
        self._copy = copy
        self._turn = threading.Lock()
        self.failures = 0
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def write(self, progress: dict[str, Any]) -> None:
        """Replace the content; a failure is counted and said, never raised."""
        with self._turn:
            data = json.dumps(progress, indent=2).encode() + b"\n"
            try:
                _replace(self.path, data, durable=True)
                if self._copy is not None:
                    _replace(self._copy, data, durable=False)
            except OSError as error:
                self.failures += 1
                text = (
                    f"{self.path}: progress cannot be written ({error.strerror}); the run goes on"
                )
                _diagnostics.say("progress", text)

    def _sweep(self) -> None:
        """Remove what a killed process left."""
        for left in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            pid = left.name.split(".")[-2]
            if pid.isdigit() and not alive(int(pid)):
                left.unlink(missing_ok=True)


def _replace(path: Path, data: bytes, *, durable: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        file = os.open(temporary, flags, 0o640)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def alive(pid: int) -> bool:
    """Whether a process of this machine has this pid."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it runs, as another user
    return True


def duration(seconds: float | None) -> str:
    """Seconds for people: `59 s`, `12 min 05 s`, `3 h 07 min`."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def line(progress: dict[str, Any]) -> str:
    """A progress object as one line for people."""
    total, counts = progress["total"], progress["counts"]
    share = "" if progress["percentage"] is None else f" ({progress['percentage']:.1f} %)"
    parts = [f"{progress['processed']}/{'?' if total is None else total}{share}"]
    if progress["state"] == "finished":
        parts.append(f"finished: {progress['result']}, {duration(progress['elapsed_seconds'])}")
    else:
        if progress["state"] != "running":
            parts.append(progress["state"])
        parts += [f"{progress['rate_per_second']:.1f}/s", _eta(progress)]
    parts += [
        f"{word} {counts[word]}"
        for word in ("failure", "timeout", "cancellation", "skip", "resumed")
        if counts.get(word)
    ]
    if progress["cost"]["amount"]:
        parts.append(f"cost {progress['cost']['amount']:.4f}")
    return formats.escaped(f"{progress['operation']}: {', '.join(parts)}")


def _eta(progress: dict[str, Any]) -> str:
    if progress["eta_seconds"] is None:
        seen = progress["processed"] > progress["resumed"] and not progress["rate_per_second"]
        return "stalled" if seen and progress["total"] is not None else "eta unknown"
    if progress["eta_range"]:
        least, most = progress["eta_range"]
        return f"eta {duration(least)} to {duration(most)}"
    return f"eta {duration(progress['eta_seconds'])}"


class Display:
    """
    What is seen on stderr; it can lose its terminal, and never hurts the run.

    Args:
        kind: `bar`, `lines`, `off`, or `auto`: a bar where one can be seen.
        also: gets each plain line too, whatever stderr shows.
    """

    def __init__(self, kind: str, also: Callable[[str], None] | None = None) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._lines = kind in ("auto", "lines")
        self._also = also
        self._next = 0.0
        self._state = ""
        if kind == "bar" or (kind == "auto" and _can_see_a_bar()):
            with contextlib.suppress(Exception):
                self._start_bar()

    def show(self, progress: dict[str, Any], now: float) -> None:
        """Show this, if it is time to."""
        if self._bar is not None:
            with contextlib.suppress(Exception):
                self._bar.update(
                    self._task,
                    completed=progress["processed"],
                    total=progress["total"],
                    description=progress["operation"],
                    text=line(progress).partition(": ")[2],
                )
                self._bar.refresh()
        if now >= self._next or progress["state"] != self._state:
            self._next = now + LINE_EVERY_S
            self._state = progress["state"]
            text = line(progress)
            if self._also is not None:
                self._also(text)
            if self._lines and self._bar is None:
                _say(text)

    def close(self, last: dict[str, Any]) -> None:
        """Take the bar down and say how it ended."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(Exception):
                bar.stop()
            _say(line(last))

    def _start_bar(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal pays for rich
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - see above

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=None, text="")
        self._bar.start()


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except Exception:  # noqa: S110 - stderr is closed or full: there is nowhere left to say it
        pass


def _can_see_a_bar() -> bool:
    """Whether stderr is a terminal that can draw, and belongs to us now."""
    try:
        if os.environ.get("TERM", "dumb") == "dumb" or not sys.stderr.isatty():
            return False
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except Exception:
        return False
