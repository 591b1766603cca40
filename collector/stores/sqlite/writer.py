"""
One SQLite file of one collector: its lock, and the only thread that writes to it.

Group commit: whatever was queued while the last commit ran goes into one transaction, so one fsync
serves all requests that wait (WAL, `synchronous=FULL`: NORMAL loses acknowledged rows in a power cut).
Exactly one connection writes and checkpoints, because SQLite before 3.51.3 can corrupt a WAL that
two connections reset at once; a lock file beside the database keeps a second collector out. The lock
is on a file of its own, because closing any descriptor of the database would drop SQLite's locks.

After a good many rows the log is moved into the file, once those who waited have their answer: that
takes two more fsyncs, and what was acknowledged is safe in the log.

The same thread tends the file between commits (stores/sqlite/maintenance.py), one small step at a time, so
that no request waits long for it.

A connection that failed is thrown away, and the next commit opens a new one: after a failed fsync
nothing that the old descriptor says can be trusted.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collector.errors import Retryable, StartFailed
from collector.stores.sqlite.maintenance import Maintenance
from collector.stores.sqlite.private_files import make_private, open_private
from collector.stores.sqlite.schema import Statement, connect

MAX_WAITING: Final = 100_000
"""Documents that may wait for a commit; more is refused for now."""

MAX_GROUP: Final = 20_000
"""Documents in one transaction, which bounds how long the first of them waits."""

MOVED_AFTER: Final = 10_000
"""Rows after which the log is moved into the file: about 25 MB of spans."""


def lock(path: Path) -> int:
    """
    Take the lock of a database; the descriptor holds it until it is closed, or the process ends.

    Raises:
        StartFailed: another process holds it, or a link stands where a file belongs.
        OSError: the folder or the lock file cannot be made.
    """
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor = open_private(path.with_name(f"{path.name}.lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StartFailed(
            f"{path} is in use by another collector (process {owner or 'unknown'}): "
            "stop that one, or give this one a `path` of its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    try:
        make_private(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@dataclass(slots=True)
class Write:
    """
    The rows of one `write` on their way to a commit.

    Args:
        statement: run for each row; how many rows it changed is the answer.
        values: its parameters, those of one row behind those of another.
        more: further statements and parameters for the same transaction, not counted.
        done: gets the answer.
    """

    statement: Statement
    values: Sequence[Any]
    more: Sequence[tuple[Statement, Sequence[Any]]]
    done: asyncio.Future[int]

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return len(self.values) // self.statement.width


class Writer:
    """
    The thread that writes.

    Args:
        path: the database; `lock` it first.
        route: the collection of a log record, given as JSON; an older file needs it.
        maintenance: what is to be done between commits.
    """

    def __init__(self, path: Path, route: Callable[[str], str], maintenance: Maintenance) -> None:
        self._path = path
        self._route = route
        self._maintenance = maintenance
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None
        self._moved = 0
        self._loop = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Open the file, begin to write."""
        self._connection = await asyncio.to_thread(connect, self._path, self._route)
        self._thread = threading.Thread(target=self._run, name="sqlite-writer")
        self._thread.start()

    async def stop(self) -> None:
        """Commit what is queued, close."""
        thread, self._thread = self._thread, None  # from here on `write` refuses
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    async def write(
        self,
        statement: Statement,
        values: Sequence[Any],
        more: Sequence[tuple[Statement, Sequence[Any]]] = (),
    ) -> int:
        """
        Commit rows; those whose id is there already change nothing.

        Returns:
            How many rows `statement` changed.

        Raises:
            Retryable: nothing of it was stored, or (when the file fails in mid-commit) unknown.
        """
        if self._thread is None:
            raise Retryable(f"the SQLite store {self._path} is closed")
        write = Write(statement, values, more, self._loop.create_future())
        rows = write.rows
        if self._waiting and self._waiting + rows > MAX_WAITING:
            raise Retryable(f"{self._waiting} documents wait for the disk of {self._path} already")
        self._waiting += rows
        try:
            self._queue.put(write)
            return await write.done
        finally:
            self._waiting -= rows

    def _run(self) -> None:
        running = True
        while running:
            group, running = self._gather()
            if group:
                results = self._outcomes(group)
                # A loop that is gone took its futures with it.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_resolve, group, results)
                self._move()
            self._tend(running=running)
        if self._connection is not None:
            self._connection.close()

    def _gather(self) -> tuple[list[Write], bool]:
        """What is queued; nothing when maintenance is due before something comes; False at the end."""
        group: list[Write] = []
        size = 0
        wait_s: float = self._maintenance.wait_s()
        while size < MAX_GROUP:
            try:
                item = self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            if item is None:
                return group, False
            group.append(item)
            size += item.rows
            wait_s = 0.0
        return group, True

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path, self._route)
            self._moved = 0
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # rolls back

    def _move(self) -> None:
        """Move the log into the file when it is long enough."""
        connection = self._connection
        if connection is None or connection.total_changes - self._moved < MOVED_AFTER:
            return
        self._moved = connection.total_changes
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:  # the log has everything; SQLite tries again by itself
            self._drop()

    def _tend(self, *, running: bool) -> None:
        """One step of maintenance, when it is due; the last one at the end."""
        if running and self._maintenance.wait_s() > 0:
            return
        try:
            connection = self._open()
            if running:
                self._maintenance.step(connection)
            else:
                self._maintenance.finish(connection)
        except Exception as error:  # the data goes first; it is tried again
            self._drop()
            self._maintenance.failed(error)

    def _outcomes(self, group: Sequence[Write]) -> Sequence[int | Exception]:
        try:
            return self._commit(group)
        except StartFailed as error:  # another file stands there now
            return [Retryable(str(error))] * len(group)
        except Exception as error:
            bad_row = isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError)
            if isinstance(error, sqlite3.Error) and not bad_row:
                return [Retryable(advice(self._path, error))] * len(group)
            if len(group) > 1:  # one write is bad: the others must not fall with it
                return [outcome for write in group for outcome in self._outcomes([write])]
            return [error]

    def _commit(self, group: Sequence[Write]) -> list[int]:
        connection = self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            counts = _together(connection, group)
            if counts is None:
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                counts = [_alone(connection, write) for write in group]
            connection.execute("COMMIT")
        except BaseException:
            self._drop()
            raise
        return counts


def _together(connection: sqlite3.Connection, group: Sequence[Write]) -> list[int] | None:
    """
    Run the statements of a group with as few calls as possible; how many rows each write changed.

    Returns:
        None when only one after the other shows it: some rows were there already, or these are
        not all new rows.
    """
    if len(group) == 1 or any(not write.statement.many for write in group):
        return None
    joined: dict[Statement, list[Any]] = {}
    others: dict[Statement, list[Any]] = {}
    for write in group:
        joined.setdefault(write.statement, []).extend(write.values)
        for statement, values in write.more:
            others.setdefault(statement, []).extend(values)
    for statement, values in joined.items():
        before = connection.total_changes
        _execute(connection, statement, values)
        if (connection.total_changes - before) * statement.width != len(values):
            return None
    for statement, values in others.items():
        _execute(connection, statement, values)
    return [write.rows for write in group]


def _alone(connection: sqlite3.Connection, write: Write) -> int:
    """Run the statements of one write; how many rows the first of them changed."""
    before = connection.total_changes
    _execute(connection, write.statement, write.values)
    changed = connection.total_changes - before
    for statement, values in write.more:
        _execute(connection, statement, values)
    return changed


def _execute(connection: sqlite3.Connection, statement: Statement, values: Sequence[Any]) -> None:
    """
    Run a statement for each row, many rows at a time where it can be had.

    Around each step SQLite's thread waits for the GIL, up to the switch interval for each thread
    that computes; at several thousand rows a commit that was most of what the writer did.
    """
    done, end, width = 0, len(values), statement.width
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    for size, many in statement.many:
        while size <= most and end - done >= size:
            connection.execute(many, values[done : done + size])
            done += size
    if done < end:
        rest = (values[at : at + width] for at in range(done, end, width))
        connection.executemany(statement.text, rest)


def _resolve(group: Sequence[Write], results: Sequence[int | Exception]) -> None:
    for write, result in zip(group, results, strict=True):
        if write.done.done():  # the caller has given up
            continue
        if isinstance(result, Exception):
            write.done.set_exception(result)
        else:
            write.done.set_result(result)


_ADVICE: Final = {
    "SQLITE_FULL": "free some disk space",
    "SQLITE_READONLY": "give this user write permission to the file and its folder",
    "SQLITE_CANTOPEN": "give this user write permission to the file and its folder",
    "SQLITE_BUSY": "end the other program that writes to the file",
    "SQLITE_NOTADB": "the file is no SQLite database; set `path` to another file",
    "SQLITE_CORRUPT": "the file is damaged; move it away and start again",
}


def advice(path: Path, error: sqlite3.Error) -> str:
    """One line: where, what, and what to do."""
    name: str = getattr(error, "sqlite_errorname", "")
    known = [fix for code, fix in _ADVICE.items() if name.startswith(code)]
    return f"{path}: {error}" + (f": {known[0]}" if known else f" ({name})" if name else "")
