"""Batches with ids, hosts, and file systems that fail or forget: shared by the durability tests."""

import asyncio
import errno
import logging
import os
import threading
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.errors import Retryable
from collector.model import Batch, Host, Request, Signal
from collector.otlp import request_key
from collector.stats import Stats
from collector.wal.storage import Files, FileStorage


def logs(*ids, received_at=None, tenant=""):
    """A request with one log record for each id."""
    message = ExportLogsServiceRequest()
    scope = message.resource_logs.add().scope_logs.add()
    for each in ids:
        scope.log_records.add().body.string_value = each
    wire = message.SerializeToString()
    key = request_key(tenant, Signal.LOGS, wire)
    return Batch(
        Signal.LOGS, message, Request(received_at or time.time_ns(), key, tenant, "test"), wire
    )


def ids(batch):
    """The ids in a request."""
    return [
        record.body.string_value
        for group in batch.message.resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def ids_of(record):
    """The ids in a record of the log."""
    message = ExportLogsServiceRequest.FromString(record.payload)
    return ids(Batch(record.signal, message, record.request))


def host(name="file_storage", stats=None):
    return Host(name, stats or Stats(), logging.getLogger(f"collector.component.{name}"))


def config(folder, **settings):
    return FileStorage.Config(directory=str(folder), **{"reserve_bytes": 0, **settings})


async def until(condition):
    """Wait until something that another task or thread does has come true."""
    while not condition():  # noqa: ASYNC110 - numbers in counters and gauges announce nothing
        await asyncio.sleep(0.002)


async def append_until_refused(wal, size, limit=1000):
    """Append requests of a size until one is refused; what was answered, and the refusal."""
    answered = []
    for each in range(limit):
        name = f"{each}-{'x' * size}"
        try:
            await wal.append(logs(name), "logs", 1)
        except Retryable as refusal:
            return answered, refusal
        answered.append(name)
    raise AssertionError(f"{limit} requests were taken")


END = "-- end "


async def drain(reader, wal):
    """Every id that a reader finds, in order, up to a mark that is appended here."""
    end = f"{END}{time.time_ns()}"
    await wal.append(logs(end), "logs", 1)
    found = []
    while end not in found:
        records = await reader.read(1 << 30)
        found += [each for record in records for each in ids_of(record)]
        reader.done([record.number for record in records])
    return [each for each in found if not each.startswith(END)]


async def stored(folder, files=None, **settings):
    """Every id in the log of a folder, read by a new exporter from the oldest on."""
    wal = FileStorage(config(folder, **settings), host(), files=files)
    async with wal:
        found = await drain(await wal.reader("check", ["logs"], "oldest"), wal)
    for name in (folder / "cursors").iterdir():
        if name.name.startswith("check"):
            name.unlink()
    return found


CHANGES = [
    "create", "append", "write", "sync", "sync_folder", "truncate", "allocate", "rename", "link",
    "unlink", "make_folder",
]  # fmt: skip
"""The operations that change something."""


class FailingFiles(Files):
    """Real files whose n-th change fails, and those after it for a while."""

    def __init__(self, at, error=errno.EIO, times=1, *, short=False):
        self.calls = 0
        self.at = at
        self.error = error
        self.times = times
        self.short = short
        self.failed = []

    def step(self, name):
        """Count a call; whether it is one that fails."""
        self.calls += 1
        if self.at <= self.calls < self.at + self.times:
            self.failed.append(name)
            return True
        return False

    def write(self, fd, data, at=None):
        if self.step("write"):
            if self.short and len(data) > 1:
                super().write(fd, data[: len(data) // 2], at)
            raise OSError(self.error, os.strerror(self.error))
        return super().write(fd, data, at)


def _failing(name):
    real = getattr(Files, name)

    def call(self, *arguments, **options):
        if self.step(name):
            raise OSError(self.error, os.strerror(self.error))
        return real(self, *arguments, **options)

    return call


for _name in CHANGES:
    if _name != "write":
        setattr(FailingFiles, _name, _failing(_name))


class ForgetfulFiles(Files):
    """
    Real files that know what a power cut would leave: `cut` writes that to another folder.

    A file's bytes survive as they were at its last sync, a name as of its folder's last sync; what
    was never synced is gone. `before` is called before each change.
    """

    def __init__(self, root, before=lambda: None):
        self.root = root
        self.before = before
        self.synced = {}
        self.folders = {}
        self.guard = threading.RLock()

    def create(self, path):
        fd = super().create(path)
        self.synced.pop(os.fstat(fd).st_ino, None)  # inode numbers are used again
        return fd

    def append(self, path):
        new = not path.exists()
        fd = super().append(path)
        if new:
            self.synced.pop(os.fstat(fd).st_ino, None)
        return fd

    def write(self, fd, data, at=None):
        self.before()
        return super().write(fd, data, at)

    def rename(self, old, new):
        self.before()
        super().rename(old, new)

    def unlink(self, path):
        self.before()
        super().unlink(path)

    def sync(self, fd):
        self.before()
        super().sync(fd)
        with self.guard:
            self.synced[os.fstat(fd).st_ino] = os.pread(fd, 1 << 30, 0)

    def sync_folder(self, path):
        self.before()
        super().sync_folder(path)
        with self.guard:
            self.folders[path] = {
                entry.name: entry.inode() for entry in os.scandir(path) if entry.is_file()
            }

    def cut(self, target):
        """What is on the disk when power goes now, as a folder."""
        with self.guard:
            target.mkdir(parents=True)
            for folder, names in self.folders.items():
                if not folder.is_relative_to(self.root):
                    continue
                place = target / folder.relative_to(self.root)
                place.mkdir(parents=True, exist_ok=True)
                for name, inode in names.items():
                    (place / name).write_bytes(self.synced.get(inode, b""))
        return target
