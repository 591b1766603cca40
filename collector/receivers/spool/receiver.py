"""
The spool receiver: takes in the requests that programs could not send before they ended.

A program with `TELEMETRY_SPOOL_DIR` writes what it cannot deliver to files in that folder; its next
process delivers them. This receiver does the same when there is no next process: it takes files
whose writer is gone (their lock can be had), hands each request to the pipelines with exactly the
bytes that the program sent or would have sent, so that stores and the durable log recognise what
they have already, and deletes a file when the pipelines have acknowledged all of it. Program and
collector never deliver the same file at the same time: exactly one holds the lock.

What was delivered is noted in the file, a few requests at a time: a collector that is killed in
between delivers those again, which is what the recognition is for. A file that is damaged or holds a
request that is rejected is set aside with the reason, behind everything else in it.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from collector.errors import CollectorError, Permanent, Retryable, StartFailed
from collector.model import Consume, Duration, Host, Request, Signal, admit
from collector.otlp import NOUNS, Decoded, decode, request_key, require_upb
from collector.receivers.spool.file import SpoolFile, Unit, waiting
from collector.stats import QuietLog

FILES: Final = 1000
"""How many files one look at the folder considers; the rest comes later."""
AT_ONCE: Final = 32
"""Requests that are in the pipelines at the same time, as the records of a program are single ones."""
AT_ONCE_BYTES: Final = 16 << 20
LONGEST_WAIT_S: Final = 60.0


class Spool:
    """
    Takes in spool files.

    Args:
        config: of `receivers: spool:`.
        host: for counters and the log.
        next: the pipelines, by signal.
    """

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the spool receiver."""

        directory: str
        """The folder that programs name in TELEMETRY_SPOOL_DIR. They and the collector must be
        allowed to write in it: run them as the same user. It may be missing."""
        poll_interval: Duration = Duration(5)
        """How often to look for files whose writer is gone."""
        max_age: Duration = Duration(0)
        """Drop, and count, requests that were written longer ago; 0 = never."""
        max_file_mib: int = 256
        """A larger file is set aside; programs begin a new one at 8 MiB."""

        def __post_init__(self) -> None:
            """Check what the types cannot say."""
            if not self.directory:
                raise ValueError("directory must be non-empty")
            if self.poll_interval <= 0:
                raise ValueError("poll_interval must be greater than zero")
            if self.max_age < 0:
                raise ValueError("max_age must not be negative")
            if self.max_file_mib <= 0:
                raise ValueError("max_file_mib must be greater than zero")

    def __init__(
        self,
        config: Config,
        host: Host,
        next: Mapping[Signal, Consume],  # noqa: A002 - the word of the protocol
    ) -> None:
        self.config = config
        self.next = next
        self._host = host
        self._folder = Path(config.directory)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._quiet_log = QuietLog(host.log)

    def describe(self) -> str:
        """What is taken in."""
        return f"spool files in {self.config.directory}"

    async def __aenter__(self) -> Self:
        """
        Begin to look for files.

        Raises:
            StartFailed: the folder is none.
            ConfigError: protobuf runs without its C parser.
        """
        require_upb()
        if self._folder.exists() and not self._folder.is_dir():
            raise StartFailed(f"{self._folder} is no folder: set `directory` to another place")
        self._task = asyncio.create_task(self._look_forever())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Finish the requests that are in the pipelines; the rest stays in its file."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _look_forever(self) -> None:
        while not self._stopping.is_set():
            wait_s = float(self.config.poll_interval)
            try:
                await self._look()
            except Retryable as error:
                self._quiet_log.warning(
                    "The pipeline takes nothing now, spool files wait: %s", error, subject="later"
                )
                wait_s = min(max(wait_s, error.delay_s), LONGEST_WAIT_S)
            except Exception as error:
                expected = isinstance(error, OSError)
                self._quiet_log.warning(
                    "%s cannot be taken in: %s",
                    self._folder,
                    error,
                    subject="failed",
                    error=None if expected else error,
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()

    async def _look(self) -> None:
        """Take in what there is, oldest first."""
        paths = await asyncio.to_thread(waiting, self._folder, FILES)
        self._gauge("otelier_spool_files", len(paths))
        for path in paths:
            if self._stopping.is_set():
                return
            try:
                file = await asyncio.to_thread(SpoolFile.take, path)
            except OSError as error:
                self._count("otelier_spool_unreadable_files")
                self._quiet_log.warning(
                    "%s cannot be opened: %s; run the collector as the user of the program that wrote it",
                    path,
                    error.strerror or error,
                    subject="unreadable",
                )
                continue
            if file is None:
                continue  # its program lives
            try:
                await self._take_in(file)
            finally:
                file.close()

    async def _take_in(self, file: SpoolFile) -> None:
        """
        Deliver what a file holds, and delete it.

        Raises:
            Retryable: a pipeline takes nothing now; the file stays.
        """
        limit = self.config.max_file_mib << 20
        if file.size > limit:
            await self._set_aside(file, f"it is larger than max_file_mib ({limit} bytes)")
            return
        content = await asyncio.to_thread(file.look)
        if content.foreign:
            await self._set_aside(file, "it does not begin as a spool file does")
            return
        problems = [f"{content.damaged} damaged frames"] if content.damaged else []
        whole = True
        for group in groups(content.units):
            if self._stopping.is_set():
                return
            results = await asyncio.gather(
                *(self._deliver(file, unit) for unit in group), return_exceptions=True
            )
            settled = []
            later: BaseException | None = None
            for unit, result in zip(group, results, strict=True):
                if result is None:
                    settled.append(unit)
                elif isinstance(result, NotHere):
                    whole = False
                elif isinstance(result, Permanent):
                    problems.append(f"request {unit.ids[0]} is rejected: {result}")
                else:
                    later = result
            await asyncio.to_thread(file.done, settled)
            if later is not None:
                raise later
        if not whole:
            return  # until its signal has a pipeline
        if problems:
            await self._set_aside(file, "; ".join(problems))
        else:
            await asyncio.to_thread(file.remove)
            self._count("otelier_spool_taken_files")

    async def _deliver(self, file: SpoolFile, unit: Unit) -> None:
        """
        Hand one request to its pipeline.

        Raises:
            NotHere: there is none.
            Permanent: it can never be taken.
            Retryable: it cannot be taken now.
        """
        age_s = (time.time_ns() - unit.written_unix_nano) / 1e9
        if self.config.max_age and age_s > self.config.max_age:
            self._count(
                "otelier_receiver_rejected_items",
                unit.records,
                reason="expired",
            )
            self._items("refused", unit.records, unit.signal)
            return
        consume = self.next.get(unit.signal)
        if consume is None:
            self._quiet_log.warning(
                "%s in spool files wait for a pipeline", unit.signal.value, subject="signal"
            )
            raise NotHere(unit.signal.value)
        admit(consume)
        decoded = await asyncio.to_thread(self._decode, file, unit)
        try:
            if decoded.accepted:
                await consume(decoded.batch)
        except Permanent:
            self._items("refused", decoded.accepted, unit.signal)
            raise
        except CollectorError:
            raise
        except Exception as error:
            raise Retryable(f"the pipeline failed: {error!r}") from error
        self._items("accepted", decoded.accepted, unit.signal)
        if decoded.rejected:
            self._items("refused", decoded.rejected, unit.signal)

    def _decode(self, file: SpoolFile, unit: Unit) -> Decoded:
        """Read a request with its identity: what it would be had its program sent it."""
        body = file.body(unit)
        key = request_key("", unit.signal, body)
        request = Request(received_at_unix_nano=time.time_ns(), key=key, transport="spool")
        try:
            return decode(unit.signal, body, encoding="protobuf", request=request)
        except CollectorError:
            raise
        except Exception as error:  # a bug of ours costs this request, not the files behind it
            raise Permanent(f"it cannot be decoded ({type(error).__name__})") from error

    async def _set_aside(self, file: SpoolFile, reason: str) -> None:
        aside = await asyncio.to_thread(file.set_aside, reason[:4000])
        self._count("otelier_spool_bad_files")
        self._quiet_log.warning(
            "%s is set aside as %s: %s", file.path, aside.name, reason[:500], subject="bad"
        )

    # --- numbers ---

    def _items(self, verb: str, amount: int, signal: Signal) -> None:
        name = f"otelcol_receiver_{verb}_{NOUNS[signal]}"
        self._count(name, amount, transport="spool")

    def _count(self, name: str, amount: int = 1, **attributes: str) -> None:
        self._host.stats.add(name, amount, receiver=self._host.id, **attributes)

    def _gauge(self, name: str, value: int) -> None:
        self._host.stats.set(name, value, receiver=self._host.id)


class NotHere(Exception):
    """A signal is in no pipeline now."""


def groups(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units in the order of the file, as many at once as are allowed."""
    found: list[list[Unit]] = []
    size = 0
    for unit in units:
        length = sum(length for _, length in unit.places)
        if not found or len(found[-1]) >= AT_ONCE or size + length > AT_ONCE_BYTES:
            found.append([])
            size = 0
        found[-1].append(unit)
        size += length
    return found
