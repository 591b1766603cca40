"""`collector tail`: backlog, following, both sources, a collector that restarts, and Ctrl-C."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collector import cli
from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.stats import Stats
from collector.stores.base import dumps
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import log as record
from tests.servers import die_with_parent, free_port
from tests.traces import LOGS

ROOT = Path(__file__).parents[4]
GIVE_UP_S = 60


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"), **more)


@contextlib.asynccontextmanager
async def filled(logs=LOGS):
    async with SQLite(SQLite.Config(path="t.db"), host("sqlite")) as store:
        await store.write(Signal.LOGS, logs)
        yield store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("COLLECTOR_QUERY_ENDPOINT", "COLLECTOR_STORE", "COLLECTOR_QUERY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


class Tail:
    """`collector tail` as a process; its lines are kept as they come."""

    def __init__(self, folder, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "collector", "tail", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
        self.out, self.err = [], []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        for line in stream:
            with self._news:
                lines.append(line)
                self._news.notify_all()

    def until(self, condition):
        with self._news:
            met = self._news.wait_for(condition, timeout=GIVE_UP_S)
        assert met, (self.out, self.err)

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        code = self._process.wait(GIVE_UP_S)
        for reader in self._readers:
            reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._process.kill()
        self.end()
        self._process.stdout.close()
        self._process.stderr.close()


@contextlib.asynccontextmanager
async def source(kind, port=0):
    """A store that is written to, and the options of a tail that reads it."""
    async with filled() as store:
        if kind == "store":
            yield store, ["--store", "sqlite:///t.db"]
            return
        config = QueryServer.Config(endpoint=f"localhost:{port}")
        async with QueryServer(config, host("query", stores={"sqlite": store})) as server:
            yield store, ["--endpoint", server.endpoints["http"]]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["store", "collector"])
async def test_the_last_records_and_what_comes_in_the_same_words(folder, kind):
    """From a collector or its store: the last lines, then each new record, then Ctrl-C with a cursor (D4)."""
    async with source(kind) as (store, where):

        def follow():
            with Tail(folder, "--lines", "2", "--json", *where) as tail:
                tail.until(lambda: len(tail.out) == 2)
                ready.set()
                tail.until(lambda: len(tail.out) == 4)
                tail.until(lambda: tail.out)
                code = tail.interrupt()
                return code, tail.out, tail.err

        ready = threading.Event()
        running = asyncio.create_task(asyncio.to_thread(follow))
        await asyncio.to_thread(ready.wait, GIVE_UP_S)
        new = [record(1, message="one"), record(2, level="ERROR", message="two")]
        await store.write(Signal.LOGS, new)
        code, out, err = await running
    assert out == [dumps(each).decode() + "\n" for each in (*LOGS[-2:], *new)]
    (empty, said) = err
    assert (code, empty) == (130, "\n")
    assert said.startswith("Go on with --cursor r:")
    assert "Traceback" not in "".join(err)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["store", "collector"])
async def test_a_tail_ends_at_its_limit_and_goes_on_by_cursor(folder, kind, capsys):
    """--limit ends it with exit code 0; --cursor begins behind what an earlier tail has shown."""
    async with source(kind) as (store, where):
        arguments = ["tail", "--lines", "3", "--limit", "3", *where]
        assert await asyncio.to_thread(cli.main, arguments) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
        async with contextlib.aclosing(store.follow(_query())) as steps:
            cursor = (await anext(steps)).position
        await store.write(Signal.LOGS, [record(1, message="one"), record(2, message="two")])
        arguments = ["tail", "--cursor", cursor, "--limit", "2", "--text", "O", *where]
        assert await asyncio.to_thread(cli.main, arguments) == 0
    assert capsys.readouterr() == (
        "2027-01-15 08:00:00.123 - INFO - web - one\n2027-01-15 08:00:00.123 - INFO - web - two\n",
        "",
    )


def _query():
    from collector.stores.base import Query

    return Query(signal=Signal.LOGS)


@pytest.mark.anyio
async def test_a_collector_that_restarts_costs_no_record(folder):
    """While the collector is away and after it is back: every record once, and stderr says what happened."""
    port = free_port()

    def follow():
        with Tail(folder, "--lines", "1", "--json", "--endpoint", f"localhost:{port}") as tail:
            tail.until(lambda: tail.out)
            first.set()
            tail.until(lambda: len(tail.out) >= 4)
            return tail.interrupt(), tail.out, tail.err

    first = threading.Event()
    async with source("collector", port):
        running = asyncio.create_task(asyncio.to_thread(follow))
        await asyncio.to_thread(first.wait, GIVE_UP_S)
    async with filled() as store:  # nobody listens
        await store.write(Signal.LOGS, [record(101), record(102)])
    async with source("collector", port) as (store, _):
        await store.write(Signal.LOGS, [record(103)])
        code, out, err = await running
    ids = [json.loads(line)["_id"] for line in out]
    new = [record(each)["_id"] for each in (101, 102, 103)]
    assert (code, ids) == (130, [LOGS[-1]["_id"], *new])
    waiting = [line for line in err if line.startswith("Waiting: ")]
    assert len(waiting) == 1
    assert f"http://localhost:{port}: " in waiting[0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--lines", "2000"], "Invalid value for '--lines'"),
        (["--lines", "2", "--cursor", "r:1."], "Invalid value for --lines: with cursor nothing"),
        (["--cursor", "s:00"], "Invalid value for --cursor: not a position of this store"),
        (["--level", "loud"], "Invalid value for '--level'"),
        (["--where", "x"], "Invalid value for --where: write key=value"),
        (["--until", "1h"], "No such option '--until'"),
    ],
)
def test_wrong_usage_names_the_option(folder, capsys, arguments, error):
    """A bad value is exit 2 with the option and the fix."""

    async def fill():
        async with filled():
            pass

    asyncio.run(fill())
    assert cli.main(["tail", *arguments, "--store", "sqlite:///t.db"]) == 2
    out, err = capsys.readouterr()
    assert (out, error in err) == ("", True), err


def test_nobody_to_follow_is_exit_1(folder, capsys):
    """Where nothing can be followed from the start, it ends with what to do, and does not wait."""
    assert cli.main(["tail", "--store", "sqlite:///no.db"]) == 1
    assert "there is no file no.db" in capsys.readouterr().err
    assert cli.main(["tail", "--endpoint", f"localhost:{free_port()}"]) == 1
    assert "no collector answers at" in capsys.readouterr().err
    store = f"mongodb://127.0.0.1:{free_port()}/x?serverSelectionTimeoutMS=100"
    assert cli.main(["tail", "--store", store]) == 1
    assert "Error: MongoDB at 127.0.0.1" in capsys.readouterr().err


def test_help_shows_examples(capsys):
    """--help has examples."""
    assert cli.main(["tail", "--help"]) == 0
    assert "collector tail --level error --service shop-api" in capsys.readouterr().out
