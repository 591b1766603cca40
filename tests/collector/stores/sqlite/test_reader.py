"""Summaries, following and moving in SQLite: plans, and rows whose numbers change."""

import sqlite3
from contextlib import closing

import pytest

from collector.model import Signal
from collector.query import tasks
from collector.stores.base import Query
from collector.stores.sqlite import reader, summaries, transfer
from tests.collector.stores.sqlite.test_store import sqlite
from tests.contracts.reading import Follower
from tests.contracts.stores import T0, exactly, log, span

HOUR = 3600 * 10**9
RANGE = {"since_unix_nano": T0, "until_unix_nano": T0 + HOUR}


class Spy:
    """A connection that remembers what was asked."""

    def __init__(self, connection):
        self._connection = connection
        self.asked = []

    def execute(self, sql, parameters=()):
        self.asked.append((sql, parameters))
        return self._connection.execute(sql, parameters)


@pytest.mark.anyio
async def test_summaries_tasks_and_walks_use_an_index(tmp_path):
    """No question of `errors`, `slow`, `tasks` and `migrate` reads a whole table (by the query plan)."""
    path = tmp_path / "t.db"
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, [log(number) for number in range(10)])
        await store.write(Signal.TRACES, [span(number) for number in range(10)])
    asked = tasks.question([], now_unix_nano=T0).query
    with closing(sqlite3.connect(path)) as connection:
        spy = Spy(connection)
        summaries.failures(spy, Query(signal=Signal.LOGS, min_severity=17, **RANGE))
        summaries.failures(spy, Query(signal=Signal.LOGS, min_severity=17))
        summaries.failures(spy, Query(signal=Signal.TRACES, status="ERROR", **RANGE))
        summaries.slowest(spy, Query(signal=Signal.TRACES, **RANGE), None)
        summaries.slowest(
            spy, Query(signal=Signal.TRACES, min_duration_ms=2000), (5000.0, "a" * 24)
        )
        reader.select(spy, asked)
        reader.select(spy, Query(signal=Signal.LOGS, names=asked.names, task_ids=("a", "b")))
        for name in ("spans", "metrics", "trace_logs", "info_logs"):
            transfer.walk(spy, name, 10, "1.1")
            transfer.fetch(spy, name, ["a" * 24])
        plans = {
            sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            for sql, parameters in spy.asked
        }
    assert len(plans) >= 14
    for sql, plan in plans.items():
        steps = [step for step in plan if "logs" in step or "spans" in step or "metrics" in step]
        assert steps, (sql, plan)
        assert [step for step in steps if "USING INDEX" not in step] == [], (sql, plan)
        walks = "ORDER BY received_at" in sql
        assert not (walks and any("TEMP B-TREE" in step for step in plan)), (sql, plan)
    failures = [plan for sql, plan in plans.items() if "count(*)" in sql]
    assert ["failures" in str(plan) for plan in failures] == [True] * 3
    slow = next(plan for sql, plan in plans.items() if "duration_ms, id) <" in sql)
    assert "spans_slow" in str(slow)


@pytest.mark.anyio
async def test_a_file_of_before_gets_the_new_indexes(tmp_path):
    """Indexes that no answer depends on are made in a file that lacks them, and it stays readable without."""
    path = tmp_path / "t.db"
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, [log(1, level="ERROR", severity_number=17)])
    names = ("logs_failures", "spans_failures", "spans_slow")
    with closing(sqlite3.connect(path)) as connection:
        for name in names:
            connection.execute(f"DROP INDEX {name}")
    async with sqlite(path, read_only=True) as store:
        (group,) = await store.failures(Query(signal=Signal.LOGS, min_severity=17))
        assert group.count == 1
    async with sqlite(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        assert set(names) <= {name for (name,) in found}


@pytest.mark.anyio
async def test_rows_that_were_numbered_again_are_followed(tmp_path):
    """After VACUUM, and after all rows are gone and others came, following misses nothing."""
    path = tmp_path / "t.db"
    async with sqlite(path) as store, Follower(store) as follower:
        await store.write(Signal.LOGS, [log(number) for number in range(10)])
        await follower.until(10)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM logs WHERE rowid < 8")
        connection.commit()
        connection.execute("VACUUM")
    async with sqlite(path) as store, Follower(store, after=follower.position) as again:
        await store.write(Signal.LOGS, [log(10), log(11)])
        await again.until(2)
    assert exactly(again.found) == exactly([log(10), log(11)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM logs")
        connection.commit()
    async with sqlite(path) as store:
        await store.write(Signal.LOGS, [log(12)])
        async with Follower(store, after=again.position) as last:
            await last.until(1)
    assert exactly(last.found) == exactly([log(12)])
    assert last.gaps == [
        "the last record is gone, and the rows were numbered again; records may be missing here"
    ]
