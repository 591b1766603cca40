"""Shapes and refusals of Tempo's API: what keeps the data source alive, and what the user reads."""

import time

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.errors import Retryable
from collector.model import Secret
from tests.collector.query.tempo.asking import END, START, fixed_documents, port, sqlite
from tests.collector.query.traceql.spans import FIRST, TRACE, span

pytestmark = pytest.mark.anyio
RANGE = {"start": START, "end": END}
PROTOBUF = {"accept": "application/protobuf"}
KNOWN = "79933f0820e24890bfd13823184249cd"


@pytest.fixture
async def ask(tmp_path):
    async with sqlite(tmp_path / "t.db", fixed_documents()) as store, port(store) as asking:
        yield asking


def fields(body):
    """The fields of a protobuf message: number, and bytes or number."""
    found = []
    while body:
        tag, body = body[0], body[1:]
        value = shift = 0
        while True:
            byte, body = body[0], body[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if tag & 7 == 2:
            value, body = body[:value], body[value:]
        found.append((tag >> 3, value))
    return found


async def test_a_trace_by_id_is_the_message_that_the_data_source_reads(ask):
    """Field 1 is TracesData with resource, scope and status everywhere; ids may lack zeros."""
    answered = await ask(f"/api/v2/traces/{KNOWN.upper()}", headers=PROTOBUF)
    assert (answered.status, answered.type) == (200, "application/protobuf")
    ((number, data),) = fields(answered.body)
    trace = TracesData.FromString(data)
    assert (number, len(trace.resource_spans)) == (1, 3)
    for group in trace.resource_spans:
        assert group.HasField("resource")
        for scoped in group.scope_spans:
            assert scoped.HasField("scope")
            assert all(one.HasField("status") for one in scoped.spans)
    starts = [
        one.start_time_unix_nano
        for g in trace.resource_spans
        for s in g.scope_spans
        for one in s.spans[:1]
    ]
    assert starts == sorted(starts)
    bare = await ask(f"/api/traces/{KNOWN}", headers=PROTOBUF)
    assert TracesData.FromString(bare.body) == trace


async def test_a_trace_by_id_as_json(ask):
    """OTLP/JSON with hexadecimal ids; version 1 calls its groups batches."""
    found = (await ask(f"/api/v2/traces/{KNOWN}")).json
    spans = [
        one for g in found["trace"]["resourceSpans"] for s in g["scopeSpans"] for one in s["spans"]
    ]
    assert {one["traceId"] for one in spans} == {KNOWN}
    assert len(spans) == 5
    old = (await ask(f"/api/traces/{KNOWN}")).json
    assert old == {"batches": found["trace"]["resourceSpans"]}


async def test_an_unknown_trace_is_an_empty_one_in_version_2_and_404_in_version_1(ask):
    """An empty body would crash the data source."""
    answered = await ask("/api/v2/traces/1", headers=PROTOBUF)
    assert (answered.status, fields(answered.body)) == (200, [(1, b"")])
    assert (await ask("/api/v2/traces/1")).json == {"trace": {}}
    old = await ask("/api/traces/1", headers=PROTOBUF)
    assert (old.status, old.body) == (404, b"")


async def test_a_trace_by_id_within_times(ask):
    """Both times restrict it to spans that start between them, one alone does nothing."""
    everything = await ask(f"/api/v2/traces/{KNOWN}", headers=PROTOBUF)
    one = await ask(f"/api/v2/traces/{KNOWN}", headers=PROTOBUF, start=END)
    both = await ask(f"/api/v2/traces/{KNOWN}", headers=PROTOBUF, start=END, end=END + 1)
    assert one.body == everything.body
    assert fields(both.body) == [(1, b"")]


async def test_what_would_crash_the_data_source_is_completed(tmp_path):
    """A span without resource, scope and status that ends before it starts."""
    bare = {**span(1, service=None), "end_unix_nano": FIRST - 5}
    short = TRACE.lstrip("0")
    async with sqlite(tmp_path / "t.db", [bare]) as store, port(store) as ask:
        ((_, data),) = fields((await ask(f"/api/v2/traces/{short}", headers=PROTOBUF)).body)
    (group,) = TracesData.FromString(data).resource_spans
    (attribute,) = group.resource.attributes
    assert (attribute.key, attribute.value.string_value) == ("service.name", "unknown_service")
    (one,) = group.scope_spans[0].spans
    assert group.scope_spans[0].HasField("scope")
    assert one.HasField("status")
    assert (one.start_time_unix_nano, one.end_time_unix_nano) == (FIRST, FIRST)


@pytest.mark.parametrize("prefix", ["", "/tempo"])
async def test_save_and_test(ask, prefix):
    """What the data source asks first, at the root and below /tempo."""
    assert (await ask(f"{prefix}/api/echo")).body == b"echo"
    assert (await ask(f"{prefix}/ready")).status == 200
    version = (await ask(f"{prefix}/api/status/buildinfo")).json["version"]
    assert tuple(map(int, version.split("."))) >= (2, 6)
    assert (await ask(f"{prefix}/api/search", q="{}", **RANGE)).status == 200


@pytest.mark.parametrize(
    "path", ["/api/search/x", "/api/v2/x/y", "/api/metrics/x", "/api/traces/a/b"]
)
async def test_an_unknown_path_is_404_as_json(ask, path):
    """Text would make the data source's pages spin for ever."""
    answered = await ask(path)
    assert (answered.status, answered.type) == (404, "application/json")
    assert path in answered.json["message"]


class Down:
    """A store that cannot be asked."""

    async def find(self, query):
        raise Retryable("the store is down", 3)


SEARCH, RANGED, INSTANT = "/api/search", "/api/metrics/query_range", "/api/metrics/query"
REFUSED = [
    (SEARCH, {"q": "{name="}, 400, "invalid TraceQL query: parse error at line 1, col 7: syntax error"),
    (SEARCH, {"q": '{duration="x"}'}, 400, "binary operations must operate on the same type"),
    (SEARCH, {"q": "{} | rate()"}, 400, "this query computes metrics"),
    (SEARCH, {"q": "{ parent.x = 1 }"}, 400, "not supported: parent.x"),
    (SEARCH, {"q": "(" * 1000 + "{}"}, 400, "more than 40 levels"),
    (SEARCH, {"q": "{}", "tags": "a=b"}, 400, "cannot stand together"),
    (SEARCH, {"tags": "a"}, 400, "write key=value"),
    (SEARCH, {"tags": 'a="b'}, 400, "a quote is not closed"),
    (SEARCH, {"minDuration": "x"}, 400, "minDuration: write a duration"),
    (SEARCH, {"limit": "0"}, 400, "limit: write a whole number"),
    (SEARCH, {"limit": "-1"}, 400, "limit: write a whole number"),
    (SEARCH, {"limit": "x"}, 400, "limit: write a whole number"),
    (SEARCH, {"limit": "1001"}, 422, "limit: 1001 is more than 1000"),
    (SEARCH, {"spss": "101"}, 422, "spss: 101 is more than 100"),
    (SEARCH, {"start": START, "end": START}, 400, "end: must lie behind start"),
    (SEARCH, {"start": "x"}, 400, "start: write seconds"),
    (SEARCH, {"start": "NaN"}, 400, "start: write seconds"),
    (SEARCH, {"start": 0, "end": END}, 422, "is longer than 168 hours"),
    (RANGED, {"q": "{}"}, 400, "has no metrics function"),
    (RANGED, {}, 400, "a query begins with"),
    (RANGED, {"q": "{} | rate()", "step": "0"}, 400, "step: write a duration"),
    (RANGED, {"q": "{} | rate()", "step": "-5s"}, 400, "step: write a duration"),
    (RANGED, {"q": "{} | rate()", "step": "nan"}, 400, "step: write a duration"),
    (RANGED, {"q": "{} | rate()", "step": "1ms"}, 422, "raise step"),
    (RANGED, {"q": "{} | rate()", "start": END - 90_000}, 422, "is longer than 24 hours"),
    (INSTANT, {"q": "{} | rate() > 5"}, 400, "not supported: a filter on the result"),
    ("/api/v2/traces/xyz", {}, 400, "up to 32 hexadecimal digits"),
    ("/api/v2/traces/" + "a" * 33, {}, 400, "up to 32 hexadecimal digits"),
    ("/api/v2/search/tags", {"limit": "x"}, 400, "limit: write a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "parameters", "status", "reason"), REFUSED)
async def test_a_wrong_request_gets_the_sentence_that_helps(path, parameters, status, reason):
    """Plain text, because the data source shows the body as it is; 422 for limits."""
    async with port(Down()) as ask:
        answered = await ask(path, **{**RANGE, **parameters})
    assert (answered.status, answered.type) == (status, "text/plain; charset=utf-8")
    assert reason in answered.text


@pytest.mark.parametrize(
    "times",
    [
        {"start": START, "end": END},
        {"start": START * 1000, "end": END * 1000},
        {"start": START * 10**9, "end": END * 10**9},
        {"start": f"{START}.0", "end": f"{END}.000"},
        {"start": "2026-11-30T12:00:00Z", "end": "2026-11-30T13:20:00+01:00"},
    ],
)
async def test_times_may_be_seconds_nanoseconds_or_rfc_3339(ask, times):
    """Told apart by their digits."""
    found = (await ask(INSTANT, q="{} | count_over_time()", **times)).json["series"]
    assert [one["value"] for one in found] == [194]


async def test_without_times_the_last_hour_is_meant(tmp_path):
    """A trace of now is found, one of yesterday is not."""
    late = (time.time_ns() - FIRST) / 1e6
    spans = [span(1, at_ms=late - 1000), span(2, trace="f" * 32, at_ms=late - 86_400_000)]
    async with sqlite(tmp_path / "t.db", spans) as store, port(store) as ask:
        found = (await ask("/api/search")).json["traces"]
    assert [trace["traceID"] for trace in found] == [TRACE]


async def test_an_empty_store_gives_empty_shapes(tmp_path):
    """Lists, never null."""
    async with sqlite(tmp_path / "t.db", []) as store, port(store) as ask:
        assert (await ask(SEARCH, q="{}", **RANGE)).json["traces"] == []
        assert (await ask(RANGED, q="{} | rate()", **RANGE)).json == {"series": [], "metrics": {}}
        assert (await ask(INSTANT, q="{} | rate()", **RANGE)).json == {"series": [], "metrics": {}}
        scopes = (await ask("/api/v2/search/tags", **RANGE)).json["scopes"]
        assert [scope["name"] for scope in scopes] == ["intrinsic"]
        assert (await ask("/api/v2/search/tag/.x/values", **RANGE)).json["tagValues"] == []


async def test_a_store_that_is_down_is_503_with_retry_after():
    """The same for every question."""
    async with port(Down()) as ask:
        for path in (SEARCH, "/api/v2/traces/1", "/api/v2/search/tags"):
            answered = await ask(path)
            assert (answered.status, answered.headers["retry-after"]) == (503, "3")


async def test_every_route_stands_behind_the_token():
    """Without it nothing is answered, not even echo."""
    async with port(Down(), token=Secret("t")) as ask:
        for path in ("/api/echo", "/tempo/api/echo", SEARCH, "/api/v2/traces/1", "/api/search/x"):
            assert (await ask(path)).status == 401
        assert (await ask("/api/echo", headers={"authorization": "Bearer t"})).status == 200


async def test_exemplars_point_to_traces(ask):
    """At most as many as asked for, with the id and a number of the series."""
    found = (await ask(RANGED, q="{} | rate()", step="10m", exemplars=3, **RANGE)).json["series"]
    (exemplars,) = [one["exemplars"] for one in found]
    assert len(exemplars) == 3
    values = {sample["value"] for one in found for sample in one["samples"]}
    for one in exemplars:
        ((label),) = one["labels"]
        assert label["key"] == "trace:id"
        assert len(label["value"]["stringValue"]) == 32
        assert one["value"] in values
