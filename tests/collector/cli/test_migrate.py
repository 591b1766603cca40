"""`collector migrate`: everything, there and back, once, also after kill -9; and what differs is said."""

import asyncio
import contextlib
import datetime
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pymongo
import pytest

from collector import cli
from collector.documents.build import moment
from collector.model import Host, Secret, Signal
from collector.stats import Stats
from collector.stores.dead_letters import dead_letter
from collector.stores.mongodb.store import MongoDB
from collector.stores.sqlite.store import SQLite
from tests.contracts.keeping import FACTS, recount
from tests.contracts.reading import ALWAYS, ROW
from tests.contracts.stores import FULL, exactly, log, point, span
from tests.servers import die_with_parent

ROOT = Path(__file__).parents[3]
GIVE_UP_S = 60.0
NOW = moment(time.time_ns() // 10**6 * 10**6)
OLD = ROW  # a day whose facts are long gone


def host(name):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"))


def sqlite(path, *, read_only=False, **keys):
    config = SQLite.Config(path=str(path), **keys)
    return SQLite(config, host("sqlite"), read_only=read_only, tend=False)


def mongodb(uri, database, *, read_only=False, **keys):
    config = MongoDB.Config(uri=Secret(uri), database=database, **keys)
    return MongoDB(config, host("mongodb"), read_only=read_only, tend=False)


EVALUATIONS = [fact for fact in FACTS if fact["_id"] != FULL[Signal.LOGS]["_id"]]
LOGS = [
    FULL[Signal.LOGS],
    *(log(110 + number, level=level, received_at=NOW) for number, level in enumerate(
        ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    )),
    log(120, attributes={"audit.sequence": 1}, received_at=NOW),
    log(121, event="lead.scored", trace={"execution_time_ms": 3.0, "span_id": "b" * 16}),
    log(122, received_at=NOW - datetime.timedelta(days=4000)),
    log(123, attributes={"a": {"$b": [1, None]}, "a.b": "c", "$where": 2**63 - 1}, received_at=NOW),
    *EVALUATIONS,
]  # fmt: skip
SPANS = [FULL[Signal.TRACES], *(span(number, kind="SERVER") for number in range(2, 30))]
POINTS = [FULL[Signal.METRICS], *(point(number) for number in range(2, 20))]
LETTERS = [
    dead_letter(Signal.LOGS, "info_logs", log(number), "too_large") for number in range(900, 945)
]
EVENTS = {"lead.*": "lead_events"}
COUNTS = {
    "analytics": 19,
    "audit_logs": 1,
    "critical_logs": 1,
    "daily_statistics": len(recount(EVALUATIONS)) + 1,
    "dead_letters": 45,
    "debug_logs": 1,
    "error_logs": 2,
    "info_logs": 3,
    "lead_events": 1,
    "metrics": 19,
    "ml_inferences": 2,
    "spans": 29,
    "trace_logs": 31,
    "warning_logs": 1,
}


async def fill(store):
    """One of everything; the statistics are made when the store is closed."""
    async with store:
        await store.write(Signal.LOGS, LOGS)
        await store.write(Signal.TRACES, SPANS)
        await store.write(Signal.METRICS, POINTS)
        await store.take_over(letters=LETTERS, statistics=[OLD])


async def contents(store):
    """Everything that a store holds, by collection, in an order of its own."""
    async with store:
        found = {}
        for name in await store.sizes():
            if name == "dead_letters":
                letters = await store.dead_letters(limit=1000)
                found[name] = sorted(msgspec.json.encode(each) for each in letters)
            elif name == "daily_statistics":
                rows = await store.daily_statistics(*ALWAYS)
                found[name] = [
                    (row.day, row.kind, row.tenant, row.model, row.band, row.count) for row in rows
                ]
            else:
                step = await store.walk(name, limit=100_000)
                found[name] = sorted(exactly(step.documents))
        return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def target(mongodb_uri, mongodb_database):
    head, _, options = mongodb_uri.partition("/?")
    return f"{head.rstrip('/')}/{mongodb_database}?{options}"


def test_d6_there_and_back_again(folder, mongodb_uri, mongodb_database, target, capsys):
    """SQLite to MongoDB and back into a new file: every document, letter and row, in its collection (D6)."""
    asyncio.run(fill(sqlite("one.db", events=EVENTS)))
    one = asyncio.run(contents(sqlite("one.db", read_only=True)))
    assert {name: len(each) for name, each in one.items()} == COUNTS
    assert cli.main(["migrate", "--from", "sqlite:///one.db", "--to", target, "--json"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["collection"]: row["documents"] for row in rows} == COUNTS
    assert all(row["equal"] and row["found"] == row["documents"] for row in rows)
    assert all(row["digest_from"] == row["digest_to"] != "0" * 32 for row in rows)
    assert "copying spans: 29 of 29" in err
    two = asyncio.run(contents(mongodb(mongodb_uri, mongodb_database, read_only=True)))
    assert two == one
    assert cli.main(["migrate", "--from", target, "--to", "sqlite:///three.db"]) == 0
    assert asyncio.run(contents(sqlite("three.db", read_only=True))) == one
    # Again, in both directions: nothing twice.
    for ends in (["sqlite:///one.db", target], [target, "sqlite:///three.db"]):
        assert cli.main(["migrate", "--from", ends[0], "--to", ends[1]]) == 0
    assert asyncio.run(contents(mongodb(mongodb_uri, mongodb_database, read_only=True))) == one
    assert asyncio.run(contents(sqlite("three.db", read_only=True))) == one
    assert [path.name for path in folder.iterdir() if "migrate" in path.name] == []


def test_nothing_is_deleted_at_the_target_meanwhile(folder, mongodb_database, mongodb_uri, target):
    """New collections keep everything until the collector starts with a retention of its own."""
    asyncio.run(fill(sqlite("one.db", events=EVENTS)))
    with pymongo.MongoClient(mongodb_uri) as client:
        database = client[mongodb_database]
        names = ("info_logs", "lead_events", "spans", "dead_letters")
        for _ in range(20):  # indexes are built in the background, and a next run goes on with them
            assert cli.main(["migrate", "--from", "sqlite:///one.db", "--to", target]) == 0
            kept = [database[name].index_information().get("received_at_1") for name in names]
            if all(kept):
                break
    assert {each["expireAfterSeconds"] for each in kept} == {2**31 - 1}


def test_the_configuration_says_retention_and_routes(folder, target, mongodb_uri, mongodb_database):
    """With --config a new collection gets the retention of the configuration."""
    asyncio.run(fill(sqlite("one.db")))
    config = folder / "c.yaml"
    config.write_text(
        """
        receivers: {otlp: {protocols: {http: }}}
        exporters: {mongodb: {retention: {spans: 3d}, events: {"lead.*": lead_events}}}
        service: {pipelines: {logs: {receivers: [otlp], exporters: [mongodb]}}}
        """
    )
    arguments = ["migrate", "--from", "sqlite:///one.db", "--to", target]
    assert cli.main([*arguments, "--config", str(config)]) == 0
    with pymongo.MongoClient(mongodb_uri) as client:
        indexes = client[mongodb_database]["spans"].index_information
        deadline = time.monotonic() + GIVE_UP_S
        while "received_at_1" not in indexes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert indexes()["received_at_1"]["expireAfterSeconds"] == 3 * 86_400


KILLED = 12_000


def test_d6_killed_in_the_middle_and_run_again(folder, mongodb_uri, mongodb_database, target):
    """After kill -9 in mid-copy the same command goes on from its journal: complete, and once (D6)."""

    async def many():
        async with sqlite("one.db") as store:
            for first in range(0, KILLED, 2000):
                numbers = range(first, first + 2000)
                await store.write(Signal.LOGS, [log(number) for number in numbers])

    asyncio.run(many())
    command = [sys.executable, "-m", "collector", "migrate", "--from", "sqlite:///one.db"]
    command += ["--to", target, "--journal", "journal.json"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    journal = folder / "journal.json"
    positions = []
    for pages in (1, 3):
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        ) as process:
            while process.poll() is None and copied(journal) < pages * 1000:
                time.sleep(0.002)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        positions.append(copied(journal))
    assert positions[0] < positions[1] < KILLED
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Going on where journal.json says that the last run stopped.\n")
    said = [line for line in done.stderr.splitlines() if line.startswith("copying info_logs")]
    assert int(said[0].split()[2]) >= positions[1]
    assert not journal.exists()
    one = asyncio.run(contents(sqlite("one.db", read_only=True)))
    two = asyncio.run(contents(mongodb(mongodb_uri, mongodb_database, read_only=True)))
    assert (len(one["info_logs"]), two) == (KILLED, one)


def copied(journal):
    """How many documents the journal knows to be in the target."""
    with contextlib.suppress(FileNotFoundError, KeyError):
        return json.loads(journal.read_text())["places"]["info_logs"]["documents"]
    return 0


def test_what_differs_is_said_and_exit_1(folder, mongodb_uri, mongodb_database, target, capsys):
    """A missing, a changed and a refused document: exit 1, how many, which, and which fields."""
    asyncio.run(fill(sqlite("one.db", events=EVENTS)))

    async def before():
        async with mongodb(mongodb_uri, mongodb_database) as store:
            await store.write(Signal.TRACES, [{**SPANS[3], "name": "other", "status": "ERROR"}])

    asyncio.run(before())
    with pymongo.MongoClient(mongodb_uri) as client:
        database = client[mongodb_database]
        database.create_collection("warning_logs", validator={"message": {"$ne": "hello"}})
        arguments = ["migrate", "--from", "sqlite:///one.db", "--to", target]
        assert cli.main(arguments) == 1
        out, err = capsys.readouterr()
        lines = out.splitlines()
        at = next(number for number, line in enumerate(lines) if line.startswith("spans"))
        assert lines[at].endswith("DIFFERENT")
        assert lines[at + 1 : at + 3] == [
            "    0 missing, 1 with another content",
            f"    {SPANS[3]['_id']}: name, status differ",
        ]
        at = next(number for number, line in enumerate(lines) if line.startswith("warning_logs"))
        assert lines[at + 1 : at + 4] == [
            "    1 missing, 0 with another content",
            "    1 rejected by the target (validator): its dead letters",
            f"    {log(112)['_id']}: missing",
        ]
        # The span's trail was there first, too, and it says what that span said.
        assert [line.split()[0] for line in lines if line.endswith("DIFFERENT")] == [
            "trace_logs",
            "spans",
            "warning_logs",
        ]
        assert "The target is not complete." in err
        # Put right: the same command makes it complete.
        database.command("collMod", "warning_logs", validator={})
        database["spans"].delete_one({"name": "other"})
        database["trace_logs"].delete_one({"message": "other"})
        database["info_logs"].delete_many({})
    assert cli.main([*arguments, "--verify-only"]) == 1
    assert "2 missing, 0 with another content" in capsys.readouterr().out
    assert cli.main(arguments) == 0


def test_what_the_target_keeps_no_longer_is_not_missed(
    folder, mongodb_uri, mongodb_database, target, capsys
):
    """A document that is older than the target keeps it, and is gone there, counts as expired."""
    asyncio.run(fill(sqlite("one.db", events=EVENTS)))
    arguments = ["migrate", "--from", "sqlite:///one.db", "--to", target, "--json"]
    assert cli.main(arguments) == 0
    capsys.readouterr()
    with pymongo.MongoClient(mongodb_uri) as client:
        edge = NOW - datetime.timedelta(days=3000)
        gone = client[mongodb_database]["info_logs"].delete_many({"received_at": {"$lt": edge}})
        assert gone.deleted_count == 1
    assert cli.main([*arguments, "--verify-only"]) == 0
    rows = {row["collection"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (rows["info_logs"]["expired"], rows["info_logs"]["found"]) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--from", "sqlite:///a.db"], 2, "Missing option '--to'"),
        (["--from", "redis://x", "--to", "sqlite:///b.db"], 2, "Invalid value for --from: write"),
        (["--from", "sqlite:///one.db", "--to", "b.db"], 2, "Invalid value for --to: write sqlite"),
        (["--from", "sqlite:///one.db", "--to", "sqlite:///one.db"], 2, "the target is the source"),
        (["--from", "sqlite:///no.db", "--to", "sqlite:///b.db"], 1, "there is no file no.db"),
        (
            ["--from", "sqlite:///one.db", "--to", "sqlite:///b.db", "--journal", "bad.json"],
            1,
            "bad.json is no journal",
        ),
        (
            ["--from", "sqlite:///one.db", "--to", "sqlite:///b.db", "--journal", "other.json"],
            1,
            "is the journal of another move, from a to b: name another --journal",
        ),
    ],
)
def test_errors_name_the_fix(folder, capsys, arguments, code, error):
    """Wrong usage is exit 2, a store or journal that cannot be used exit 1, each with what to do."""
    asyncio.run(fill(sqlite("one.db")))
    Path("bad.json").write_text("{")
    Path("other.json").write_text('{"source": "a", "target": "b"}')
    assert cli.main(["migrate", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, error in err) == ("", True), err


def test_an_empty_source_is_an_answer(folder, capsys):
    """A store that holds nothing is moved, and says so."""

    async def empty():
        async with sqlite("one.db"):
            pass

    asyncio.run(empty())
    assert cli.main(["migrate", "--from", "sqlite:///one.db", "--to", "sqlite:///two.db"]) == 0
    assert capsys.readouterr() == ("", "The source holds nothing.\n")


def test_a_collector_that_holds_the_target_is_named(folder, capsys):
    """An SQLite target that a collector writes to is refused with its process."""
    asyncio.run(fill(sqlite("one.db")))

    async def held():
        async with sqlite("two.db"):
            return await asyncio.to_thread(
                cli.main, ["migrate", "--from", "sqlite:///one.db", "--to", "sqlite:///two.db"]
            )

    assert asyncio.run(held()) == 1
    assert f"in use by another collector (process {os.getpid()})" in capsys.readouterr().err


def test_a_password_is_shown_nowhere(folder, capsys):
    """Neither a message nor the name of a file has the credentials of a URL."""
    asyncio.run(fill(sqlite("one.db")))
    uri = "mongodb://admin:hunter2@127.0.0.1/x?authSource=admin&tls=x"
    for ends in (["sqlite:///one.db", uri], [uri, "sqlite:///two.db"]):
        assert cli.main(["migrate", "--from", ends[0], "--to", ends[1]]) == 1
    shown = "".join(capsys.readouterr())
    assert "MongoDB driver refuses the `uri` for 127.0.0.1" in shown
    assert "hunter2" not in shown + " ".join(path.name for path in folder.iterdir())


def test_a_terminal_gets_a_bar(folder):
    """On a terminal progress is a bar; the comparison is on stdout all the same."""
    asyncio.run(fill(sqlite("one.db")))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "collector", "migrate", "--from", "sqlite:///one.db"]
    with subprocess.Popen(
        [*command, "--to", "sqlite:///two.db", "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65536):
                seen += part
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[" in seen
    assert b"copying spans" in seen
    assert all(json.loads(line)["equal"] for line in out.splitlines())
