"""Summaries and following on MongoDB: plans, servers without change streams, and lost history."""

import asyncio
import contextlib

import pymongo
import pytest

from collector.errors import Retryable
from collector.model import Signal
from collector.query import failures, tail, tasks
from collector.stores.base import Query
from tests import servers
from tests.collector.stores.mongodb.test_store import (
    LEVELS,
    LOGS,
    asked_of,
    every,
    explained,
    indexed,
    mongodb,
    stages,
)
from tests.contracts import reading
from tests.contracts.stores import RECEIVED, T0, exactly, log, moment, span
from tests.tasks import story

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def standalone_uri(tmp_path_factory):
    """A mongod that is no replica set, for this module."""
    binary = servers.mongod_binary()
    if binary is None:
        servers.missing("no mongod (requirements/mongod.txt)")
    server = servers.Mongod(binary, tmp_path_factory.mktemp("standalone"), replica_set=False)
    try:
        server.start()
        yield server.uri
    finally:
        server.kill()


class TestStandalone(reading.FollowingContract):
    """A standalone server keeps every promise to those who follow, without change streams."""

    @pytest.fixture
    def store(self, standalone_uri, mongodb_database):
        return lambda **keys: mongodb(standalone_uri, mongodb_database, **keys)

    async def test_it_looks(self, store):
        """The position says that there is no change stream."""
        async with store() as opened, reading.Follower(opened) as follower:
            assert follower.position.startswith("p:")


@pytest.fixture
def database(mongodb_uri, mongodb_database):
    with pymongo.MongoClient(mongodb_uri, tz_aware=True) as client:
        yield client[mongodb_database]


@pytest.fixture
def opened(mongodb_uri, mongodb_database):
    return mongodb(mongodb_uri, mongodb_database)


# --- plans ---


async def test_summaries_and_tasks_use_an_index_in_every_branch(opened, database):
    """Errors, the slowest and tasks never walk a collection, and look at no more than they must (by explain)."""
    hour = 3600 * 10**9
    now = T0 + 100 * hour
    noise = [
        log(number, time_unix_nano=T0 + number * hour // 10, level=("DEBUG", "INFO")[number % 2])
        for number in range(900)
    ]
    errors = [
        log(
            1000 + number,
            time_unix_nano=T0 + number * hour // 2,
            level="ERROR",
            severity_number=17,
            message=f"order {number} failed",
        )
        for number in range(180)
    ]
    spans = [
        span(
            number,
            start_unix_nano=T0 + number * hour // 10,
            start=moment(T0 + number * hour // 10),
            duration_ms=float(number * 2),
            status=("UNSET", "ERROR")[number % 50 == 0],
        )
        for number in range(900)
    ]
    events = [
        event
        for number in range(60)
        for event in story(f"task-{number}", T0 + number * hour, "started", "succeeded")
    ]
    others = [
        log(5000, event="risk.score.evaluated"),
        log(5001, event="risk.inference.finished"),
        log(5002, attributes={"audit.sequence": 1}),
        log(5003, level="WARNING", severity_number=13),
        log(5004, level="CRITICAL", severity_number=21),
    ]
    async with opened:
        await opened.write(Signal.LOGS, [*noise, *errors, *events, *others])
        await opened.write(Signal.TRACES, spans)
        await indexed(database, (*LOGS, "spans"))
        database.command("profile", 2)
        try:
            recent = {"since_unix_nano": now - 24 * hour, "until_unix_nano": now}
            found = await failures.errors(opened, failures.question([], now_unix_nano=now))
            assert [(group.count, group.message) for group in found.errors] == []
            groups = await opened.failures(Query(signal=Signal.LOGS, min_severity=17, **recent))
            assert sum(group.count for group in groups) == 28
            assert len(failures.joined(groups)) == 1
            await opened.failures(
                Query(signal=Signal.LOGS, min_severity=17, service="web", **recent)
            )
            await opened.failures(Query(signal=Signal.TRACES, status="ERROR", **recent))
            await opened.slowest(Query(signal=Signal.TRACES, limit=5, **recent))
            await opened.slowest(Query(signal=Signal.TRACES, limit=5, min_duration_ms=1500))
            await opened.slowest(
                Query(signal=Signal.TRACES, limit=400, since_unix_nano=T0, until_unix_nano=now)
            )
            page = await tasks.tasks(
                opened,
                tasks.question([("since", "200h"), ("limit", "3")], now_unix_nano=now),
            )
            assert [task.id for task in page.tasks] == ["task-59", "task-58", "task-57"]
        finally:
            database.command("profile", 0)
    asked = asked_of(database)
    assert len(asked) >= 3 + 3 + 1 + len(LOGS) + 1
    for command in asked:
        plan = explained(database, command)
        assert "COLLSCAN" not in stages(plan), command
        names = {command["aggregate"], *every(command["pipeline"], "coll")}
        limits = every(command["pipeline"], "$limit")
        if names <= set(LEVELS) and limits:  # a page of events: merged in order, never sorted
            assert "SORT" not in stages(plan), command
        # All spans below a second of 100 hours are sorted once, above; nothing looks at more.
        assert max(every(plan, "totalKeysExamined")) <= 910, command


# --- change streams ---


@pytest.fixture
def fail(mongodb_uri):
    """Let commands of the store fail; the fail point is switched off at the end."""
    with pymongo.MongoClient(mongodb_uri) as client:

        def switch(mode, **data):
            command = {"configureFailPoint": "failCommand", "mode": mode}
            if data:
                command["data"] = {"appName": "otelier-collector", **data}
            client.admin.command(command)

        try:
            switch("off")
        except pymongo.errors.OperationFailure:
            servers.missing("the server has no fail points (enableTestCommands)")
        yield switch
        switch("off")


async def test_a_lost_history_is_a_gap_and_following_goes_on(opened, fail):
    """When the server forgot the token, at the start or later, a gap is told and new records still come."""
    async with opened:
        async with reading.Follower(opened) as follower:
            position = follower.position
            await opened.write(Signal.LOGS, [log(1)])
            await follower.until(1)
            fail({"times": 1}, failCommands=["getMore"], errorCode=286)
            while not follower.gaps:
                await follower.step()
            await opened.write(Signal.LOGS, [log(2)])
            await follower.until(2)
        fail({"times": 1}, failCommands=["aggregate"], errorCode=286)
        async with reading.Follower(opened, after=position) as again:
            await opened.write(Signal.LOGS, [log(3)])
            await again.until(1)
    assert (exactly(follower.once()), exactly(again.once())) == (
        exactly([log(1), log(2)]),
        exactly([log(3)]),
    )
    gap = "the server's history does not reach back so far; records may be missing here"
    assert (follower.gaps, again.gaps) == ([gap], [gap])


async def test_a_user_without_the_right_is_served_by_looks(opened, fail):
    """Where a change stream is not allowed, following looks at the newest documents instead."""
    async with opened:
        await opened.write(Signal.LOGS, [log(1)])
        fail({"times": 1}, failCommands=["aggregate"], errorCode=13)
        async with reading.Follower(opened) as follower:
            assert follower.position.startswith("p:")
            await opened.write(Signal.LOGS, [log(2)])
            await follower.until(1)
    assert exactly(follower.once()) == exactly([log(2)])


async def test_a_broken_connection_is_not_noticed(opened, fail):
    """A connection that breaks in mid-stream costs no record and repeats none."""
    async with opened, reading.Follower(opened) as follower:
        await opened.write(Signal.LOGS, [log(1)])
        await follower.until(1)
        fail({"times": 1}, failCommands=["getMore"], closeConnection=True)
        await opened.write(Signal.LOGS, [log(2)])
        await follower.until(2)
    assert exactly(follower.found) == exactly([log(1), log(2)])
    assert follower.gaps == []


async def test_followers_are_bounded(opened):
    """One more than may follow is refused for now, and has a place when another one left."""
    async with opened, contextlib.AsyncExitStack() as stack:
        first, *_ = [await stack.enter_async_context(reading.Follower(opened)) for _ in range(16)]
        with pytest.raises(Retryable, match="16 follow"):
            await reading.Follower(opened).step()
        await first.__aexit__()
        async with asyncio.timeout(60):
            while True:
                try:
                    async with reading.Follower(opened):
                        break
                except Retryable:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("replica_set", [True, False])
async def test_d4_tail_lives_through_a_killed_server(tmp_path, replica_set):
    """A mongod that is killed and comes back: tail says so, misses nothing and repeats nothing (D4)."""
    binary = servers.mongod_binary()
    if binary is None:
        servers.missing("no mongod (requirements/mongod.txt)")
    server = servers.Mongod(binary, tmp_path, replica_set=replica_set)
    found, troubles = [], []
    try:
        await asyncio.to_thread(server.start)
        async with mongodb(server.uri, timeout=2, query_timeout=2) as store:
            await written(store, log(0, received_at=RECEIVED))
            lines = tail.tail(store, tail.question([("lines", "0")], now_unix_nano=T0))
            async with contextlib.aclosing(lines):

                async def heard(count, *, trouble=False):
                    async with asyncio.timeout(90):
                        while len(found) < count or (trouble and not troubles):
                            step = await anext(lines)
                            found.extend(each.log for each in step.lines if each.log)
                            troubles.extend(each.trouble for each in step.lines if each.trouble)

                await heard(0)
                step = await anext(lines)
                assert step.lines == []
                for number in range(1, 4):
                    await written(store, log(number))
                await heard(3)
                await asyncio.to_thread(server.kill)
                await heard(3, trouble=True)
                await asyncio.to_thread(server.start)
                for number in range(4, 7):
                    await written(store, log(number))
                await heard(6)
    finally:
        server.kill()
    assert exactly(found) == exactly([log(number) for number in range(1, 7)])
    assert len(troubles) >= 1


async def written(store, document):
    """Write until the store takes it."""
    async with asyncio.timeout(90):
        while True:
            try:
                await store.write(Signal.LOGS, [document])
            except Retryable:
                await asyncio.sleep(0.05)
            else:
                return
