"""The query port over real sockets: answers, refusals, limits, and who may ask."""

import asyncio
import contextlib
import http.client
import json
import logging
import urllib.parse

import pytest

from collector.errors import Retryable, StartFailed
from collector.model import Duration, Host, Secret, Signal
from collector.query.app import QueryServer
from collector.query.trace import trace
from collector.stats import Stats
from collector.stores.base import dumps
from collector.stores.sqlite.store import SQLite
from tests.traces import FIRST, LOGS, SPANS, Remembering, at

pytestmark = pytest.mark.anyio

JSON_HEADERS = {
    "content-type": "application/json",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


class Answered:
    """One answer: `status`, `headers` with lower-case names, `body`, and `json`."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)


def host(store, name="query"):
    log = logging.getLogger("collector.component.query")
    return Host(name, Stats(), log, stores={"sqlite": store} if store else {})


@contextlib.asynccontextmanager
async def serving(store, **settings):
    config = QueryServer.Config(**{"endpoint": "localhost:0", **settings})
    async with QueryServer(config, host(store)) as server:
        yield server


async def get(server, target, method="GET", headers=()):
    """One request; `headers` are pairs, and replace the Host header when they have one."""

    def blocking():
        connection = http.client.HTTPConnection(server.endpoints["http"], timeout=20)
        try:
            own_host = any(name == "Host" for name, _ in headers)
            connection.putrequest(method, target, skip_host=own_host)
            for name, value in headers:
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders()
            return Answered(connection.getresponse())
        finally:
            connection.close()

    return await asyncio.to_thread(blocking)


@pytest.fixture
async def store(tmp_path):
    sqlite = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), sqlite) as opened:
        await opened.write(Signal.TRACES, SPANS)
        await opened.write(Signal.LOGS, LOGS)
        yield opened


@pytest.fixture
async def server(store):
    async with serving(store) as running:
        yield running


async def test_a_trace_by_any_id(server, store):
    """GET /api/v1/trace/{id} sends exactly the answer of the service, with strict headers (D4)."""
    for text in ("corr-1", FIRST.upper(), "task-2"):
        answered = await get(server, f"/api/v1/trace/{text}")
        assert answered.status == 200
        assert answered.body == dumps(await trace(store, text))
        assert {name: answered.headers[name] for name in JSON_HEADERS} == JSON_HEADERS
        assert "access-control-allow-origin" not in answered.headers


async def test_an_id_may_hold_any_character():
    """Slashes, blanks, quotes and percent signs of an id arrive as they were sent."""
    text = "a/b c%2F\"'#?é"
    remembering = Remembering()
    async with serving(remembering) as server:
        answered = await get(server, f"/api/v1/trace/{urllib.parse.quote(text, safe='')}")
    assert (answered.status, answered.json["id"]) == (404, text)
    assert remembering.queries[0].id == text


async def test_an_unknown_id_is_404_with_what_was_searched(server, store):
    """Not found says in which store, as which kinds of ids, and what times it holds."""
    answered = await get(server, "/api/v1/trace/nope")
    assert answered.status == 404
    assert answered.json == {
        "id": "nope",
        "searched": {
            "store": store.describe(),
            "ids": ["nope"],
            "kinds": [
                "trace_id",
                "correlation_id",
                "request_id",
                "task_id",
                "order_id",
                "batch_run_id",
            ],
            "spans": {"oldest_unix_nano": at(0), "newest_unix_nano": at(5000)},
            "logs": {"oldest_unix_nano": at(1), "newest_unix_nano": at(8000)},
        },
    }


async def test_logs_by_filters_and_pages(server):
    """GET /api/v1/logs filters, orders and pages; the last page has no `next`."""
    first = await get(server, "/api/v1/logs?correlation_id=corr-1&limit=3")
    assert [each["message"] for each in first.json["logs"]] == [
        "nightly report",
        "order opened",
        LOGS[1]["message"],
    ]
    cursor = first.json["next"]
    second = await get(server, f"/api/v1/logs?correlation_id=corr-1&limit=3&cursor={cursor}")
    assert [each["message"] for each in second.json["logs"]] == ["order received"]
    assert "next" not in second.json

    for asked, messages in {
        "level=critical": ["Database unreachable"],
        "where=lots%3D0.5": ["order received"],
        "text=ENOUGH+margin&order=oldest": [LOGS[1]["message"]],
        f"trace_id={FIRST}&level=warning&order=oldest": [LOGS[1]["message"], "nobody's child"],
        "where=lots%3D%7B%22%24ne%22%3Anull%7D": [],
        "service=%7B%22%24ne%22%3A1%7D": [],
    }.items():
        answered = await get(server, f"/api/v1/logs?{asked}")
        assert (answered.status, [each["message"] for each in answered.json.get("logs", [])]) == (
            200,
            messages,
        ), asked


async def test_the_counters(server):
    """GET /api/v1/stats gives the collector's counters, this port's own among them."""
    await get(server, "/api/v1/logs")
    await get(server, "/api/v1/trace/nope")
    assert (await get(server, "/api/v1/stats")).json == {
        'otelcol_query_requests{status="200"}': 1,
        'otelcol_query_requests{status="404"}': 1,
    }


async def test_the_index_says_how_to_ask(server):
    """GET / is plain HTML without script, style or anything else to load."""
    answered = await get(server, "/")
    assert (answered.status, answered.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answered.headers["content-security-policy"] == JSON_HEADERS["content-security-policy"]
    assert b"/api/v1/logs" in answered.body
    assert b"<script" not in answered.body


BAD = [
    ("/api/v1/logs?limit=-1", "limit"),
    ("/api/v1/logs?limit=NaN", "limit"),
    ("/api/v1/logs?limit=999999999999999999999", "limit"),
    ("/api/v1/logs?cursor=forged", "cursor"),
    ("/api/v1/logs?%24where=1", "$where"),
    ("/api/v1/logs?service[$ne]=1", "service[$ne]"),
    ("/api/v1/logs?since=NaN", "since"),
    ("/api/v1/logs?service=", "service"),
    ("/api/v1/trace/x?limit=1", "limit"),
    ("/api/v1/trace/%20", "id"),
    (f"/api/v1/trace/{'x' * 1025}", "id"),
    ("/api/v1/stats?x=1", "x"),
]


async def test_bad_parameters_are_400_and_named(server):
    """Unknown, negative, huge, NaN and forged parameters: 400 with the name and a fix (B48, B55)."""
    for target, parameter in BAD:
        answered = await get(server, target)
        assert (answered.status, answered.json["parameter"]) == (400, parameter)
        assert answered.json["error"]
        assert {name: answered.headers[name] for name in JSON_HEADERS} == JSON_HEADERS


async def test_other_paths_and_methods(server):
    """What is not here is 404, what is not reading is 405 with Allow; both as JSON."""
    for target in ("/nothing", "/api/v1/logs/", "/api/v1/trace/", "/api/v1/../etc"):
        assert (await get(server, target)).status in (400, 404), target
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answered = await get(server, "/api/v1/logs", method)
        assert (answered.status, answered.headers["allow"]) == (405, "GET, HEAD")
        assert answered.json == {"error": "this is a reading port: use GET"}


async def test_the_host_header_is_an_exact_list():
    """Only loopback names and configured ones are answered (B71)."""
    async with serving(Remembering(), allowed_hosts=("query.internal",)) as server:
        for name, status in {
            "localhost": 200,
            "LOCALHOST:4319": 200,
            "127.0.0.1:9999": 200,
            "[::1]:4319": 200,
            "query.internal": 200,
            "evil.com": 421,
            "127.0.0.1:evil.com": 421,
            "localhost.evil.com": 421,
            "localhost@evil.com": 421,
            "": 421,
        }.items():
            answered = await get(server, "/api/v1/stats", headers=[("Host", name)])
            assert answered.status == status, name


async def test_two_hosts_are_none(server):
    """A request with two Host headers is refused, whatever they say."""
    twice = [("Host", "localhost"), ("Host", "evil.com")]
    assert (await get(server, "/api/v1/stats", headers=twice)).status in (400, 421)


async def test_a_foreign_origin_is_refused(server):
    """Another page's Origin, `null` included: 403 without CORS headers; the port's own is fine (B72)."""
    for origin in ("https://evil.com", "null", "http://localhost:1", "http://localhost.evil.com"):
        answered = await get(server, "/api/v1/stats", headers=[("Origin", origin)])
        assert answered.status == 403
        assert [name for name in answered.headers if name.startswith("access-control")] == []
    own = [("Host", "localhost:4319"), ("Origin", "http://localhost:4319")]
    assert (await get(server, "/api/v1/stats", headers=own)).status == 200


TOKEN = "0123456789abcdef0123456789abcdef"


async def test_a_token_guards_every_path():
    """With a token set, only its exact bearer is answered, on each path (B69)."""
    async with serving(Remembering(), token=Secret(TOKEN)) as server:
        for given, status in (
            ([f"Bearer {TOKEN}"], 200),
            ([f"bearer {TOKEN}"], 200),
            ([], 401),
            ([""], 401),
            (["Bearer "], 401),
            ([f"Bearer {TOKEN[:-1]}"], 401),
            ([f"Bearer {TOKEN}x"], 401),
            ([f"Bearer {TOKEN.upper()}"], 401),
            ([f"Basic {TOKEN}"], 401),
            ([TOKEN], 401),
            ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], 401),
        ):
            headers = [("Host", "any.name"), *(("Authorization", value) for value in given)]
            for target in ("/", "/api/v1/stats", "/api/v1/logs", "/nothing"):
                answered = await get(server, target, headers=headers)
                expected = 404 if target == "/nothing" and status == 200 else status
                assert answered.status == expected, (given, target)


@pytest.mark.parametrize(
    "endpoint", ["0.0.0.0:4319", ":4319", "192.0.2.1:4319", "[::]:4319", "example.com:4319"]
)
def test_beyond_loopback_needs_a_token(endpoint, monkeypatch):
    """A wider bind without a token is refused by the configuration, unless named dangerous (B68)."""
    with pytest.raises(ValueError, match="reachable from other machines without a token"):
        QueryServer.Config(endpoint=endpoint)
    QueryServer.Config(endpoint=endpoint, token=Secret(TOKEN))
    QueryServer.Config(endpoint=endpoint, dangerously_allow_unauthenticated=True)
    monkeypatch.setenv("TELEMETRY_ALLOW_UNAUTHENTICATED", "1")
    QueryServer.Config(endpoint=endpoint)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_rows": 10_000}, "`max_rows` must be from 1000 to 9999"),
        ({"max_rows": 0}, "`max_rows` must be from 1000 to 9999"),
        ({"timeout": Duration(0)}, "`timeout` must be positive"),
        ({"max_concurrent": 0}, "`max_concurrent` must be positive"),
    ],
)
def test_limits_that_cannot_work_are_refused(settings, text):
    """Limits are checked when the configuration is read."""
    with pytest.raises(ValueError, match=text):
        QueryServer.Config(**settings)


async def test_without_a_store_it_does_not_start():
    """No store, or one that is in no pipeline: one line with the fix, and no open port."""
    for store, wanted, text in (
        (
            None,
            None,
            "there is no exporter that is a store in a pipeline; add sqlite or mongodb to one",
        ),
        (
            Remembering(),
            "mongodb",
            'exporter "mongodb" is not a store in a pipeline; choose one of sqlite',
        ),
    ):
        server = QueryServer(QueryServer.Config(endpoint="localhost:0", store=wanted), host(store))
        with pytest.raises(StartFailed) as caught:
            await server.__aenter__()
        assert (str(caught.value), server.endpoints) == (text, {})


async def test_a_port_in_use_is_one_line(server):
    """A second server on the same port says so and what to do."""
    with pytest.raises(StartFailed, match="in use; stop the other process or choose another"):
        async with serving(Remembering(), endpoint=server.endpoints["http"]):
            pass


class Failing(Remembering):
    """A store that fails like a real one."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def find(self, query):
        raise self.error


async def test_a_store_that_is_down_is_503(caplog):
    """A store that is down: 503 with Retry-After and its reason; a bug of it: 503, no traceback, one log line."""
    async with serving(Failing(Retryable("MongoDB at db:27017 is down", delay_s=2.5))) as server:
        for target in ("/api/v1/trace/x", "/api/v1/logs"):
            answered = await get(server, target)
            assert (answered.status, answered.headers["retry-after"]) == (503, "3")
            assert answered.json == {"error": "MongoDB at db:27017 is down"}
    assert caplog.messages == []
    async with serving(Failing(KeyError("secret detail"))) as server:
        for target in ("/api/v1/trace/x", "/api/v1/logs"):
            answered = await get(server, target)
            assert (answered.status, answered.headers["retry-after"]) == (503, "1")
            assert answered.json == {"error": "the store could not answer; see the collector's log"}
    assert caplog.messages == ["a question could not be answered; more within 60 s unsaid"]


class Holding(Remembering):
    """A store that answers when it is told to, and remembers what was cancelled."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        self.cancelled = asyncio.Semaphore(0)

    async def find(self, query):
        self.asked.release()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        return await super().find(query)


async def test_a_question_has_a_time_limit():
    """A question that takes too long is cancelled and answered 503 with the limit named."""
    store = Holding()
    async with serving(store, timeout=Duration(0.05)) as server:
        answered = await get(server, "/api/v1/logs")
    assert (answered.status, answered.headers["retry-after"]) == (503, "1")
    assert answered.json == {"error": "no answer within 0.05 s; narrow it with since or service"}
    await store.cancelled.acquire()


async def test_a_client_that_leaves_cancels_its_question():
    """Nobody waits any more: the store's work is cancelled and its place is free again (B54)."""
    store = Holding()
    async with serving(store, max_concurrent=1) as server:
        address, _, port = server.endpoints["http"].rpartition(":")
        _, writer = await asyncio.open_connection(address, int(port))
        writer.write(b"GET /api/v1/logs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await store.asked.acquire()
        writer.close()
        await store.cancelled.acquire()
        store.open.set()
        assert (await get(server, "/api/v1/logs")).status == 200


async def test_only_so_many_questions_at_once():
    """A question beyond the limit waits for its turn, and is answered when one is done."""
    store = Holding()
    async with serving(store, max_concurrent=2) as server:
        asking = [asyncio.create_task(get(server, "/api/v1/logs")) for _ in range(5)]
        await store.asked.acquire()
        await store.asked.acquire()
        for _ in range(5):
            await get(server, "/")
        assert store.asked.locked()  # nobody else came through
        store.open.set()
        assert [answered.status for answered in await asyncio.gather(*asking)] == [200] * 5
        assert len(store.queries) == 5


async def test_a_question_that_never_gets_its_turn_is_429():
    """Waiting for a turn is bounded: 429 with Retry-After and the number that runs."""
    store = Holding()
    async with serving(store, max_concurrent=1, queue_timeout=Duration(0.05)) as server:
        first = asyncio.create_task(get(server, "/api/v1/logs"))
        await store.asked.acquire()
        answered = await get(server, "/api/v1/trace/x")
        assert (answered.status, answered.headers["retry-after"]) == (429, "1")
        assert answered.json == {"error": "1 questions are running; ask again"}
        store.open.set()
        assert (await first).status == 200
