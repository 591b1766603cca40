"""
The thread that tidies up behind the writer: see exporters/file/backups.py for what it does.

Paths that have something to do are queued, each at most once. What cannot be done is
counted and tried again with the next rotation, or at the next start.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from collector.exporters.file.backups import Stopped, tidy
from collector.exporters.file.rotation import Keeping
from collector.model import Host

NICE = 10


class Cleanup:
    """
    Compresses and deletes files that were put aside.

    Args:
        host: of the exporter.
        clock: seconds since 1970.
        reserved: paths that are not tidied up with a pattern that they fit.
    """

    def __init__(self, host: Host, clock: Callable[[], float], reserved: frozenset[str]) -> None:
        self._host = host
        self._clock = clock
        self._reserved = reserved
        self._stop = threading.Event()
        self._due: set[str] = set()
        self._lock = threading.Lock()
        name = f"file {host.id} cleanup"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name, initializer=calm)

    def due(self, keeping: Keeping) -> None:
        """There is something to do; returns at once, from any thread."""
        with self._lock:
            if self._stop.is_set() or keeping.rotation is None or keeping.pattern.path in self._due:
                return
            self._due.add(keeping.pattern.path)
            self._thread.submit(self._tidy, keeping)

    def close(self) -> None:
        """Stop; what is being compressed is left as it was."""
        with self._lock:
            self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _tidy(self, keeping: Keeping) -> None:
        with self._lock:
            self._due.discard(keeping.pattern.path)
        stats, exporter = self._host.stats, self._host.id
        reserved = self._reserved if keeping.pattern.grouped else frozenset()
        try:
            packed, deleted = tidy(keeping, self._clock(), reserved, self._stop)
        except Stopped:
            return
        except Exception as error:
            stats.add("otelier_file_tidying_failed", exporter=exporter)
            self._host.log.warning(
                "cannot compress or delete what was put aside of %s: %s; it is tried again",
                keeping.pattern.path,
                error,
            )
            return
        if packed:
            stats.add("otelier_file_compressed", packed, exporter=exporter)
        if deleted:
            stats.add("otelier_file_backups_deleted", deleted, exporter=exporter)


def calm() -> None:
    """Let all other threads go first."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
