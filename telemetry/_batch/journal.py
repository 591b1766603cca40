"""
The truth for resume: one JSON line per event, appended, never changed.

Lines are of three types: `run` and `end` around each run, and `item`. A terminal item line
(success, failure, timeout, skip) says that this key with this fingerprint is done; `cancellation`
keeps what an interrupted attempt cost. A line counts once it is whole: kill -9 in the middle of
one leaves a tail without an end, which is cut at the next open (or closed, when only the line
break is missing). A bad line further up, as a power cut can leave, is skipped and counted; its
item is worked on again.

Each line is one write(2), so it survives the death of the process at once, and a power cut after
the next fsync. The file is locked (flock) for the length of the run. A small reserve file is given
back to a full disk, so that the items running at that moment can still be recorded.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from telemetry import _diagnostics, _values
from telemetry._batch import progress
from telemetry._batch.plan import Plan
from telemetry._batch.types import (
    CANCELLATION,
    FAILURE,
    LOOP_BLOCKED,
    SUCCESS,
    TERMINAL,
    TIMEOUT,
    Cost,
    JournalInUse,
    JournalUnusable,
    Outcome,
)

SCHEMA: Final = 1
FSYNC: Final = ("each", "interval", "never")
RESERVE_BYTES: Final = 256 * 1024
CHUNK: Final = 1024 * 1024
_Place = tuple[str, str, int, int]


def digest(fingerprint: Any) -> str:
    """A short text that differs when what the result depends on differs."""
    return hashlib.sha256(encode(fingerprint)).hexdigest()[:16]


def encode(value: Any) -> bytes:
    """A value as JSON in ASCII; raises when it is none."""
    return _json(value).encode()


def _known(value: Any) -> Any:
    import msgspec  # noqa: PLC0415 - a quarter of the import time, for results that are no JSON

    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else msgspec.to_builtins(value)


_quoted = json.encoder.encode_basestring_ascii
_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_known).encode


def encoded(fields: dict[str, Any]) -> bytes:
    """A line whose `result` may be anything: what is no JSON is kept as far as it can be, marked."""
    try:
        return encode(fields)
    except Exception:
        return encode({**fields, "result": _lossy(fields.get("result")), "result_lossy": True})


def _lossy(result: Any) -> Any:
    """A result that is no JSON, as far as it can be kept."""
    return _plain(_values.clean(result))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and value - value != 0:
        return str(value)  # not a number, or infinite: JSON has neither
    return value


class Line(NamedTuple):
    """
    A line of the journal, without its end.

    Args:
        data: what is written.
        key: of the item, if it is about one that can be found again.
        fingerprint: of the item.
        outcome: of the item.
    """

    data: bytes
    key: str | None = None
    fingerprint: str = ""
    outcome: str = ""


_UNSPENT: Final = '"cost":0.0,"tokens_in":0,"tokens_out":0'


def item_line(run_id: str, outcome: Outcome, fingerprint: str, *, keyed: bool) -> Line:
    """
    An outcome as a line.

    Not by the JSON encoder: all but the result is known, and the next item waits for this line.
    A result that is no JSON is kept as far as it can be, marked with `result_lossy`.
    Fingerprints are digests, which need no quoting.
    """
    word, cost, result = outcome.outcome, outcome.cost, outcome.result
    key = outcome.key if keyed else None
    if word != SUCCESS:
        came = ""
        if outcome.error_type is not None:
            came = f',"error_type":{_json(outcome.error_type)},"error":{_json(outcome.error)}'
    elif type(result) is int:
        came = f',"result":{result}'
    else:
        try:
            came = f',"result":{_json(result)}'
        except Exception:
            came = f',"result":{_json(_lossy(result))},"result_lossy":true'
    spent = _UNSPENT
    if cost.amount or cost.tokens_in or cost.tokens_out:
        amount = repr(cost.amount) if math.isfinite(cost.amount) else "null"
        spent = f'"cost":{amount},"tokens_in":{cost.tokens_in},"tokens_out":{cost.tokens_out}'
    text = (
        f"{_beginning(run_id)}{'null' if key is None else _quoted(key)}"
        f',"fingerprint":"{fingerprint}","outcome":"{word}"'
        f',"attempts":{outcome.attempts},"start":"{progress.timestamp(outcome.started)}"'
        f',"duration_s":{outcome.duration_s:.6f},{spent}{came}}}'
    )
    again = outcome.error_type == LOOP_BLOCKED
    return Line(text.encode(), key, fingerprint, CANCELLATION if again else word)


@functools.lru_cache(maxsize=8)
def _beginning(run_id: str) -> str:
    return f'{{"type":"item","run_id":{_quoted(run_id)},"key":'


class Journal:
    """
    An open journal.

    Args:
        path: of the file; made when it does not exist.
        fsync: `each` line, by `interval` (call `sync` about once a second), or `never`.
    """

    def __init__(self, path: str | os.PathLike[str], fsync: str) -> None:
        self.path = Path(path)
        self.fsync = fsync
        self.operation = ""
        """The batch whose runs it holds, if it holds any."""
        self.spent = Cost()
        """What the runs before have spent."""
        self.runs = 0
        self.bad_lines = 0
        self.full: OSError | None = None
        """Set once the disk was full and the reserve was given back: time to stop."""
        self._done: dict[str, _Place] = {}
        self._dirty = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(self.path, flags, 0o640)
        except OSError as error:
            message = (
                f"{self.path}: the journal cannot be opened ({error.strerror}); choose another path"
            )
            raise JournalUnusable(message) from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                message = f"{self.path}: the journal must be a regular file; choose another path"
                raise JournalUnusable(message)
            self._lock()
            self._end = self._load()
            self._reserve = self.path.with_name(self.path.name + ".reserve")
            self._set_aside()
        except OSError as error:
            os.close(self._file)
            message = f"{self.path}: the journal cannot be used ({error.strerror}); free its disk, or choose another path"
            raise JournalUnusable(message) from error
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._done)

    def find(self, key: str, fingerprint: str) -> str | None:
        """The terminal outcome of a key, when it has one under this fingerprint."""
        place = self._done.get(key)
        return place[1] if place is not None and place[0] == fingerprint else None

    def is_done(self, key: str, fingerprint: str, resume: str | bool) -> bool:
        """Whether an item needs no work, as `resume` asks for it."""
        if resume is False or resume == "all":
            return False
        done = self.find(key, fingerprint)
        return done is not None and not (resume == "failed" and done in (FAILURE, TIMEOUT))

    def read(self, key: str) -> dict[str, Any]:
        """The line that ended an item."""
        _, _, offset, length = self._done[key]
        line: dict[str, Any] = json.loads(os.pread(self._file, length, offset))
        return line

    def append(self, line: Line) -> None:
        """Write one line, whole or not at all; OSError when the disk does not take it."""
        data, key, fingerprint, outcome = line
        offset = self._end
        whole = data + b"\n"
        try:
            self._write(whole)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._release():
                raise
            self.full = error
            self._write(whole)
        self._dirty = True
        if key is not None and outcome in TERMINAL:
            self._done[key] = (fingerprint, outcome, offset, len(data))

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file)

    def close(self) -> None:
        """Sync, give the reserve back, let go of the lock."""
        try:
            self.sync()
        finally:
            self._release()
            os.close(self._file)

    def _write(self, data: bytes) -> None:
        """All of it, or the file as it was."""
        try:
            left = len(data) - os.write(self._file, data)
            while left:
                left -= os.write(self._file, data[-left:])
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = self._owner()
            message = (
                f"{self.path}: another run works on this journal ({owner}); "
                "wait for it, stop it, or give this run a journal of its own"
            )
            raise JournalInUse(message) from error

    def _owner(self) -> str:
        """The run that holds the lock: the last one that wrote its beginning."""
        pid = None
        for line, _, _ in self._lines():
            if isinstance(line, dict) and line.get("type") == "run":
                pid = line.get("pid")
        if not isinstance(pid, int):
            return "pid unknown, it has only just started"
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return f"pid {pid} has ended, but a child process of it still holds the file"
        except OSError:
            pass  # it runs, as another user
        return f"pid {pid}"

    def _load(self) -> int:
        """Read all lines, repair the tail; gives the end of the file."""
        end = 0
        for line, offset, length in self._lines():
            end = offset + length + 1
            if not isinstance(line, dict):
                self.bad_lines += 1
            elif line.get("type") == "run":
                self.runs += 1
                self.operation = str(line.get("operation") or self.operation)
            elif line.get("type") == "item":
                self._remember(line, offset, length)
                self._count_cost(line)
        size = os.fstat(self._file).st_size
        if end > size:
            os.write(self._file, b"\n")  # a whole line that lacks only its end
        elif end < size:
            os.ftruncate(self._file, end)
        if self.bad_lines:
            text = (
                f"{self.path}: {self.bad_lines} damaged lines skipped; their items are done again"
            )
            _diagnostics.say("journal", text, always=True)
        return end

    def _remember(self, line: dict[str, Any], offset: int, length: int) -> None:
        key, outcome, fingerprint = line.get("key"), line.get("outcome"), line.get("fingerprint")
        if line.get("error_type") == LOOP_BLOCKED:
            return  # not its fault: it is worked on again
        if isinstance(key, str) and isinstance(fingerprint, str) and outcome in TERMINAL:
            self._done[key] = (fingerprint, str(outcome), offset, length)

    def _count_cost(self, line: dict[str, Any]) -> None:
        """Every line counts, also of an item that was tried again: it was paid for each time."""
        money = _values.money(line.get("cost")) or Decimal(0)
        tokens = [_values.whole(line.get(name)) or 0 for name in ("tokens_in", "tokens_out")]
        self.spent.add(money, *tokens)

    def _lines(self) -> Iterator[tuple[Any, int, int]]:
        """Each line as (value or None, offset, length); a torn tail is left out."""
        offset = 0
        rest = b""
        while chunk := os.pread(self._file, CHUNK, offset + len(rest)):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                yield _parsed(raw), offset, len(raw)
                offset += len(raw) + 1
        if rest and isinstance(line := _parsed(rest), dict):
            yield line, offset, len(rest)

    def _set_aside(self) -> None:
        with contextlib.suppress(OSError):  # a disk without room even for this will be noticed soon
            made = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640)
            try:
                os.posix_fallocate(made, 0, RESERVE_BYTES)
            finally:
                os.close(made)

    def _release(self) -> bool:
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def opened(plan: Plan, run_id: str, stack: contextlib.ExitStack) -> Journal | None:
    """The journal of a run, which begins in it here; None without one. Raises BatchError."""
    if plan.journal is None:
        return None
    journal = Journal(plan.journal, plan.fsync)
    stack.callback(journal.close)
    if journal.operation not in ("", plan.name):
        message = (
            f"{plan.journal}: the journal is of the batch {journal.operation!r}, and this one is"
            f" {plan.name!r}; give it a journal of its own"
        )
        raise JournalUnusable(message)
    if plan.resume is False and len(journal):
        message = (
            f"{plan.journal}: the journal holds {len(journal)} finished items; "
            "remove it to start anew, or choose what to resume"
        )
        raise JournalUnusable(message)
    line = {
        "type": "run",
        "schema": SCHEMA,
        "run_id": run_id,
        "operation": plan.name,
        "attempt": journal.runs + 1,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "timestamp": progress.timestamp(time.time()),
    }
    try:
        journal.append(Line(encode(line)))
    except OSError as error:
        message = f"{plan.journal}: the journal cannot be written ({error.strerror}); free its disk"
        raise JournalUnusable(message) from error
    return journal


@dataclass(slots=True)
class PastRun:
    """What one run has left in a journal."""

    run_id: str
    began: str
    attempt: int
    result: str = "not ended"
    outcomes: Counter[str] = field(default_factory=Counter)
    cost: Decimal = Decimal(0)
    tokens_in: int = 0
    tokens_out: int = 0

    def shown(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "run_id": self.run_id,
            "attempt": self.attempt,
            "began": self.began,
            "result": self.result,
            "outcomes": dict(self.outcomes),
            "cost": float(self.cost),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
        }

    def line(self) -> str:
        """For people."""
        outcomes = ", ".join(f"{name} {count}" for name, count in self.outcomes.items())
        return (
            f"{self.attempt}. {self.run_id} {self.began}: {self.result}, {outcomes or 'no items'},"
            f" cost {self.cost}"
        )


def runs_of(path: Path) -> list[PastRun]:
    """The runs of a journal, in their order, whether it is in use or not; damaged lines are left out."""
    found: dict[str, PastRun] = {}
    with path.open("rb") as file:
        for raw in file:
            line = _parsed(raw)
            if not isinstance(line, dict):
                continue
            kind, run = line.get("type"), found.get(str(line.get("run_id")))
            if kind == "run":
                run_id, began = str(line.get("run_id")), str(line.get("timestamp"))
                found[run_id] = PastRun(run_id, began, len(found) + 1)
            elif run is not None and kind == "end":
                run.result = str(line.get("result"))
            elif run is not None and kind == "item":
                run.outcomes[str(line.get("outcome"))] += 1
                run.cost += _values.money(line.get("cost")) or Decimal(0)
                run.tokens_in += _values.whole(line.get("tokens_in")) or 0
                run.tokens_out += _values.whole(line.get("tokens_out")) or 0
    return list(found.values())
