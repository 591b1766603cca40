"""
Delivers what lies in the spool: this process's own spilled requests, and orphans of earlier ones.

One daemon thread per process, started with the first record. A second after that, and then every
half minute, it looks for files without an owner; each second, for a while, when a process has just
been killed. Own spilled files are tried as soon as their queue gets through again. Exactly one process has a file at a time (see `_spool`). Requests are
sent again with the bytes that they were first sent with, oldest first, each is marked in the file
when it is delivered, and a file with nothing left to deliver is deleted.

What is older than the age limit is dropped and counted, as is what the collector refuses for good.
Records of this process return to its ledger; those of others have a ledger of their own (`adopted`).
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from telemetry import _diagnostics, _otel_context, _values
from telemetry._export.drop_reasons import EXPORT_FAILED, SPOOL_EXPIRED, TOO_LARGE
from telemetry._export.queue import ExportQueue
from telemetry._export.result import Export, Outcome, Result
from telemetry._spool import file as _spool
from telemetry._spool.file import SpoolFile, Unit
from telemetry._spool.spool import Spool

FIRST_S: Final = 1.0
ROUND_S: Final = 30.0
POLL_S: Final = 1.0
PAUSE_S: Final = (1.0, 60.0)
WATCH_S: Final = 15.0
"""How long a file of a killed process is looked for: its owner dies a moment after the news of it."""


class Replay:
    """
    The thread that empties the spool.

    Args:
        spool: of this process.
        queues: signal -> who keeps the ledger of our own records, and knows whether one gets through.
        makers: signal -> what makes an Export that can `send`.
        timeout_s: how long one request may take.
        max_age_s: what is older is dropped.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        queues: dict[str, ExportQueue],
        makers: dict[str, Callable[[], Export]],
        timeout_s: float,
        max_age_s: float,
    ) -> None:
        self._spool = spool
        self._queues = queues
        self._makers = makers
        self._timeout_s = timeout_s
        self._max_age_s = max_age_s
        self._reset()
        _replays.add(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._watched_until = float("-inf")
        self._exports: dict[str, Any] = {}
        self._failures = 0
        self._file: SpoolFile | None = None
        self.adopted: dict[str, dict[str, Any]] = {}
        """Signal -> exported, and dropped by reason, of records that earlier processes made."""

    def after_fork(self) -> None:
        """In the child: the thread is the parent's, and so is the file that it has."""
        if self._pid == os.getpid():
            return
        file = self._file
        self._reset()
        if file is not None:
            file.close()  # an inherited descriptor would keep it locked

    def start(self) -> None:
        """Start this process's thread, once."""
        self.after_fork()
        with self._lock:
            if self._thread is not None or self._closed:
                return
            self._thread = threading.Thread(target=self._run, name="otelier-replay", daemon=True)
            thread = self._thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter is going down: the next process will do it
            with self._lock:
                self._thread = None

    def watch(self) -> None:
        """Look for orphans each second, for a while: a process of ours has been killed."""
        self.start()
        with self._lock:
            self._watched_until = time.monotonic() + WATCH_S

    def close(self) -> None:
        """Do no more; what is being sent is sent again by the next process."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        _otel_context.suppress()
        pid = self._pid
        due = time.monotonic() + FIRST_S
        while self._pid == pid:
            with self._lock:
                self._changed.wait_for(lambda: self._closed, POLL_S)
                if self._closed:
                    break
            try:
                now = time.monotonic()
                if now >= due or (now < self._watched_until and not self._failures):
                    due = time.monotonic() + (self._round() or ROUND_S)
                elif not self._failures:
                    self._own()
            except Exception as error:
                due = time.monotonic() + ROUND_S
                text = f"the spool {self._spool.folder} cannot be read: {_values.text(error, 200)}"
                _diagnostics.say("spool read", text, level="error")
        for export in self._exports.values():
            export.close()

    def _round(self) -> float | None:
        """Try everything once; the pause before the next round, when the collector is away."""
        through = self._own()
        for path in _spool.files(self._spool.folder):
            if not through or self._closed:
                break
            through = self._orphan(path)
        self._failures = 0 if through else self._failures + 1
        least, most = PAUSE_S
        return None if through else min(least * 2 ** min(self._failures - 1, 10), most)

    def _own(self) -> bool:
        """What we have spilled ourselves; False if it cannot be sent now."""
        while not self._closed:
            if any(queue.away() for queue in self._queues.values()):
                return True  # a queue is trying already
            file = self._spool.retired()
            if file is None:
                return True
            self._file = file
            try:
                emptied = self._empty(file, _spool.parse(file.path.read_bytes()).units, own=True)
            except OSError:
                file.close()  # for another process
                raise
            finally:
                self._file = None
            if not emptied:
                self._spool.give_back(file)
                return False
            file.close()
        return True

    def _orphan(self, path: Path) -> bool:
        try:
            taken = SpoolFile.adopt(path)
        except OSError as error:
            text = f"the spool file {path} cannot be read: {_values.text(error, 200)}"
            _diagnostics.say("spool read", text, level="error")
            return True
        if taken is None:
            return True
        file, content = taken
        if content.bad:
            text = f"{path}: {content.bad} damaged frames were skipped"
            _diagnostics.say("spool damage", text)
        self._file = file
        try:
            return self._empty(file, content.units, own=False)
        finally:
            self._file = None
            file.close()

    def _empty(self, file: SpoolFile, units: list[Unit], *, own: bool) -> bool:
        """Deliver a file and delete it; False if the collector does not take it now."""
        all_sent = True
        for unit in units:
            if self._closed or self._pid != os.getpid():
                return False
            if (time.time_ns() - unit.written_ns) / 1e9 > self._max_age_s:
                self._count(unit, SPOOL_EXPIRED, unit.records, own=own)
            elif unit.signal not in self._makers:
                all_sent = False  # this process does not send them: another one will
                continue
            else:
                outcome = self._send(unit)
                if outcome.result in (Result.RETRY, Result.UNREACHABLE):
                    return False
                if outcome.result is Result.DELIVERED:
                    self._count(unit, EXPORT_FAILED, outcome.rejected, own=own)
                else:
                    large = outcome.result is Result.TOO_LARGE
                    reason = TOO_LARGE if large else EXPORT_FAILED
                    self._count(unit, reason, unit.records, own=own)
            file.name(_spool.DONE, unit.ids)
        if all_sent:
            file.remove()
        return True

    def _send(self, unit: Unit) -> Outcome:
        export: Any = self._exports.get(unit.signal)
        if export is None:
            export = self._exports[unit.signal] = self._makers[unit.signal]()
        outcome: Outcome = export.send(unit.body, time.monotonic() + self._timeout_s)
        return outcome

    def _count(self, unit: Unit, reason: str, lost: int, *, own: bool) -> None:
        lost = min(lost, unit.records)
        if own and unit.signal in self._queues:
            self._queues[unit.signal].recovered(unit.records - lost, lost, reason)
            return
        ledger = self.adopted.setdefault(unit.signal, {"exported": 0, "dropped": {}})
        ledger["exported"] += unit.records - lost
        if lost:
            ledger["dropped"][reason] = ledger["dropped"].get(reason, 0) + lost


_replays: "weakref.WeakSet[Replay]" = weakref.WeakSet()


def _after_fork() -> None:
    for replay in list(_replays):
        replay.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
