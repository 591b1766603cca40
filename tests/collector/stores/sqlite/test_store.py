"""The SQLite store: the contract, and what only a file can do."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from sqlite3 import connect

import pytest

from collector.errors import Retryable, StartFailed
from collector.model import Duration, Signal
from collector.stats import Stats
from collector.stores.base import Query
from collector.stores.sqlite import schema
from collector.stores.sqlite.reader import statement
from collector.stores.sqlite.schema import COLUMNS
from collector.stores.sqlite.store import SQLite
from collector.stores.sqlite.writer import MOVED_AFTER
from telemetry.attributes import LOOKUP
from tests.contracts import keeping, lists, reading
from tests.contracts import stores as contract
from tests.contracts.stores import span

ROOT = Path(__file__).parent.parent.parent.parent.parent


@pytest.fixture
def store(tmp_path):
    """A new, unopened store on the same file each time."""
    path = str(tmp_path / "data" / "telemetry.db")

    def made(*, read_only=False, tend=True, stats=None, **keys):
        return SQLite(
            SQLite.Config(path=path, **keys), contract.host(stats), read_only=read_only, tend=tend
        )

    return made


class TestContract(contract.StoreContract):
    """SQLite keeps every promise of a store."""


class TestLists(lists.ListsContract):
    """SQLite keeps every promise about lists of traces, services, operations and metrics."""


class TestReading(reading.ReadingContract):
    """SQLite keeps every promise about summaries, following, walking and taking over."""


class TestKeeping(keeping.KeepingContract):
    """SQLite keeps every promise about places, retention, dead letters and statistics."""


def config(path, **keys):
    return SQLite.Config(path=str(path), **keys)


def sqlite(path, *, read_only=False, **keys):
    return SQLite(config(path, **keys), contract.host(), read_only=read_only)


async def everything(path):
    async with sqlite(path) as store:
        return await contract.everything(store, Signal.TRACES)


@pytest.mark.anyio
async def test_writes_of_one_commit_are_counted_one_by_one(tmp_path):
    """Each write learns what was new of it, whatever shares its commit: duplicates, or a forgetting."""
    async with sqlite(tmp_path / "telemetry.db") as store:
        await store.write(Signal.TRACES, [span(number) for number in range(10)])
        writes = [
            store.write(Signal.TRACES, [span(number) for number in range(first, first + 10)])
            for first in (100, 0, 200, 205, 305, 305)
        ]
        # The first one keeps the writer busy while the others queue up.
        many = store.write(Signal.TRACES, [span(number) for number in range(1000, 5000)])
        logs = store.write(Signal.LOGS, [contract.log(1), contract.log(1)])
        found = await asyncio.gather(many, *writes, logs, store.forget(["00" * 12]))
        counts = [(written.stored, written.duplicates) for written in found[:-1]]
        assert counts[:3] == [(4000, 0), (10, 0), (0, 10)]
        assert sorted(counts[3:5]) == [(5, 5), (10, 0)]
        assert sorted(counts[5:7]) == [(0, 10), (10, 0)]
        assert counts[7:] == [(1, 1)]
        assert found[-1] == 0
        assert await store.sizes() == {"spans": 10 + 10 + 15 + 10 + 4000, "info_logs": 1}


WRITE_UNTIL_KILLED = """
import asyncio, itertools, sys
from collector.model import Signal
from tests.collector.stores.sqlite.test_store import sqlite, span

async def main():
    async with sqlite(sys.argv[1]) as store:
        async def write(first):
            for number in itertools.count(first, 400):
                await store.write(Signal.TRACES, [span(number + each) for each in range(100)])
                print(number, flush=True)
        await asyncio.gather(*(write(first) for first in (0, 100, 200, 300)))

asyncio.run(main())
"""


def test_r01_a_killed_collector_loses_nothing_that_it_acknowledged(tmp_path):
    """After kill -9 in mid-write, every acknowledged document is there exactly once and equal (R1)."""
    path = tmp_path / "telemetry.db"
    for _ in range(2):  # the second start writes the same again and goes on behind it
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        ) as process:
            acknowledged = [int(process.stdout.readline()) for _ in range(25)]
            process.kill()
            acknowledged += [int(line) for line in process.stdout.read().splitlines()]
    found = asyncio.run(everything(path))
    by_id = {document["_id"]: document for document in found}
    assert len(by_id) == len(found)
    expected = [span(first + each) for first in acknowledged for each in range(100)]
    assert contract.exactly(by_id[each["_id"]] for each in expected) == contract.exactly(expected)
    with closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


FULL_DISK = """
import asyncio, resource, sys
from collector.errors import Retryable
from collector.model import Signal
from collector.stores.base import Query
from tests.collector.stores.sqlite.test_store import sqlite, span

async def main():
    async with sqlite(sys.argv[1]) as store:
        await store.write(Signal.TRACES, [span(1)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            await store.write(Signal.TRACES, [span(n, name="x" * 1000) for n in range(2, 1000)])
        except Retryable as error:
            print(error)
        found = await store.find(Query(signal=Signal.TRACES))
        print([document["_id"] for document in found] == [span(1)["_id"]])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(await store.write(Signal.TRACES, [span(1), span(2)]))

asyncio.run(main())
"""


def test_a_full_disk_is_retryable_and_heals_without_a_restart(tmp_path):
    """A write that finds no room fails as Retryable and stores nothing; with room again it works (R)."""
    path = tmp_path / "telemetry.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        check=True,
        cwd=ROOT,
        text=True,
    )
    failed, kept, written = done.stdout.splitlines()
    assert failed.startswith(f"{path}: ")
    assert (kept, written) == ("True", "Written(stored=1, duplicates=1, refused=())")


@pytest.mark.anyio
async def test_the_log_moves_into_the_file_behind_an_answer(tmp_path):
    """D3: after many rows the log is moved, long before SQLite does it by itself; nothing is lost."""
    path = tmp_path / "t.db"
    async with sqlite(path) as store:
        before = path.stat().st_size
        await store.write(Signal.TRACES, [span(number) for number in range(MOVED_AFTER - 1)])
        await store.write(Signal.TRACES, [span(MOVED_AFTER)])
        for _ in range(1000):
            if path.stat().st_size > before + (1 << 20):
                break
            await asyncio.sleep(0.01)
        assert path.stat().st_size > before + (1 << 20)
        assert await store.sizes() == {"spans": MOVED_AFTER}


@pytest.mark.parametrize("table", COLUMNS)
def test_no_statement_keeps_a_journal_of_its_own(tmp_path, table):
    """D3: a function in an INSERT, or one that undoes itself, writes every page that it changes twice."""
    connection = schema.connect(tmp_path / "t.db", lambda _: "")
    with closing(connection):
        for _, text in schema.INSERT[table].many:
            program = list(connection.execute(f"EXPLAIN {text}", [0] * text.count("?")))
            assert not [step for step in program if step[1] in {"Function", "PureFunc"}]
        assert "INSERT OR FAIL" in schema.INSERT[table].text


@pytest.mark.anyio
async def test_closing_leaves_one_whole_file(tmp_path):
    """A clean stop moves everything into the database file: a copy of it alone is a backup."""
    path = tmp_path / "telemetry.db"
    async with sqlite(path) as store:
        await store.write(Signal.TRACES, [span(1)])
        await store.find(Query(signal=Signal.TRACES))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["telemetry.db", "telemetry.db.lock"]


@pytest.mark.anyio
async def test_the_version_of_sqlite_is_told_at_the_start(tmp_path, caplog):
    """The start names SQLite's version and the file; an old version comes with a caution; reading is silent."""
    path = tmp_path / "telemetry.db"
    caplog.set_level("INFO", "tests.store")
    async with sqlite(path):
        pass
    async with sqlite(path, read_only=True):
        pass
    caution = (
        ": let no other program write to it; "
        "SQLite before 3.51.3 can damage a file that two write to"
    )
    old = sqlite3.sqlite_version_info < (3, 51, 3)
    expected = f"SQLite {sqlite3.sqlite_version}, {path}{caution if old else ''}"
    assert caplog.messages == [expected]


async def refusal(store):
    with pytest.raises(StartFailed) as caught:
        async with store:
            pass
    return str(caught.value)


@pytest.mark.anyio
async def test_a_second_collector_on_the_same_file_is_refused(tmp_path):
    """The second writer gets one line with the fix, at once; after the first has ended it may start."""
    path = tmp_path / "telemetry.db"
    async with sqlite(path):
        assert await refusal(sqlite(path)) == (
            f"{path} is in use by another collector (process {os.getpid()}): "
            "stop that one, or give this one a `path` of its own"
        )
    async with sqlite(path) as store:
        assert await store.find(Query(signal=Signal.LOGS)) == []


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    """A path below a file, or where nobody may write, ends the start with path, reason and fix."""
    (tmp_path / "file").write_text("")
    fix = "give this user write permission there, or set `path` to another place"
    assert [
        await refusal(sqlite(tmp_path / "file" / "telemetry.db")),
        await refusal(sqlite("/proc/telemetry/telemetry.db")),
        await refusal(sqlite(tmp_path / "file" / "deeper" / "telemetry.db")),
    ] == [
        f"cannot write to {tmp_path}/file: File exists: {fix}",
        f"cannot write to /proc/telemetry: No such file or directory: {fix}",
        f"cannot write to {tmp_path}/file/deeper: Not a directory: {fix}",
    ]


@pytest.mark.anyio
async def test_a_file_that_is_not_ours_is_left_alone(tmp_path):
    """Another program's database, a text file and a newer schema are refused, and not changed."""
    foreign, text, newer = (tmp_path / name for name in ("foreign.db", "text.db", "newer.db"))
    with closing(connect(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    text.write_text("this is a plain text file, longer than a header of SQLite: " + "x" * 100)
    async with sqlite(newer):
        pass
    with closing(connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = [path.read_bytes() for path in (foreign, text, newer)]
    assert [await refusal(sqlite(path)) for path in (foreign, text, newer)] == [
        f"{foreign} is a SQLite file of another program; set `path` to another file",
        f"{text}: file is not a database: the file is no SQLite database; set `path` to another file",
        (
            f"{newer} has schema version 3 and this program knows 2: "
            "start the newer version that wrote it, or set `path` to another file"
        ),
    ]
    assert [path.read_bytes() for path in (foreign, text, newer)] == before


@pytest.mark.anyio
async def test_reading_without_a_file_says_what_to_start(tmp_path):
    """Read-only, a missing file is an error with the fix, and nothing is created."""
    path = tmp_path / "data" / "telemetry.db"
    assert await refusal(sqlite(path, read_only=True)) == (
        f"there is no file {path}: start the collector first, "
        "or name the file that it writes as `path`"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
@pytest.mark.parametrize("signal", [Signal.TRACES, Signal.LOGS])
@pytest.mark.parametrize(
    "asked",
    [
        {"id": "x"},
        {"trace_ids": ("x", "y")},
        {"id": "x", "service": "web", "newest_first": True},
        {"id": "x", "where": (("k", "v"),), "since_unix_nano": 1},
        *({"context": {key: "x"}} for key in LOOKUP),
    ],
)
async def test_ids_are_looked_up_by_index(tmp_path, signal, asked):
    """No question by an id walks the table, whatever else it asks, so that a million spans do not matter."""
    path = tmp_path / "telemetry.db"
    async with sqlite(path) as store:
        await store.find(Query(signal=signal, **asked))
    with closing(connect(path)) as connection:
        sql, parameters = statement(Query(signal=signal, **asked))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    steps = [step for *_, step in plan]
    table = {Signal.TRACES: "spans", Signal.LOGS: "logs"}[signal]
    assert any(step.startswith(f"SEARCH {table} USING") for step in steps)
    assert [step for step in steps if step.startswith(f"SCAN {table}")] == []


@pytest.mark.anyio
async def test_a_question_that_takes_too_long_is_ended(tmp_path):
    """A scan beyond `query_timeout` ends with the fix, and the store goes on."""
    async with sqlite(tmp_path / "telemetry.db", query_timeout=Duration(0)) as store:
        await store.write(Signal.LOGS, [contract.log(number) for number in range(5000)])
        with pytest.raises(Retryable) as caught:
            await store.find(Query(signal=Signal.LOGS, text="nowhere"))
        assert str(caught.value) == (
            "the question took longer than 0 s: narrow it by an id, a service or a time range, "
            "or raise `query_timeout`"
        )
        assert len(await store.find(Query(signal=Signal.LOGS, limit=1))) == 1


@pytest.mark.anyio
async def test_too_much_at_once_is_refused_for_now(tmp_path):
    """Questions beyond the bound are Retryable; those within it are answered."""
    async with sqlite(tmp_path / "telemetry.db") as store:
        answers = await asyncio.gather(
            *(store.find(Query(signal=Signal.LOGS)) for _ in range(100)), return_exceptions=True
        )
    assert answers.count([]) == 64
    assert sum(isinstance(answer, Retryable) for answer in answers) == 36


# --- upkeep ---


@pytest.mark.anyio
async def test_the_size_cap_deletes_the_oldest_first_and_gives_space_back(store, tmp_path):
    """Beyond `max_size_mib` the oldest arrivals go, audit records last, and the file shrinks; it stays readable."""
    path = tmp_path / "data" / "telemetry.db"
    hour = timedelta(hours=1)
    written = [
        contract.log(
            number,
            message="x" * 4000,
            received_at=keeping.NOW - hour * (6000 - number) / 1000,
            attributes={"audit.sequence": number} if number < 100 else {"n": number},
        )
        for number in range(6000)
    ]
    async with store() as opened:
        for first in range(0, 6000, 1000):
            await opened.write(Signal.LOGS, written[first : first + 1000])
        await opened.write(Signal.TRACES, [span(1, received_at=keeping.NOW - hour * 24)])
    large = path.stat().st_size
    stats = Stats()
    async with store(max_size_mib=16, stats=stats) as opened:

        async def shrunk():
            return path.stat().st_size < 25 * 2**20 and await opened.find(
                Query(signal=Signal.LOGS, limit=1)
            )

        await keeping.until(shrunk)
        found = await contract.everything(opened, Signal.LOGS)
        assert await opened.find(Query(signal=Signal.TRACES)) == []
    assert large > 30 * 2**20
    kept = [each for each in found if "audit.sequence" not in each["attributes"]]
    assert contract.exactly(found) == contract.exactly(written[:100] + written[-len(kept) :])
    assert 1000 < len(kept) < 3000  # 16 MiB, and a row takes a page of 8 KiB
    assert stats.snapshot() == {
        'otelier_store_expired{collection="info_logs",exporter="store",reason="size"}': 5900
        - len(kept),
        'otelier_store_expired{collection="spans",exporter="store",reason="size"}': 1,
    }
    with closing(connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.anyio
async def test_a_file_of_version_1_is_brought_up_to_date(store, tmp_path):
    """Its records get their collections, its facts are counted, and nothing is lost; reading it first says what to do."""
    path = tmp_path / "data" / "telemetry.db"
    written = [
        contract.log(1),
        contract.log(2, level="ERROR", severity_number=17),
        contract.log(3, attributes={"audit.sequence": 1}),
        keeping.evaluated(4),
    ]
    async with store() as opened:
        await opened.write(Signal.LOGS, written)
        await opened.write(Signal.TRACES, [span(1)])
    with closing(connect(path)) as connection:  # what version 1 was
        for table in ("trace_logs", "dead_letters", "dirty_days", "daily_statistics"):
            connection.execute(f"DROP TABLE {table}")
        for index in ("spans", "logs", "metrics"):
            connection.execute(f"DROP INDEX {index}_arrival")
        connection.execute("DROP INDEX logs_event")
        connection.execute("ALTER TABLE logs DROP COLUMN collection")
        connection.execute("PRAGMA user_version = 1")
    assert await refusal(store(read_only=True)) == (
        f"{path} has schema version 1: start the collector once, it brings the file to version 2"
    )
    async with store() as opened:
        for name, expected in (("error_logs", 1), ("audit_logs", 2), ("analytics", 3)):
            found = await opened.find(Query(signal=Signal.LOGS, collection=name))
            assert contract.exactly(found) == contract.exactly([written[expected]])
        await opened.write(Signal.LOGS, [contract.log(5)])
        found = await opened.find(Query(signal=Signal.LOGS))
        assert contract.exactly(found) == contract.exactly([*written, contract.log(5)])
        assert len(await opened.find(Query(signal=Signal.TRACES))) == 1
    async with store(read_only=True) as reader:
        statistics = await reader.daily_statistics(*keeping.ALWAYS)
    assert statistics == keeping.recount([written[3]])


COUNT_UNTIL_KILLED = """
import asyncio, itertools, sys
from collector.model import Signal
from tests.collector.stores.sqlite.test_store import sqlite
from tests.contracts.keeping import evaluated

async def main():
    async with sqlite(sys.argv[1]) as store:
        for number in itertools.count(0, 50):
            facts = [evaluated(each, day=each % 3) for each in range(number, number + 50)]
            await store.write(Signal.LOGS, facts)
            print(number, flush=True)

asyncio.run(main())
"""


def test_r5_statistics_survive_kill_9(tmp_path):
    """After kill -9 in mid-write, and a second run that sends the same again, the statistics equal a recount (R5)."""
    path = tmp_path / "telemetry.db"
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", COUNT_UNTIL_KILLED, str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        ) as process:
            for _ in range(40):
                process.stdout.readline()
            process.kill()

    async def counted():
        async with sqlite(path):
            pass
        async with sqlite(path, read_only=True) as store:
            facts = await contract.everything(store, Signal.LOGS)
            return facts, await store.daily_statistics(*keeping.ALWAYS)

    facts, statistics = asyncio.run(counted())
    assert len(facts) >= 2000
    assert statistics == keeping.recount(facts)
