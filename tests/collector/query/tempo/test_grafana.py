"""What Grafana's Tempo data source asks of the fixed data set, with each store (D4)."""

import json

import pytest

from collector.model import Secret, Signal
from collector.stores.mongodb.store import MongoDB
from tests.collector.query.tempo import strict
from tests.collector.query.tempo.asking import (
    END,
    GOLDEN,
    START,
    fixed_documents,
    host,
    port,
    searched,
    series,
    sqlite,
)

pytestmark = pytest.mark.anyio
EXPECTED = json.loads((GOLDEN / "tempo.json").read_text())
RANGE = {"start": START, "end": END}


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


async def test_every_search_finds_what_tempo_finds(ask):
    """Traces, roots, durations, matched spans and the attributes that they show, by meaning."""
    for query, expected in EXPECTED["search"].items():
        answered = await ask("/api/search", q=query, limit=100, **RANGE)
        assert (answered.status, query) == (200, query), answered.text
        strict.search(answered.json)
        assert searched(answered.json) == expected, query


async def test_every_metrics_query_computes_what_tempo_computes(ask):
    """Labels, times and numbers of each function, to ten digits."""
    for asked in EXPECTED["query_range"]:
        answered = await ask("/api/metrics/query_range", q=asked["q"], step=asked["step"], **RANGE)
        assert series(answered.json) == asked["series"], asked["q"]
    for query, expected in EXPECTED["query"].items():
        answered = await ask("/api/metrics/query", query=query, **RANGE)
        strict.instant(answered.json)
        assert series(answered.json) == expected, query


async def test_a_search_is_cut_behind_the_newest_traces(ask):
    """`limit` counts traces, newest first by their start; `spss` counts spans of a spanset."""
    everything = (await ask("/api/search", q="{}", limit=100, **RANGE)).json["traces"]
    starts = [int(trace["startTimeUnixNano"]) for trace in everything]
    assert starts == sorted(starts, reverse=True)
    few = (await ask("/api/search", q="{}", limit=7, spss=2, **RANGE)).json["traces"]
    assert [trace["traceID"] for trace in few] == [trace["traceID"] for trace in everything[:7]]
    assert {len(one["spans"]) for trace in few for one in trace["spanSets"]} == {2}
    assert [one["matched"] for trace in few for one in trace["spanSets"]] == [
        one["matched"] for trace in everything[:7] for one in trace["spanSets"]
    ]


async def test_names_and_values_for_the_editor(ask):
    """Scopes with their names, typed values, narrowed down by what was typed."""
    scopes = (await ask("/api/v2/search/tags", **RANGE)).json["scopes"]
    assert [scope["name"] for scope in scopes] == ["resource", "span", "event", "link", "intrinsic"]
    assert [len(scope["tags"]) for scope in scopes] == [8, 27, 4, 1, 25]
    only = (await ask("/api/v2/search/tags", scope="link", **RANGE)).json["scopes"]
    assert only == [{"name": "link", "tags": ["link.reason"]}]
    names = (await ask("/api/search/tags", **RANGE)).json["tagNames"]
    assert {"service.name", "celery.state", "exception.type"} <= set(names)

    async def values(name, **more):
        answered = await ask(f"/api/v2/search/tag/{name}/values", **RANGE, **more)
        return [(one["type"], one["value"]) for one in answered.json["tagValues"]]

    services = [("string", "checkout"), ("string", "scoring"), ("string", "worker")]
    assert await values("resource.service.name") == services
    assert await values("service.name") == services
    assert await values("rootServiceName") == services[:1]
    assert await values("span.http.response.status_code") == [("int", "201"), ("int", "500")]
    assert await values("event.exception.type") == [
        ("string", "TimeoutError"),
        ("string", "ValueError"),
    ]
    assert await values("status") == [("keyword", word) for word in ("ok", "error", "unset")]
    assert len(await values("kind")) == 6
    assert (
        await values("span.undefined") == await values("duration") == await values("a%20b=c") == []
    )
    assert await values("span.user.vip") == [("bool", "false"), ("bool", "true")]
    worker = [("string", "run/settle")]
    assert await values("name", q='{resource.service.name="worker"}') == worker
    assert await values("name", q='{resource.service.name="worker" && span.x=}') == worker
    assert len(await values("name", q='{resource.service.name="worker" && span.')) == 5
    assert len(await values("name", limit=2)) == 2
    old = (await ask("/api/search/tag/service.name/values", **RANGE)).json
    assert old["tagValues"] == ["checkout", "scoring", "worker"]


async def test_the_old_search_by_tags(ask):
    """logfmt, parts of values in any case, durations of the trace."""
    for parameters, count in (
        ({"tags": "service.name=WORK"}, 39),
        ({"tags": "error=true"}, 8),
        ({"tags": "http.response.status_code=500"}, 4),
        ({"tags": 'name="POST /ord" status=error'}, 4),
        ({"tags": "root.service.name=checkout", "minDuration": "800ms"}, 5),
        ({"tags": "", "maxDuration": "350ms"}, 1),
        ({"tags": "order.id=ord-1003"}, 1),
        ({"tags": "order.id=ord.1003"}, 0),
    ):
        answered = await ask("/api/search", limit=100, **RANGE, **parameters)
        assert (len(answered.json["traces"]), parameters) == (count, parameters)


DRILLDOWN = [
    "{nestedSetParent<0 && true} | rate() by(resource.service.name)",
    "{nestedSetParent<0 && true && status=error} | rate()",
    "{nestedSetParent<0 && true} | histogram_over_time(duration)",
    "{nestedSetParent<0 && true} | quantile_over_time(duration, 0.9) by (name)",
    "{nestedSetParent<0 && resource.service.name != nil} | rate() by(resource.service.name) with(sample=true)",
    "{nestedSetParent<0} | compare({status=error})",
    f"{{nestedSetParent<0}} | compare({{duration >= 300ms}}, 10, {START}000000000, {END}000000000)",
    "{nestedSetParent<0 && kind=server} &>> {status=error} | rate() by (name) | topk(2)",
]


async def test_every_query_of_traces_drilldown_is_answered(ask):
    """Series with samples, and the structure tab's spans with their nested-set numbers."""
    for query in DRILLDOWN:
        answered = await ask("/api/metrics/query_range", q=query, step="1m", **RANGE)
        assert (answered.status, query) == (200, query), answered.text
        assert all(one["samples"] for one in answered.json["series"])
        assert answered.json["series"]
    shape = (
        "{nestedSetParent<0} &>> {status=error} | select(status, resource.service.name, name, "
        "nestedSetParent, nestedSetLeft, nestedSetRight)"
    )
    answered = await ask("/api/search", q=shape, spss=20, limit=200, **RANGE)
    strict.search(answered.json)
    spans = [one for trace in answered.json["traces"] for one in trace["spanSets"][0]["spans"]]
    numbers = {"nestedSetParent", "nestedSetLeft", "nestedSetRight"}
    assert all(numbers <= {found["key"] for found in one["attributes"]} for one in spans)


async def test_a_value_that_groups_can_be_filtered_for(ask):
    """The second level of Drilldown: each label, as a literal of its type, finds its own spans."""
    for field in (
        "resource.service.name",
        "resource.process.pid",
        "span.http.response.status_code",
        "span.user.vip",
        "span.cart.total",
        "status",
        "kind",
        "name",
    ):
        text = f"{{ }} | count_over_time() by ({field})"
        groups = (await ask("/api/metrics/query", q=text, **RANGE)).json["series"]
        assert groups
        for group in groups:
            ((kind, label),) = group["labels"][0]["value"].items()
            literal = json.dumps(label) if kind in ("stringValue", "boolValue") else label
            if field in ("status", "kind") or label == "nil":
                literal = label
            again = await ask(
                "/api/metrics/query", q=f"{{ {field} = {literal} }} | count_over_time()", **RANGE
            )
            ((found),) = again.json["series"]
            assert (found["value"], field, label) == (group["value"], field, label)
