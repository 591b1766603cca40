"""Loki's live tail over real WebSockets: frames, filters, refusals, places, the end of the port."""

import asyncio
import contextlib
import json
import logging
import time
import urllib.parse

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.query.logql import parse_log
from collector.query.logql.evaluation.source import Documents
from collector.query.logql.evaluation.stages import pipeline
from collector.query.loki.tail import FRAME_LINES, frame
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.logql import END, START, record

pytestmark = pytest.mark.anyio
ALL = '{service_name=~".+"}'
FLAG = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        yield opened


@contextlib.asynccontextmanager
async def serving(store, **settings):
    """The query port on a store."""
    host = Host("query", Stats(), logging.getLogger("query"), stores={"sqlite": store})
    config = QueryServer.Config(**{"endpoint": "localhost:0", **settings})
    async with QueryServer(config, host) as server:
        yield server


def tail(server, query, *, prefix="/loki/api/v1", headers=(), **parameters):
    """A connection that follows a query."""
    text = urllib.parse.urlencode({"query": query, "start": START, **parameters})
    url = f"ws://{server.endpoints['http']}{prefix}/tail?{text}"
    return connect(url, additional_headers=dict(headers), proxy=None)


async def received(socket, count):
    """The next frames until so many lines came, as (line, rest of the entry) in order."""
    found = []
    while len(found) < count:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 20))
        assert list(frame) in (["streams"], ["streams", "encodingFlags"])
        found += [
            (line, *rest, one["stream"])
            for one in frame["streams"]
            for _, line, *rest in one["values"]
        ]
    return found


async def test_old_lines_come_first_then_each_new_one_once(store):
    """History up to the limit, then what is stored, through the stages of the query (D5)."""
    await store.write(Signal.LOGS, [record(f"n={n}", seconds=n) for n in range(5)])
    async with (
        serving(store) as server,
        tail(server, ALL + " | logfmt | n > 1", limit=2, headers=FLAG) as socket,
    ):
        first = await received(socket, 2)
        assert [line for line, *_ in first] == ["n=3", "n=4"]
        assert first[0][1]["parsed"] == {"n": "3"}
        assert first[0][1]["structuredMetadata"]["detected_level"] == "info"
        assert first[0][2] == {"service_name": "shop"}
        await store.write(Signal.LOGS, [record(f"n={n}", seconds=n) for n in (0, 7, 8)])
        assert [line for line, *_ in await received(socket, 2)] == ["n=7", "n=8"]


async def test_without_the_flag_an_entry_is_a_pair(store):
    """Plain pairs, and all labels in the stream; the doubled prefix answers too (D5)."""
    await store.write(Signal.LOGS, [record("n=1")])
    async with (
        serving(store) as server,
        tail(server, ALL + " | logfmt", prefix="/loki/loki/api/v1") as socket,
    ):
        [(line, stream)] = await received(socket, 1)
    assert line == "n=1"
    assert stream["n"] == "1"
    assert stream["detected_level"] == "info"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [("{a", 400, b"parse error at line 1, col 3"), ("{}", 400, b"parse error at line 1, col 1")],
)
async def test_a_bad_query_is_refused_before_the_upgrade(store, query, status, text):
    """Plain HTTP with the parser's sentence (D5)."""
    async with serving(store) as server:
        with pytest.raises(InvalidStatus) as caught:
            async with tail(server, query):
                pass
    assert caught.value.response.status_code == status
    assert caught.value.response.body.startswith(text)


async def test_a_metric_query_is_closed_with_1011(store):
    """As Loki closes it (D5)."""
    async with serving(store) as server, tail(server, "vector(1)") as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), 20)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
        1011, "only log selector is supported"
    )  # fmt: skip


async def test_places_are_counted_and_given_back(store):
    """One more than `max_tails` is 429; when one leaves, the next is taken (D5)."""
    async with serving(store, max_tails=1) as server:
        async with tail(server, ALL):
            with pytest.raises(InvalidStatus) as caught:
                async with tail(server, ALL):
                    pass
            assert caught.value.response.status_code == 429
        deadline = time.monotonic() + 20
        while True:  # the server notices the close a moment later
            try:
                async with tail(server, ALL):
                    break
            except InvalidStatus:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


async def test_the_end_of_the_port_is_1001(store):
    """A browser that gets this code comes back (D5)."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(store))
        socket = await stack.enter_async_context(tail(server, ALL))
        await asyncio.sleep(0.2)
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), 20)
        await stopping
    assert caught.value.rcvd.code == 1001


async def test_the_guard_asks_for_the_token(store):
    """No token, no upgrade; Grafana's proxy sends it (D5)."""
    async with serving(store, token="secret") as server:
        with pytest.raises(InvalidStatus) as caught:
            async with tail(server, ALL):
                pass
        assert caught.value.response.status_code == 401
        async with tail(server, ALL, headers={"Authorization": "Bearer secret"}):
            pass


def test_a_frame_is_bounded_and_names_what_it_leaves_out():
    """A thousand lines; of the others labels and times are named, a hundred at most (D5)."""
    documents = [record(f"n={n}", seconds=n / 10) for n in range(1200)]
    run = pipeline(parse_log(ALL))
    source = Documents(documents).documents(parse_log(ALL), 0, END, newest_first=False)
    found = json.loads(frame([run(document) for document in source], categorized=False))
    assert sum(len(one["values"]) for one in found["streams"]) == FRAME_LINES
    assert len(found["dropped_entries"]) == 100
    assert found["dropped_entries"][0] == {
        "labels": {"service_name": "shop"}, "timestamp": str(START + 100 * 10**9)
    }  # fmt: skip
