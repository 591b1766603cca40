"""
The file exporter: batches as lines, for people who `tail` and `grep`.

The call returns when the lines are on disk (`fsync: batch`), because acknowledged means stored. What
a batch adds to a file is one write of whole lines in O_APPEND; a write that fails half-way is cut
back, in all files of the batch, so that a resend does not stand there twice. Whatever a crash left
behind the last newline is moved to `<path>.torn` at open: it was never acknowledged, but it is not
ours to delete.

All work on the files, and the encoding before it, happens in one thread per exporter: the loop
never waits for a disk, and no two writes can meet, not even when a caller is cancelled. A file is
locked for as long as it is open, because cutting back is only safe for a single writer. When
somebody moves or deletes the file (logrotate), the next batch opens a new one. Files that were put
aside are compressed in a second thread of low priority.

A failed fsync is final for its descriptor (the kernel may have dropped the pages and reports it
once): the file is opened again before anything else is acknowledged.

    _file_routes    which file a record belongs to      _file_lines     what stands in it
    _file_shelf     one batch into several files        _file_rotation  when a file is put aside
    _file_places    names that come from data           _file_backups   compressing and deleting
    _file_journal   what was written before a kill
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from collector.documents.build import Document, documents
from collector.errors import Retryable, StartFailed
from collector.exporters.file.appender import Appender, explain, make_folders
from collector.exporters.file.cleanup import Tidying
from collector.exporters.file.config import (
    STRONGEST,
    Compression,
    CompressionParams,
    Format,
    GroupBy,
    Rotation,
    Route,
    path_problems,
)
from collector.exporters.file.format import encoded
from collector.exporters.file.journal import Journal, identity
from collector.exporters.file.paths import Pattern
from collector.exporters.file.rotation import Keeping
from collector.exporters.file.routes import Router
from collector.exporters.file.writers import Groups, Piece, Shelf, Target
from collector.model import Batch, Duration, Host, OnRequest
from collector.otlp import count
from collector.sending_queue.config import RetryOnFailure, SendingQueue

OPEN_FILES: Final = 100
TURN_S: Final = 60.0
BUSY_S: Final = 3.0
"""When a sender should try again after the disk was full."""


class File:
    """
    Appends batches to files.

    Args:
        config: which.
        host: what the service gives.
        clock: seconds since 1970; the day of a file is the day of writing.
        turn_s: how often files of days that are over are looked for.
    """

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the file exporter."""

        path: str = ""
        """The file. It is appended to, never truncated; symbolic links are not followed. With
        `routes` it takes what no route takes, and may be left out."""
        format: Format = "json"
        """`json`: one document per line, the shape that stores and answers have. `text`, `logfmt`:
        lines for people. `otlp_json`: one OTLP/JSON export request per line, what the OpenTelemetry
        Collector calls `json`. `otlp_proto`, also `proto`: the requests in protobuf, each behind
        its length."""
        rotation: OnRequest[Rotation] = None
        """When the file is put aside and a new one begun; off until the key is there."""
        compression: Compression = ""
        """`gzip` or `zstd`: of files that were put aside, in the background."""
        compression_params: CompressionParams | None = None
        """How hard to compress."""
        routes: list[Route] = []
        """Files of their own for some of the records. A record goes to every route that takes it."""
        group_by: GroupBy | None = None
        """A file for each value of a resource attribute, which takes the place of the `*` in
        `path`."""
        fsync: Literal["batch", "interval", "never"] = "batch"
        """When data is forced to disk: before each answer (`batch`), every `flush_interval`
        (`interval`), or when the system likes (`never`). The last two can lose acknowledged data in
        a power cut."""
        flush_interval: Duration = Duration(1.0)
        """How often `fsync: interval` forces data to disk."""
        append: bool = True
        """Only `true`: starting never deletes what was acknowledged."""
        encoding: str = ""
        """Only empty: there are no encoding extensions; `format` says what stands in a file."""
        create_directory: bool = False
        """Make the folder of `path` and of each route when it is missing."""
        directory_permissions: str = "0750"
        """Mode of the folders made, in octal digits."""
        sending_queue: OnRequest[SendingQueue] = None
        """A queue in front of this exporter, see "Delivery"; off until the key is there."""
        retry_on_failure: OnRequest[RetryOnFailure] = None
        """How the queue tries again, see "Delivery"."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            for problem in path_problems(self.path, self.group_by, self.routes):
                raise ValueError(problem)
            if not self.append:
                raise ValueError(
                    "'append: false' would delete acknowledged data at every start; "
                    "remove the key, and delete the file yourself when you want it empty"
                )
            if self.encoding:
                raise ValueError(
                    f'encoding "{self.encoding}" needs an extension that does not exist here; '
                    "use format: otlp_json, otlp_proto, json, text or logfmt"
                )
            if not re.fullmatch("0?[0-7]{3}", self.directory_permissions):
                raise ValueError(
                    f'directory_permissions "{self.directory_permissions}" is not an octal mode; '
                    'write it in quotes, like "0750"'
                )
            if self.flush_interval <= 0:
                raise ValueError("flush_interval must be larger than zero")
            level = self.compression_params.level if self.compression_params else 0
            methods = {self.compression, *(each.compression for each in self.routes)}
            strongest = min(STRONGEST[each] for each in methods & set(STRONGEST) or STRONGEST)
            if not 0 <= level <= strongest:
                raise ValueError(
                    f"compression_params.level must be 0 to {strongest}, found {level}"
                )

    def __init__(
        self,
        config: Config,
        host: Host,
        clock: Callable[[], float] = time.time,
        turn_s: float = TURN_S,
    ) -> None:
        self.config = config
        self.host = host
        self._clock = clock
        self._turn_s = turn_s
        self._router = Router(config.routes)
        self._routes = [Target(keeping(config, route)) for route in config.routes]
        taken = frozenset(os.path.abspath(route.path) for route in config.routes)  # noqa: PTH100
        self._rest = self._rest_target(taken)
        self._shelf = Shelf(
            limit=config.group_by.max_open_files if config.group_by else OPEN_FILES,
            sync=config.fsync != "never",
            folder_mode=int(config.directory_permissions, 8),
            torn=self._torn,
            turned=self._turned,
        )
        self._tidying = Tidying(host, clock, taken)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"file {host.id}")
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: Appender | None = None
        self._journal: Journal | None = None
        self._unheard = False
        self._told = False

    def _rest_target(self, taken: frozenset[str]) -> Target | None:
        """Where records go that no route takes."""
        config = self.config
        if not config.path:
            return None
        rest = keeping(config)
        if config.group_by is None:
            return Target(rest)
        return Target(rest, Groups(config.group_by, rest.pattern, taken, self._refused))

    def describe(self) -> str:
        """Where the lines go."""
        config = self.config
        parts = [f"{len(config.routes)} files by routes"] if config.routes else []
        if config.path:
            what = "frames" if config.format.endswith("proto") else "lines"
            parts.append(f"{config.format} {what} in {config.path}")
        return ", ".join(parts)

    @property
    def durability(self) -> str:
        """What an answer means."""
        return {
            "batch": "answered after fsync",
            "interval": f"fsync every {self.config.flush_interval:g}s: "
            "a power cut loses what was answered since the last one",
            "never": "no fsync: a power cut loses what was answered",
        }[self.config.fsync]

    async def __aenter__(self) -> Self:
        """Open the files, or say in one line why that cannot be done."""
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._thread.shutdown()
            await asyncio.to_thread(self._tidying.close)
            raise
        if self.config.fsync == "interval":
            self._tasks.append(asyncio.create_task(self._sync_forever()))
        if any(target.keeping.rotation for target in self._targets()):
            self._tasks.append(asyncio.create_task(self._turn_forever()))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Force everything to disk, as far as the settings ask for it, and close."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        try:
            await self._in_thread(self._close)
        finally:
            self._thread.shutdown(wait=False)
            await asyncio.to_thread(self._tidying.close)

    async def __call__(self, batch: Batch) -> None:
        """
        Append a batch.

        Raises:
            Retryable: the disk is full or failing; nothing of the batch is in any file.
        """
        try:
            await self._in_thread(self._take, batch)
        except OSError as error:
            reason = f"cannot write to {error.filename}: {error.strerror or error}"
            raise Retryable(reason, delay_s=BUSY_S) from error
        except asyncio.CancelledError:
            self._unheard = True  # it is written, and may come again at the next start
            raise

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # --- in the thread ---

    def _targets(self) -> Iterator[Target]:
        if self._rest is not None:
            yield self._rest
        yield from self._routes

    def _open(self) -> None:
        now = self._clock()
        for target in self._targets():
            pattern = target.keeping.pattern
            path = pattern.fill("").path if target.groups is None else Path(pattern.path)
            try:
                if self.config.create_directory:
                    make_folders(pattern.base, int(self.config.directory_permissions, 8))
                if target.groups is None:
                    self._shelf.open(target, now)
                else:  # its files come with the data: two writers must meet at the start
                    self._lock = Appender(pattern.lock)
                    self._lock.open()
            except OSError as error:
                self._close()
                raise StartFailed(explain(path, error)) from error
            if target.keeping.compression and target.keeping.rotation is None:
                self.host.log.warning(
                    "compression of %s has no effect: only files that rotation puts aside are "
                    "compressed; add rotation",
                    pattern.path,
                )
            self._tidying.due(target.keeping)
        if self.config.fsync == "batch":  # else what was done is not on disk for sure
            first = next(self._targets()).keeping.pattern
            journal = Journal(first.journal.path, self._torn)
            try:
                journal.open()
            except OSError as error:
                self.host.log.warning(
                    "cannot write %s: %s; after a kill a request may be written twice",
                    journal.path, error.strerror,
                )  # fmt: skip
            else:
                self._journal = journal

    def _close(self) -> None:
        try:
            self._shelf.close()
        finally:
            if self._lock is not None:
                self._lock.close(sync=False)
            if self._journal is not None:
                self._journal.close(keep=self._unheard)

    def _take(self, batch: Batch) -> None:
        journal, sync = self._journal, self.config.fsync == "batch"
        request = identity(batch) if journal is not None else b""
        if journal is not None and journal.knows(request):
            self.host.stats.add("otelier_file_recognised_requests", exporter=self.host.id)
            return
        pieces = [piece for piece in self._pieces(batch) if piece.data]
        if not pieces:
            return
        self._shelf.write(pieces, self._clock(), sync=sync, journal=journal, request=request)
        if journal is not None:
            journal.done(request)

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        """What goes where; a target that gets everything gets it without being sorted."""
        if not count(batch.signal, batch.message):
            return
        if not self._routes and self._rest is not None and self._rest.groups is None:
            style = self._rest.keeping.format
            found = None if style.startswith("otlp") else documents(batch)
            yield Piece(self._rest, "", encoded(style, batch, found))
            return
        everything = documents(batch)
        sorted_out: dict[tuple[int, str], list[Document]] = {}
        lost = 0
        for document in everything:
            routes = self._router.of(document, batch.signal)
            for index in routes:
                sorted_out.setdefault((index, ""), []).append(document)
            if routes:
                continue
            if self._rest is None:
                lost += 1
                continue
            group = self._rest.groups.of(document) if self._rest.groups is not None else ""
            sorted_out.setdefault((-1, group), []).append(document)
        if lost:
            self.host.stats.add("otelier_file_not_routed", lost, exporter=self.host.id)
        for (index, group), found in sorted_out.items():
            target = self._rest if index < 0 else self._routes[index]
            if target is not None:
                style = target.keeping.format
                whole = style.startswith("otlp") and len(found) == len(everything)
                yield Piece(target, group, encoded(style, batch, None if whole else found))

    def _torn(self, path: Path, size: int) -> None:
        self.host.stats.add("otelier_file_torn_bytes", size, exporter=self.host.id)
        self.host.log.warning(
            "%s ended in the middle of a record; its last %d bytes are now in %s.torn",
            path, size, path,
        )  # fmt: skip

    def _turned(self, kept: Keeping) -> None:
        self.host.stats.add("otelier_file_rotated", exporter=self.host.id)
        self._tidying.due(kept)

    def _refused(self) -> None:
        self.host.stats.add("otelier_file_refused_names", exporter=self.host.id)
        if not self._told and self.config.group_by is not None:
            self._told = True
            self.host.log.warning(
                'group_by: a value of %s may not become part of a path; such records are in "%s"; '
                "see allowed and max_groups, and the counter otelier_file_refused_names",
                self.config.group_by.resource_attribute,
                self.config.group_by.otherwise,
            )

    def _turn(self) -> None:
        self._shelf.turn(self._clock())
        for target in self._targets():
            self._tidying.due(target.keeping)

    def _sync(self) -> None:
        for path, error in self._shelf.sync():
            self.host.stats.add("otelier_file_sync_failed", exporter=self.host.id)
            self.host.log.warning("cannot sync %s: %s", path, error)

    # --- from time to time ---

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self.config.flush_interval)
            await self._in_thread(self._sync)

    async def _turn_forever(self) -> None:
        while True:
            await asyncio.sleep(self._turn_s)
            try:
                await self._in_thread(self._turn)
            except OSError as error:
                self.host.stats.add("otelier_file_sync_failed", exporter=self.host.id)
                self.host.log.warning("cannot close the file of a day that is over: %s", error)


def keeping(config: File.Config, route: Route | None = None) -> Keeping:
    """The rules of a path: those of the route, else the exporter's."""
    style = (route.format if route else "") or config.format
    compression = (route.compression if route else "") or config.compression
    return Keeping(
        pattern=Pattern(route.path if route else config.path),
        format="otlp_proto" if style == "proto" else style,
        rotation=(route.rotation if route else None) or config.rotation,
        compression="" if compression == "none" else compression,
        level=config.compression_params.level if config.compression_params else 0,
    )
