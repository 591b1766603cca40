"""
The spool of this process: where its queues put what cannot be sent in time.

Two files, made when the first record needs them. The *spill* takes whole requests from queues that
are too full or at their end; from then on they are the replay's to deliver (`_replay`). The *journal*
is for write-through mode: it takes each record as it is emitted, and a mark as soon as it has been
delivered, so that after a SIGKILL the next process finds exactly what was not.

The folder is bounded in bytes over all its files, also those of other processes. When it is full,
new records are refused and the oldest are kept, as in the queues: the beginning of a story explains
more than its end.

Locks are re-entrant, as a signal handler may log while its thread is in here. A forked child lets go
of the files at once: they belong to the parent, and an inherited descriptor would keep them locked.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from telemetry import _diagnostics, _otel_context, _values
from telemetry._export.result import Place
from telemetry._spool import file as _spool
from telemetry._spool.file import SpoolFile

SEGMENT_BYTES: Final = 8 * 1024 * 1024
USED_S: Final = 2.0
"""How long a measured size of the folder is believed, plus what we have written since."""
IDLE_S: Final = 60.0

Encode = Callable[[list[Any]], bytes]
Shed = Callable[[], None]


class Spool:
    """
    The spool of this process.

    Args:
        folder: where the files are.
        service: for their names.
        max_bytes: how large the folder may become.
        through: write-through mode.
        encode: how a signal's records become a request.
    """

    def __init__(
        self,
        folder: Path,
        *,
        service: str,
        max_bytes: int,
        through: bool,
        encode: dict[str, Encode],
    ) -> None:
        self.folder = folder
        self.through = through
        self._service = service
        self._max_bytes = max_bytes
        self._encode = encode
        self._queues: list[Shed] = []
        self._descriptors: list[SpoolFile] = []
        self._reset()
        _spools.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._wanted = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._pressed = False
        self._closed = False
        self._spill: SpoolFile | None = None
        self._journal: SpoolFile | None = None
        self._open_ids: dict[SpoolFile, int] = {}  # journals -> records that are not done yet
        self._retired: deque[SpoolFile] = deque()  # spills that are for the replay
        self._used = 0
        self._used_at = float("-inf")
        self._pid = os.getpid()

    def after_fork(self) -> None:
        """In the child: the files are the parent's."""
        if self._pid == os.getpid():
            return
        mine = [self._spill, self._journal, *self._open_ids, *self._retired]
        self._reset()
        for file in mine:
            if file is not None:
                file.close()

    def takes(self, signal: str) -> bool:
        """Whether a signal can be spooled: it goes to OTLP over HTTP and nowhere else."""
        return signal in self._encode

    def serve(self, shed: Shed) -> None:
        """Call `shed` of a queue when it has asked for it by `wake`."""
        self._queues.append(shed)

    # --- the queues' side: see telemetry._export.result.SpoolProtocol ---

    def encode(self, signal: str, items: list[Any]) -> bytes:
        """Records as a request; may raise."""
        return self._encode[signal](items)

    def keep(self, signal: str, body: bytes, records: int) -> bool:
        """Write a request, to be delivered later; whether it is on disk."""
        self._check_pid()
        try:
            with self._lock:
                if not self._room(len(body)):
                    return False
                if self._spill is None or self._spill.broken:
                    self._retire()
                    self._spill = SpoolFile.create(self.folder, self._service)
                self._spill.request(signal, records, body)
                self._used += len(body) + _spool.FRAME.size
                if self._spill.size >= SEGMENT_BYTES:
                    self._retire()
            return True
        except Exception as error:
            self._complain(error)
            return False

    def note(self, signal: str, body: bytes) -> Place | None:
        """Write one record that the queue goes on carrying."""
        self._check_pid()
        try:
            with self._lock:
                if self._closed or not self._room(len(body)):
                    return None
                file = self._journal
                if file is None or file.broken or file.size >= SEGMENT_BYTES:
                    file = SpoolFile.create(self.folder, self._service)
                    before, self._journal = self._journal, file
                    self._open_ids[file] = 0
                    self._sweep(before)
                self._open_ids[file] += 1
                place = (file, file.request(signal, 1, body))
                self._used += len(body) + _spool.FRAME.size
            return place
        except Exception as error:
            self._complain(error)
            return None

    def seal(self, places: list[Place]) -> None:
        """Note that these are about to be sent as one request."""
        self._mark(_spool.SEAL, places)

    def done(self, places: list[Place]) -> None:
        """Note that these need no delivery any more."""
        self._mark(_spool.DONE, places)

    def _mark(self, kind: int, places: list[Place]) -> None:
        if self._pid != os.getpid():
            return  # the files are the parent's
        grouped: dict[SpoolFile, list[int]] = {}
        for file, number in places:
            grouped.setdefault(file, []).append(number)
        for file, numbers in grouped.items():
            try:
                with self._lock:
                    file.name(kind, tuple(numbers))
                    if kind == _spool.DONE and file in self._open_ids:
                        self._open_ids[file] -= len(numbers)
                        self._sweep(file)
            except Exception as error:
                self._complain(error)

    def _sweep(self, file: SpoolFile | None) -> None:
        """Delete a journal that is full and of which everything is done."""
        if file is not None and file is not self._journal and self._open_ids.get(file) == 0:
            del self._open_ids[file]
            file.remove()

    def _room(self, size: int) -> bool:
        now = time.monotonic()
        if now - self._used_at > USED_S:
            self._used, self._used_at = _spool.used_bytes(self.folder), now
        if self._used + size + _spool.FRAME.size <= self._max_bytes:
            return True
        _diagnostics.say("spool", f"the spool {self.folder} is full ({self._max_bytes} bytes)")
        return False

    def _check_pid(self) -> None:
        if self._pid != os.getpid():
            self.after_fork()

    # --- spilling, in a thread of its own, while the queue's thread waits for the network ---

    def wake(self) -> None:
        """A queue is getting full: have it shed, in another thread."""
        self._check_pid()
        with self._lock:
            if self._pressed or self._closed:
                return
            if time.monotonic() - self._used_at <= USED_S and self._used >= self._max_bytes:
                return  # no room: nothing to be done
            self._pressed = True
            self._wanted.notify_all()
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="otelier-spool", daemon=True)
            thread = self._thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter is going down
            with self._lock:
                self._thread = None

    def _run(self) -> None:
        _otel_context.suppress()
        pid = self._pid
        while self._pid == pid:
            with self._lock:
                self._wanted.wait_for(lambda: self._pressed or self._closed, IDLE_S)
                if self._closed or not self._pressed:
                    self._thread = None
                    return
                self._pressed = False
            for shed in self._queues:
                try:
                    shed()
                except Exception as error:
                    self._complain(error)
            self.sync()

    def sync(self) -> None:
        """Have what was spilled on the disk and not only in the kernel."""
        try:
            if self._spill is not None:
                self._spill.sync()
        except Exception as error:
            self._complain(error)

    # --- the replay's side ---

    def retired(self) -> SpoolFile | None:
        """A file that this process has spilled to and will not again; the caller owns it now."""
        with self._lock:
            if not self._retired:
                self._retire()
            return self._retired.popleft() if self._retired else None

    def give_back(self, file: SpoolFile) -> None:
        """What `retired` gave is not delivered yet."""
        with self._lock:
            if self._closed or self._pid != os.getpid():
                file.close()
            else:
                self._retired.appendleft(file)

    def _retire(self) -> None:
        if self._spill is not None:
            self._retired.append(self._spill)
            self._spill = None

    def tidy(self) -> None:
        """Delete the journal if everything in it is done: later no process may be there to do it."""
        with self._lock:
            journal, self._journal = self._journal, None
            self._sweep(journal)

    def close(self) -> None:
        """Let go of all files: what is in them is for the next process."""
        with self._lock:
            self._closed = True
            self._wanted.notify_all()
            self._retire()
            if self._retired:
                try:
                    self._retired[-1].sync()
                except OSError as error:
                    self._complain(error)
            journal, self._journal = self._journal, None
            self._sweep(journal)
            for file in (*self._retired, *self._open_ids):
                file.close()
            self._retired.clear()
            self._open_ids.clear()

    def _complain(self, error: Exception) -> None:
        _diagnostics.say(
            "spool write",
            f"the spool {self.folder} cannot be written: {_values.text(error, 200)};"
            " check the folder's permissions and free space",
            level="error",
        )


_spools: "weakref.WeakSet[Spool]" = weakref.WeakSet()


def _after_fork() -> None:
    for spool in list(_spools):
        spool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
