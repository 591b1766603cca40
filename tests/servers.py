"""
Real servers for tests: mongod as a replica set of one, and redis-server.

They listen on a free loopback port, keep their data in a folder of the test session, and end with
it: by the context manager, or, should the test process be killed, by the kernel (PDEATHSIG).
"""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
from pymongo.errors import OperationFailure, PyMongoError

START_S = 60.0


def missing(what: str) -> None:
    """Skip the test, or fail it where servers are required."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and REQUIRE_SERVICES=1 says that it must be there")
    pytest.skip(what)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def mongod_binary() -> str | None:
    """Mongod on PATH, else the one in the test wheel."""
    if found := shutil.which("mongod"):
        return found
    spec = importlib.util.find_spec("fiftyone")
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / "db" / "bin" / "mongod"
        if path.exists():
            return str(path)
    return None


class Mongod:
    """
    A mongod process that can be killed, frozen and started again on the same data and port.

    Args:
        binary: of the server.
        folder: for data and log.
        replica_set: whether it is a replica set of one; else a standalone server.
        more: further options.
        member: of a replica set that somebody else initiates.
        name: of its folder and log; a name that was used before goes on with that data.
        cache_gb: what it keeps in memory.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        *more: str,
        replica_set: bool = True,
        member: bool = False,
        name: str = "",
        cache_gb: float = 0.25,
    ) -> None:
        self._initiate = replica_set and not member
        self._member = member
        self.port = free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        name = name or f"mongod-{self.port}"
        self._folder = folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{name}.log"
        self._command = [
            *(binary, "--dbpath", str(self._folder), "--port", str(self.port)),
            *("--bind_ip", "127.0.0.1", "--nounixsocket"),
            *(("--replSet", "t", "--oplogSize", "16") if replica_set else ()),
            *more,
            *("--wiredTigerCacheSizeGB", str(cache_gb)),
            *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=8MB)"),
            *("--setParameter", "ttlMonitorSleepSecs=1"),
            *("--setParameter", "enableTestCommands=1"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it takes writes."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
            )
        give_up = time.monotonic() + START_S
        with pymongo.MongoClient(
            self.uri, serverSelectionTimeoutMS=200, socketTimeoutMS=5000
        ) as client:
            while True:
                try:
                    hello = client.admin.command("hello")
                    if hello.get("isWritablePrimary") or self._member:
                        return
                    if self._initiate and "setName" not in hello:
                        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                        with contextlib.suppress(OperationFailure):
                            client.admin.command(
                                "replSetInitiate", {"_id": "t", "members": [member]}
                            )
                except PyMongoError:
                    pass
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"mongod does not start: {self._log.read_text()[-2000:]}")
                time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError("mongod does not run")
        return self._process.pid

    def freeze(self) -> None:
        """Stop it without closing anything, and wait until every thread stands still."""
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(
            (task / "stat").read_text().rpartition(") ")[2][0] != "T" for task in tasks.iterdir()
        ):
            time.sleep(0.005)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Let it end in order, and wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it at once, as a power cut would, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ReplicaSet:
    """Three mongods; one is the primary."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.members = [Mongod(binary, folder, member=True) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        self.uri = f"mongodb://{hosts}/?replicaSet=t"

    def start(self) -> None:
        """Start all and wait for a primary."""
        for member in self.members:
            member.start()
        config = {
            "_id": "t",
            "settings": {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200},
            "members": [
                {"_id": number, "host": f"127.0.0.1:{member.port}"}
                for number, member in enumerate(self.members)
            ],
        }
        with pymongo.MongoClient(self.members[0].uri) as client:
            client.admin.command("replSetInitiate", config)
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping", read_preference=pymongo.ReadPreference.PRIMARY)

    def primary(self) -> Mongod:
        """The member that takes writes."""
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping")
            address = client.primary
            if address is None:
                raise RuntimeError("the replica set has no primary")
            return next(member for member in self.members if member.port == address[1])

    def step_down(self) -> None:
        """Let the primary give up its role."""
        with (
            contextlib.suppress(PyMongoError),
            pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=60_000) as client,
        ):
            client.admin.command("replSetStepDown", 10, force=True)

    def kill(self) -> None:
        """End all."""
        for member in self.members:
            member.kill()


@contextlib.contextmanager
def mongod(folder: Path) -> Iterator[str]:
    """A running mongod for as long as the context lasts; its connection string."""
    binary = mongod_binary()
    if binary is None:
        raise RuntimeError("no mongod: pip install --no-deps -r requirements/mongod.txt")
    server = Mongod(binary, folder)
    try:
        server.start()
        yield server.uri
    finally:
        server.kill()


def redis_binary() -> str | None:
    """redis-server on PATH, else beside the interpreter."""
    beside = Path(sys.executable).parent / "redis-server"
    return shutil.which("redis-server") or (str(beside) if beside.exists() else None)


@contextlib.contextmanager
def redis_server(folder: Path, binary: str) -> Iterator[str]:
    """A running redis-server for as long as the context lasts; its URL."""
    port = free_port()
    log = folder / f"redis-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                binary,
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                str(folder),
            ],
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
    try:
        give_up = time.monotonic() + START_S
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection,
            ):
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    break
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"redis-server does not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
