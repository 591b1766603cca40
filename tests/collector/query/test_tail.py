"""`tail`: lines from a store, and the same over a real socket."""

import asyncio
import contextlib
import http.client
import json
import logging
import urllib.parse

import pytest

from collector.errors import Retryable
from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.query.parameters import BadParameter
from collector.query.tail import Line, Recent, question, tail
from collector.stats import Stats
from collector.stores.base import Followed, dumps
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import T0, exactly, log
from tests.traces import Remembering

pytestmark = pytest.mark.anyio

GIVE_UP_S = 60.0


def host(name, **more):
    return Host(name, Stats(), logging.getLogger(f"collector.component.{name}"), **more)


@pytest.fixture
async def store(tmp_path):
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host("sqlite")) as opened:
        await opened.write(Signal.LOGS, [log(number) for number in range(5)])
        yield opened


async def heard(lines, count, into=None):
    """The records of a tail, until there are `count` of them."""
    found = [] if into is None else into
    async with asyncio.timeout(GIVE_UP_S):
        while sum(line.log is not None for line in found) < count:
            found += (await anext(lines)).lines
    return found


def records(lines):
    return exactly(line.log for line in lines if line.log is not None)


async def test_the_last_records_come_first_and_then_what_is_new(store):
    """Old records in order of time, then new ones; one that is in both comes once."""
    asked = question([("lines", "2")], now_unix_nano=T0)
    async with contextlib.aclosing(tail(store, asked)) as lines:
        found = await heard(lines, 2)
        await store.write(Signal.LOGS, [log(7), log(6)])
        await heard(lines, 4, found)
    assert records(found) == exactly([log(3), log(4), log(7), log(6)])


async def test_conditions_hold_for_old_and_new(store):
    """A filter applies to the records that are there and to those that come."""
    await store.write(Signal.LOGS, [log(8, level="ERROR", severity_number=17)])
    pairs = [("level", "error"), ("text", "HELLO")]
    async with contextlib.aclosing(tail(store, question(pairs, now_unix_nano=T0))) as lines:
        found = await heard(lines, 1)
        await store.write(Signal.LOGS, [log(9), log(10, level="CRITICAL", severity_number=21)])
        await heard(lines, 2, found)
    assert [line.log["_id"] for line in found] == [log(8)["_id"], log(10)["_id"]]


class Unsteady(Remembering):
    """A store whose steps are a script: an exception is raised, the rest is given."""

    def __init__(self, *follows):
        super().__init__()
        self.follows = list(follows)
        self.asked = []

    async def follow(self, query, after=""):
        self.asked.append(after)
        for step in self.follows.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step


async def test_a_store_that_is_away_is_asked_again_from_the_last_position():
    """Trouble is told once, pauses grow, and a record that comes again is shown once (D4)."""
    store = Unsteady(
        [Followed(position="1"), Followed(logs=[log(1), log(2)], position="2"), Retryable("down")],
        [Retryable("down")],
        [Retryable("still down")],
        [
            Followed(logs=[log(2), log(3)], position="3", gap="some are lost"),
            ValueError("no place"),
        ],
    )
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    asked = question([("lines", "0")], now_unix_nano=T0)
    steps = []

    async def collect():
        async for step in tail(store, asked, pause=pause):
            steps.append((step.lines, step.position))  # noqa: PERF401 - kept when it raises

    with pytest.raises(BadParameter, match="cursor: no place"):
        await collect()
    assert steps == [
        ([], "1"),
        ([Line(log=log(1)), Line(log=log(2))], "2"),
        ([Line(trouble="down")], "2"),
        ([Line(gap="some are lost"), Line(log=log(3))], "3"),
    ]
    assert (store.asked, pauses) == (["", "2", "2", "2"], [0.5, 1.0, 2.0])


async def test_a_store_that_is_away_from_the_start_is_told_at_once():
    """Before the first answer, a store that cannot be asked is an error and no endless wait."""
    store = Unsteady([Retryable("nobody there")])
    with pytest.raises(Retryable, match="nobody there"):
        await anext(tail(store, question([], now_unix_nano=T0)))


def test_what_is_remembered_is_bounded():
    """Only the last ids are remembered."""
    recent = Recent(3)
    assert [recent.new(each) for each in "abcabcda"] == [True] * 3 + [False] * 3 + [True, True]


@pytest.mark.parametrize(
    ("pairs", "parameter"),
    [
        ([("lines", "-1")], "lines"),
        ([("lines", "1001")], "lines"),
        ([("lines", "9" * 30)], "lines"),
        ([("lines", "²")], "lines"),
        ([("lines", "3"), ("cursor", "x")], "lines"),
        ([("until", "1h")], "until"),
        ([("order", "newest")], "order"),
        ([("level", "loud")], "level"),
        ([("cursor", "")], "cursor"),
        ([("cursor", "x" * 1025)], "cursor"),
    ],
)
def test_a_wrong_parameter_is_named(pairs, parameter):
    """Unknown, empty, huge and contradicting parameters are refused with their name (B55)."""
    with pytest.raises(BadParameter) as caught:
        question(pairs, now_unix_nano=T0)
    assert caught.value.parameter == parameter


# --- over HTTP ---


@contextlib.asynccontextmanager
async def serving(store, **settings):
    config = QueryServer.Config(endpoint="localhost:0", **settings)
    async with QueryServer(config, host("query", stores={"sqlite": store})) as server:
        yield server


class Listener:
    """A client that reads line by line, in threads."""

    def __init__(self, server, **pairs):
        self._server = server
        self._target = f"/api/v1/tail?{urllib.parse.urlencode(pairs)}"

    async def __aenter__(self):
        self._connection = http.client.HTTPConnection(
            self._server.endpoints["http"], timeout=GIVE_UP_S
        )
        await asyncio.to_thread(self._connection.request, "GET", self._target)
        self.response = await asyncio.to_thread(self._connection.getresponse)
        return self

    async def __aexit__(self, *exc):
        self.response.close()
        self._connection.close()

    async def line(self):
        return json.loads(await asyncio.to_thread(self.response.readline))

    async def until(self, count):
        """Lines until `count` records came, and the position behind them."""
        found = []
        while sum("log" in line for line in found) < count or "position" not in found[-1]:
            found.append(await self.line())
        return found


async def test_lines_over_a_socket(store):
    """GET /api/v1/tail streams NDJSON: records with a position behind them, heartbeats between."""
    async with serving(store) as server, Listener(server, lines="1") as listener:
        head = {name.lower(): value for name, value in listener.response.getheaders()}
        assert (listener.response.status, head["content-type"], head["cache-control"]) == (
            200,
            "application/x-ndjson",
            "no-store",
        )
        old, position = await listener.until(1)
        assert dumps(old["log"]) == dumps(log(4))
        assert list(position) == ["position"]
        await store.write(Signal.LOGS, [log(10)])
        new = await listener.until(1)
        assert dumps(new[-2]["log"]) == dumps(log(10))
        heartbeat = await listener.line()
        assert heartbeat == new[-1]  # nothing new: the same position again


async def test_a_tail_goes_on_behind_a_position(store):
    """With a cursor nothing old comes, and everything since then does."""
    async with serving(store) as server:
        async with Listener(server, lines="0") as listener:
            cursor = (await listener.line())["position"]
        await store.write(Signal.LOGS, [log(10), log(11)])
        async with Listener(server, cursor=cursor) as listener:
            found = await listener.until(2)
    assert [line["log"]["_id"] for line in found if "log" in line] == [
        log(10)["_id"],
        log(11)["_id"],
    ]


async def test_bad_questions_are_refused_before_the_stream(store):
    """A forged cursor and an unknown parameter are 400 with their name, as everywhere."""
    async with serving(store) as server:
        for pairs, parameter in (
            ({"cursor": "s:00"}, "cursor"),
            ({"cursor": "r:1"}, "cursor"),
            ({"limit": "1"}, "limit"),
            ({"lines": "x"}, "lines"),
        ):
            async with Listener(server, **pairs) as listener:
                body = json.loads(listener.response.read())
                assert (listener.response.status, body["parameter"]) == (400, parameter)


async def test_those_who_follow_are_bounded_and_leave_a_place(store):
    """One more than `max_tails` is 429; when a client leaves, its place is free again."""
    async with serving(store, max_tails=1) as server:
        async with Listener(server) as first:
            await first.line()
            async with Listener(server) as second:
                assert second.response.status == 429
                assert json.loads(second.response.read())["error"].startswith("1 follow already")
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                async with Listener(server) as third:
                    if third.response.status == 200:
                        break
                await asyncio.sleep(0.05)


async def test_a_closing_port_ends_the_stream(store):
    """A port that closes ends who follows properly, without waiting for them to leave."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(store))
        listener = await stack.enter_async_context(Listener(server))
        await listener.line()
        rest = asyncio.create_task(asyncio.to_thread(listener.response.read))
        await asyncio.sleep(0)
        await server.__aexit__()
        async with asyncio.timeout(GIVE_UP_S):
            body = await rest
    assert all(json.loads(line) for line in body.splitlines())


async def test_a_store_that_is_away_is_503(tmp_path):
    """A store that cannot be followed when asked is 503 with what is wrong."""
    async with serving(Unsteady([Retryable("MongoDB is away")])) as server, Listener(server) as one:
        assert one.response.status == 503
        assert json.loads(one.response.read())["error"] == "MongoDB is away"
