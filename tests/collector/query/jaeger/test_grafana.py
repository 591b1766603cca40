"""What Grafana's Jaeger data source asks of the fixed data set, with each store (D4)."""

import json

import pytest

from collector.model import Secret, Signal
from collector.stores.mongodb.store import MongoDB
from tests.collector.query.tempo.asking import (
    END,
    GOLDEN,
    START,
    fixed_documents,
    host,
    port,
    sqlite,
)

pytestmark = pytest.mark.anyio
EXPECTED = json.loads((GOLDEN / "jaeger.json").read_text())
RANGE = {"start": START * 10**6, "end": END * 10**6}
NOTHING = {"data": [], "total": 0, "limit": 0, "offset": 0, "errors": None}


@pytest.fixture(params=["sqlite", "mongodb"])
async def ask(request, tmp_path):
    """The query port over a store that has the fixed data set."""
    if request.param == "sqlite":
        async with sqlite(tmp_path / "t.db", fixed_documents()) as store, port(store) as asking:
            yield asking
        return
    uri = request.getfixturevalue("mongodb_uri")
    database = request.getfixturevalue("mongodb_database")
    config = MongoDB.Config(uri=Secret(uri), database=database)
    async with MongoDB(config, host("mongodb")) as store:
        await store.write(Signal.TRACES, fixed_documents())
        async with port(store) as asking:
            yield asking


@pytest.fixture
async def empty(tmp_path):
    """The query port over a store without anything."""
    async with sqlite(tmp_path / "e.db", ()) as store, port(store) as asking:
        yield asking


def ordered(trace):
    """A trace without the orders that mean nothing: of spans, and of names of processes."""
    named = {key: process["serviceName"] for key, process in trace["processes"].items()}
    assert len(set(named.values())) == len(named)
    spans = [{**span, "processID": named[span["processID"]]} for span in trace["spans"]]
    return {
        **trace,
        "spans": sorted(spans, key=lambda span: span["spanID"]),
        "processes": {each["serviceName"]: each for each in trace["processes"].values()},
    }


async def test_lists_are_those_of_jaeger(ask):
    """Services, operations and dependencies: the same JSON."""
    for path, expected in EXPECTED["lists"].items():
        answered = await ask(f"/jaeger{path}")
        assert (answered.status, answered.json) == (200, expected), path


async def test_a_trace_is_that_of_jaeger(ask):
    """Every span, tag, reference, process and event of two traces, one with an exception."""
    whole = EXPECTED["trace"]
    for expected in (whole["data"][0], EXPECTED["failed"]):
        answered = await ask(f"/jaeger/api/traces/{expected['traceID']}", start=1, end=2)
        assert answered.status == 200
        (found,) = answered.json["data"]
        assert ordered(found) == ordered(expected)
        assert {**answered.json, "data": None} == {**whole, "data": None}


async def test_searches_find_what_jaeger_finds(ask):
    """The same traces with all their spans; of too many we show the newest."""
    for searched in EXPECTED["searches"]:
        answered = await ask("/jaeger/api/traces", **searched["q"])
        assert answered.status == 200, answered.text
        found = {
            trace["traceID"]: sorted(span["spanID"] for span in trace["spans"])
            for trace in answered.json["data"]
        }
        if len(searched["traces"]) < int(searched["q"]["limit"]):
            assert found == searched["traces"], searched["q"]
        else:
            assert len(found) == len(searched["traces"])
        starts = [trace["spans"][0]["startTime"] for trace in answered.json["data"]]
        assert starts == sorted(starts, reverse=True)
        assert {**answered.json, "data": []} == NOTHING


@pytest.mark.parametrize(
    ("tags", "count"),
    [
        ({"span.kind": "server"}, 39),
        ({"span.kind": "client", "db.system": "postgresql"}, 39),
        ({"otel.scope.name": "shop.checkout"}, 40),
        ({"host.name": "node-a"}, 40),
        ({"http.response.status_code": "50"}, 0),
        ({"error": "false"}, 0),
    ],
)
async def test_tags_are_compared_whole_with_span_resource_and_event(ask, tags, count):
    """A tag is a tag of the span, of its process or of one of its events, and equals the text."""
    asked = {"service": "checkout", "tags": json.dumps(tags), "limit": 100, **RANGE}
    answered = await ask("/jaeger/api/traces", **asked)
    assert len(answered.json["data"]) == count


async def test_a_tag_of_an_event_and_an_operation(ask):
    """Events count for tags; `operation` narrows to the spans of that name; both about one span."""
    event = {"service": "worker", "tags": '{"exception.type":"ValueError"}', "limit": 100, **RANGE}
    failed = {
        span["trace_id"]
        for span in fixed_documents()
        for happened in span.get("events", ())
        if happened["attributes"].get("exception.type") == "ValueError"
    }
    assert len(failed) == 4
    answered = await ask("/jaeger/api/traces", **event)
    assert {trace["traceID"] for trace in answered.json["data"]} == failed
    answered = await ask("/jaeger/api/traces", **event, operation="POST /orders")
    assert answered.json == NOTHING


async def test_operations_by_kind(ask):
    """`operations` gives names with kinds in small letters, of one kind when it is asked for."""
    answered = await ask("/jaeger/api/operations", service="worker", spanKind="consumer")
    assert answered.json["data"] == [{"name": "run/settle", "spanKind": "consumer"}]
    answered = await ask("/jaeger/api/operations", service="worker", spanKind="client")
    assert answered.json["data"] is None


async def test_traces_by_ids_without_leading_zeros(ask):
    """Several ids at once; one that is unknown is left out."""
    known = EXPECTED["failed"]["traceID"]
    answered = await ask(f"/jaeger/api/traces?traceID={known}&traceID=1f&traceID={known}")
    assert [trace["traceID"] for trace in answered.json["data"]] == [known]


async def test_an_empty_store(empty):
    """Nothing found is an empty shape, and an unknown trace is 404 in Jaeger's words."""
    assert (await empty("/jaeger/api/services")).json == NOTHING
    assert (await empty("/jaeger/api/dependencies")).json == NOTHING
    assert (await empty("/jaeger/api/traces", service="x")).json == NOTHING
    unknown = await empty("/jaeger/api/traces/1f")
    assert unknown.status == 404
    assert unknown.json["data"] is None
    assert unknown.json["errors"] == [{"code": 404, "msg": "trace not found"}]


@pytest.mark.parametrize(
    ("path", "parameters", "status", "message"),
    [
        ("traces", {}, 400, "service: parameter 'service' is required"),
        ("operations", {}, 400, "service: parameter 'service' is required"),
        ("traces", {"service": "x", "limit": "-1"}, 400, "limit: write a whole number"),
        ("traces", {"service": "x", "start": "NaN"}, 400, "start: write microseconds"),
        ("traces", {"service": "x", "tags": "a=b"}, 400, "tags: write a JSON map"),
        ("traces", {"service": "x", "tags": '{"a":1}'}, 400, "tags: write a JSON map"),
        ("traces", {"service": "x", "minDuration": "fast"}, 400, "minDuration: write a duration"),
        ("traces", {"service": "x", "minDuration": "2s", "maxDuration": "1s"}, 400, "maxDuration:"),
        ("traces/xyz", {}, 400, "traceID: write up to 32 hex digits"),
        ("traces/" + "a" * 33, {}, 400, "traceID: write up to 32 hex digits"),
        ("dependencies", {"endTs": "soon"}, 400, "endTs: write milliseconds"),
        ("nothing", {}, 404, "nothing answers at /jaeger/api/nothing"),
    ],
)
async def test_what_cannot_be_asked(empty, path, parameters, status, message):
    """A refusal has Jaeger's shape, with the name and the fix."""
    answered = await empty(f"/jaeger/api/{path}", **parameters)
    (refused,) = answered.json["errors"]
    assert (answered.status, refused["code"]) == (status, status)
    assert refused["msg"].startswith(message)
