"""
The file exporter: batches as lines, for people who `tail` and `grep`.

The call returns when the lines are on disk (`fsync: batch`), because acknowledged means stored. A
batch is one `write` of whole lines in O_APPEND; a write that fails half-way is cut back, so that a
resend does not stand in the file twice. Whatever a crash left behind the last newline is moved to
`<path>.torn` at open: it was never acknowledged, but it is not ours to delete.

All work on the file, and the encoding before it, happens in one thread per file: the loop never
waits for a disk, and no two writes can meet, not even when a caller is cancelled. The file is
locked for as long as it is open, because cutting back is only safe for a single writer. When
somebody moves or deletes the file (logrotate), the next batch opens a new one.

A failed fsync is final for its descriptor (the kernel may have dropped the pages and reports it
once): the file is opened again before anything else is acknowledged.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from collector.documents import documents, dumps
from collector.errors import Retryable, StartFailed
from collector.exporters._file_appender import Appender, explain, make_folders
from collector.model import Batch, Duration, Host, OnRequest
from collector.otlp import encode_json
from collector.sending import RetryOnFailure, SendingQueue


class File:
    """Appends batches to a file of lines."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of one file."""

        path: str
        """The file. It is appended to, never truncated; symbolic links are not followed."""
        format: Literal["json", "otlp_json"] = "json"
        """`json`: one document per line, the shape that stores and answers have. `otlp_json`: one
        OTLP/JSON export request per line, what the OpenTelemetry Collector calls `json`."""
        fsync: Literal["batch", "interval", "never"] = "batch"
        """When data is forced to disk: before each answer, every `flush_interval`, or when the
        system likes. The last two can lose acknowledged data in a power cut."""
        flush_interval: Duration = Duration(1.0)
        """How often `fsync: interval` forces data to disk."""
        append: bool = True
        """Only `true`: starting never deletes what was acknowledged."""
        create_directory: bool = False
        """Make the folder of `path` when it is missing."""
        directory_permissions: str = "0750"
        """Mode of the folders made, in octal digits."""
        sending_queue: OnRequest[SendingQueue] = None
        """A queue in front of this exporter, see "Delivery"; off until the key is there."""
        retry_on_failure: OnRequest[RetryOnFailure] = None
        """How the queue tries again, see "Delivery"."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if not self.path:
                raise ValueError("path must be non-empty")
            if not self.append:
                raise ValueError(
                    "'append: false' would delete acknowledged data at every start; "
                    "remove the key, and delete the file yourself when you want it empty"
                )
            if not re.fullmatch("0?[0-7]{3}", self.directory_permissions):
                raise ValueError(
                    f'directory_permissions "{self.directory_permissions}" is not an octal mode; '
                    'write it in quotes, like "0750"'
                )
            if self.flush_interval <= 0:
                raise ValueError("flush_interval must be larger than zero")

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self._file = Appender(Path(config.path))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"file {host.id}")
        self._syncing: asyncio.Task[None] | None = None

    def describe(self) -> str:
        """Where the lines go."""
        return f"{self.config.format} lines in {self.config.path}"

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
        """Open the file, or say in one line why that cannot be done."""
        try:
            await self._in_thread(self._open)
        except OSError as error:
            self._thread.shutdown()
            raise StartFailed(explain(Path(self.config.path), error)) from error
        if self.config.fsync == "interval":
            self._syncing = asyncio.create_task(self._sync_forever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Force everything to disk, as far as the settings ask for it, and close."""
        if self._syncing is not None:
            self._syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._syncing
        try:
            await self._in_thread(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def __call__(self, batch: Batch) -> None:
        """
        Append a batch.

        Raises:
            Retryable: the disk is full or failing; nothing of the batch is in the file.
        """
        try:
            await self._in_thread(self._take, batch)
        except OSError as error:
            reason = f"cannot write to {self.config.path}: {error.strerror or error}"
            raise Retryable(reason, delay_s=5.0) from error

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> None:
        if self.config.create_directory:
            make_folders(self._file.path.parent, int(self.config.directory_permissions, 8))
        torn = self._file.open()
        if torn:
            self.host.stats.add("otelier_file_torn_bytes", torn, exporter=self.host.id)
            self.host.log.warning(
                "%s ended in the middle of a line; its last %d bytes are now in %s.torn",
                self.config.path, torn, self.config.path,
            )  # fmt: skip

    def _take(self, batch: Batch) -> None:
        if self.config.format == "json":
            lines = b"".join(dumps(document) + b"\n" for document in documents(batch))
        else:
            lines = encode_json(batch.message, batch.signal) + b"\n"
        if not lines:
            return
        if not self._file.in_place():
            self._open()
        self._file.append(lines, sync=self.config.fsync == "batch")

    def _sync(self) -> None:
        try:
            self._file.sync()
        except OSError:
            self._file.close(sync=False)
            raise

    def _close(self) -> None:
        self._file.close(sync=self.config.fsync != "never")

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self.config.flush_interval)
            try:
                await self._in_thread(self._sync)
            except OSError as error:
                self.host.stats.add("otelier_file_sync_failed", exporter=self.host.id)
                self.host.log.warning("cannot sync %s: %s", self.config.path, error)
