"""`traces`, `services`, `operations` and `metrics`: whole answers, pages, and what is refused."""

import logging

import msgspec
import pytest

from collector.documents.build import moment
from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.query.paged import ask
from collector.query.parameters import BadParameter
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.collector.query.test_app import get
from tests.contracts.stores import log, point, span

pytestmark = pytest.mark.anyio

SECOND = 10**9
T0 = 1_800_000_000 * SECOND
NOW = T0 + 100 * SECOND
ONE, TWO, THREE = (f"{number:032x}" for number in (1, 2, 3))


def at(number, trace_id, start_s, duration_ms, **fields):
    start = T0 + start_s * SECOND
    return span(
        number,
        trace_id=trace_id,
        start_unix_nano=start,
        start=moment(start),
        end_unix_nano=start + round(duration_ms * 1e6),
        duration_ms=duration_ms,
        **fields,
    )


CHILD = {"parent_span_id": "00000000000000aa"}
SPANS = [
    at(1, ONE, 0, 500.0, name="POST /orders", kind="SERVER", service="shop"),
    at(2, ONE, 0, 20.0, name="SELECT", kind="CLIENT", service="shop", **CHILD),
    at(3, ONE, 30, 90.0, name="run/mail", kind="CONSUMER", service="mail", status="ERROR", **CHILD),
    at(4, TWO, 10, 40.0, name="GET /", kind="SERVER", service="shop", status="OK"),
    at(5, THREE, 20, 2_000.0, name="GET /", kind="SERVER", service="shop", **CHILD),
]
LOGS = [
    log(1, time_unix_nano=T0 + 40 * SECOND, service="cron", level="ERROR", severity_number=17),
    log(2, time_unix_nano=T0 - 40 * SECOND, service="mail"),
]
POINTS = [
    point(number, time_unix_nano=T0 + number * SECOND, name=name, service=service, unit="s")
    for number, (name, service) in enumerate((("b", "shop"), ("a", "shop"), ("a", "mail")))
]

FIRST = {
    "trace_id": ONE,
    "service": "shop",
    "name": "POST /orders",
    "status": "UNSET",
    "root": True,
    "start_unix_nano": T0,
    "end_unix_nano": T0 + 30_090_000_000,
    "duration_ms": 30_090.0,
    "spans": 3,
    "errors": 1,
    "services": [{"name": "shop", "spans": 2}, {"name": "mail", "spans": 1, "errors": 1}],
    "matched": {
        "span_id": "0000000000000003",
        "service": "mail",
        "name": "run/mail",
        "status": "ERROR",
        "start_unix_nano": T0 + 30 * SECOND,
        "duration_ms": 90.0,
    },
}
SEARCHED = {"searched": {"store": "SQLite file t.db"}}


@pytest.fixture
async def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path="t.db"), host) as opened:
        await opened.write(Signal.TRACES, SPANS)
        await opened.write(Signal.LOGS, LOGS)
        await opened.write(Signal.METRICS, POINTS)
        yield opened


async def asked(store, what, *pairs):
    return msgspec.json.decode(await ask(store, what, pairs, now_unix_nano=NOW))


async def test_a_trace_in_a_list_says_what_a_reader_chooses_by(store):
    """A whole answer: the root's name, the times, counts and services of the whole trace (D4)."""
    found = await asked(store, "traces", ("limit", "1"))
    assert found == {
        "traces": [FIRST],
        "next": f"{NOW - 3600 * SECOND}_{NOW + 1}_{T0 + 30 * SECOND}_{SPANS[2]['_id']}",
        **SEARCHED,
    }


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([], [ONE, THREE, TWO]),
        ([("order", "slowest")], [THREE, ONE, TWO]),
        ([("service", "shop")], [THREE, TWO, ONE]),
        ([("service", "mail")], [ONE]),
        ([("errors", "true")], [ONE]),
        ([("errors", "true"), ("service", "shop")], []),
        ([("operation", "GET /")], [THREE, TWO]),
        ([("operation", "GET /"), ("order", "slowest")], [THREE, TWO]),
        ([("min_duration", "100ms")], [THREE, ONE]),
        ([("since", "85s")], [ONE, THREE]),
        ([("until", "75s")], [THREE, TWO, ONE]),
        ([("since", "1s")], []),
    ],
)
async def test_each_condition_is_about_one_span_of_a_trace(store, pairs, wanted):
    """A trace is listed once, where the first span that meets all conditions stands; pages are the same."""
    found = await asked(store, "traces", *pairs)
    assert [trace["trace_id"] for trace in found.get("traces", [])] == wanted
    assert "next" not in found
    pages, cursor = [], []
    while True:
        page = await asked(store, "traces", *pairs, ("limit", "1"), *cursor)
        pages += page.get("traces", [])
        if "next" not in page:
            break
        cursor = [("cursor", page["next"])]
    assert pages == found.get("traces", [])


async def test_a_trace_without_its_root_is_shown_by_its_earliest_span(store):
    """The root of a trace may be somebody else's: the list says that it is not stored."""
    found = await asked(store, "traces", ("min_duration", "1s"))
    assert found["traces"][0] | {"matched": None} == {
        "trace_id": THREE,
        "service": "shop",
        "name": "GET /",
        "status": "UNSET",
        "start_unix_nano": T0 + 20 * SECOND,
        "end_unix_nano": T0 + 22 * SECOND,
        "duration_ms": 2_000.0,
        "spans": 1,
        "services": [{"name": "shop", "spans": 1}],
        "matched": None,
    }


async def test_services_of_spans_and_of_log_records(store):
    """Each service with what it sent; one that only logs is there, too."""
    found = await asked(store, "services")
    assert found == {
        "services": [
            {
                "name": "cron",
                "logs": 1,
                "error_logs": 1,
                "first_unix_nano": T0 + 40 * SECOND,
                "last_unix_nano": T0 + 40 * SECOND,
            },
            {
                "name": "mail",
                "spans": 1,
                "requests": 1,
                "errors": 1,
                "logs": 1,
                "first_unix_nano": T0 - 40 * SECOND,
                "last_unix_nano": T0 + 30 * SECOND,
            },
            {
                "name": "shop",
                "spans": 4,
                "requests": 3,
                "first_unix_nano": T0,
                "last_unix_nano": T0 + 20 * SECOND,
            },
        ],
        **SEARCHED,
    }
    cut = await asked(store, "services", ("limit", "1"))
    assert [row["name"] for row in cut["services"]] == ["cron"]
    assert cut["cut"] == ["there are 3 services; the first 1 by name are shown"]


async def test_operations_with_rates_and_percentiles(store):
    """Rates are per second of the time asked for, percentiles are durations of real spans."""
    pairs = (("service", "shop"), ("since", "100s"), ("until", "0s"))
    found = await asked(store, "operations", *pairs)
    assert found == {
        "operations": [
            {
                "service": "shop", "name": "GET /", "kind": "SERVER", "count": 2,
                "p50_ms": 40.0, "p95_ms": 2_000.0, "p99_ms": 2_000.0, "max_ms": 2_000.0,
                "last_unix_nano": T0 + 20 * SECOND, "rate_per_s": 0.02,
            },
            {
                "service": "shop", "name": "POST /orders", "kind": "SERVER", "count": 1,
                "p50_ms": 500.0, "p95_ms": 500.0, "p99_ms": 500.0, "max_ms": 500.0,
                "last_unix_nano": T0, "rate_per_s": 0.01,
            },
        ],
        "since_unix_nano": T0,
        "until_unix_nano": NOW,
        **SEARCHED,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([], ["GET /", "run/mail", "POST /orders"]),
        ([("kind", "all")], ["GET /", "run/mail", "POST /orders", "SELECT"]),
        ([("order", "errors")], ["run/mail", "GET /", "POST /orders"]),
        ([("order", "slow")], ["GET /", "POST /orders", "run/mail"]),
        ([("order", "name"), ("kind", "all")], ["run/mail", "GET /", "POST /orders", "SELECT"]),
    ],
)
async def test_orders_of_operations_and_their_pages(store, pairs, wanted):
    """Each order, whole and in pages of one."""
    found, cursor = [], []
    while True:
        page = await asked(store, "operations", *pairs, ("limit", "1"), *cursor)
        found += page.get("operations", [])
        if "next" not in page:
            break
        cursor = [("cursor", page["next"])]
    assert [row["name"] for row in found] == wanted
    whole = await asked(store, "operations", *pairs)
    assert whole["operations"] == found


async def test_metrics_by_name_and_in_pages(store):
    """Every metric once, with all that send it."""
    whole = await asked(store, "metrics")
    assert whole == {
        "metrics": [
            {
                "name": "a", "type": "sum", "unit": "s", "services": ["mail", "shop"],
                "points": 2, "last_unix_nano": T0 + 2 * SECOND,
            },
            {
                "name": "b", "type": "sum", "unit": "s", "services": ["shop"],
                "points": 1, "last_unix_nano": T0,
            },
        ],
        **SEARCHED,
    }  # fmt: skip
    first = await asked(store, "metrics", ("limit", "1"))
    second = await asked(store, "metrics", ("limit", "1"), ("cursor", first["next"]))
    assert [*first["metrics"], *second["metrics"]] == whole["metrics"]
    assert "next" not in second
    shop = await asked(store, "metrics", ("service", "mail"))
    assert [row["name"] for row in shop["metrics"]] == ["a"]


@pytest.mark.parametrize(
    ("what", "pair", "reason"),
    [
        ("traces", ("errors", "1"), "errors: write true or false"),
        ("traces", ("limit", "-1"), "limit: write a whole number from 1 to 1000; page with cursor"),
        (
            "traces",
            ("limit", "1001"),
            "limit: write a whole number from 1 to 1000; page with cursor",
        ),
        ("traces", ("order", "best"), "order: write recent or slowest"),
        ("traces", ("cursor", "1_2_1.5_" + "a" * 24), "cursor: not a cursor"),
        ("traces", ("cursor", "1_2_1e999_" + "a" * 24), "cursor: not a cursor"),
        ("traces", ("min_duration", "NaN"), "min_duration: write a duration"),
        ("traces", ("text", "x"), "text: unknown parameter"),
        ("services", ("cursor", "1_2_x"), "cursor: unknown parameter"),
        ("operations", ("cursor", "1_2_x"), "cursor: not a cursor"),
        ("operations", ("cursor", "1_2_WzFd"), "cursor: not a cursor"),
        ("operations", ("kind", "SERVER"), "kind: write entry or all"),
        ("metrics", ("cursor", "1_2_WyJhIl0"), "cursor: not a cursor"),
        ("metrics", ("order", "name"), "order: unknown parameter"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_the_fix(store, what, pair, reason):
    """A wrong parameter is named, with what to write instead."""
    with pytest.raises(BadParameter) as refused:
        await asked(store, what, pair)
    assert str(refused.value).startswith(reason)


async def test_names_of_any_length_page(tmp_path):
    """Long names that begin alike, and names of any letters, are still pages of one list."""
    names = [*("ä" * 3000 + str(number) for number in range(5)), "\x00", "\\", '"']
    spans = [
        at(number, ONE, number, 1.0, name=name, service=name, kind="SERVER")
        for number, name in enumerate(names)
    ]
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "u.db")), host) as opened:
        await opened.write(Signal.TRACES, spans)
        found, cursor = [], []
        while True:
            page = await asked(opened, "operations", ("limit", "1"), *cursor)
            found += [row["name"] for row in page.get("operations", [])]
            if "next" not in page:
                break
            cursor = [("cursor", page["next"])]
    assert sorted(found) == sorted(names)


async def test_over_http(store):
    """Each list has a route with the same JSON, and refusals are 400 with the parameter."""
    log = logging.getLogger("collector.component.query")
    host = Host("query", Stats(), log, stores={"sqlite": store})
    since = "2027-01-15T07:00:00"
    async with QueryServer(QueryServer.Config(endpoint="localhost:0"), host) as server:
        for what in ("traces", "services", "operations", "metrics"):
            answer = await get(server, f"/api/v1/{what}?since={since}&until=2027-01-15T09:00:00")
            assert answer.status == 200, answer.body
            pairs = (("since", since), ("until", "2027-01-15T09:00:00"))
            assert answer.json == await asked(store, what, *pairs)
            assert answer.json[what]
        refused = await get(server, "/api/v1/traces?limit=0")
        assert (refused.status, refused.json["parameter"]) == (400, "limit")
        index = await get(server, "/")
        assert b"GET /api/v1/traces" in index.body
