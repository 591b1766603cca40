"""Loki's API over real sockets and both kinds of answers: shapes, refusals, bounds."""

import asyncio
import contextlib
import http.client
import json
import logging
import urllib.parse
from pathlib import Path

import pytest

from collector.model import Host, Signal
from collector.query.app import QueryServer
from collector.query.logql.evaluation.store_source import StoreSource
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.logql import END, SECOND, START, log_documents, record

pytestmark = pytest.mark.anyio

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "logql.json").read_text())
CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
TIMES = {"start": START, "end": END}
ALL = '{service_name=~".+"}'


class Loki:
    """A data source: asks the port, and reads JSON where the answer is JSON."""

    def __init__(self, address):
        self.address = address

    async def ask(self, path, parameters=(), *, method="GET", headers=()):
        """Status and body of one question."""

        def blocking():
            pairs = parameters.items() if isinstance(parameters, dict) else parameters
            text = urllib.parse.urlencode(list(pairs))
            connection = http.client.HTTPConnection(self.address, timeout=20)
            form = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
            target = path if method == "POST" or not text else f"{path}?{text}"
            body = text if method == "POST" else None
            with contextlib.closing(connection):
                connection.request(method, target, body, {**form, **dict(headers)})
                answer = connection.getresponse()
                found = answer.read()
                is_json = answer.getheader("content-type") == "application/json"
                return answer.status, json.loads(found) if is_json else found.decode()

        return await asyncio.to_thread(blocking)

    async def get(self, path, **parameters):
        """The data of an answer that is a success, for the twenty minutes of the data set."""
        status, found = await self.ask(
            f"/loki/api/v1/{path}", TIMES | parameters, headers=CATEGORIZE
        )
        assert status == 200, found
        return found


@contextlib.asynccontextmanager
async def serving(store, **settings):
    """The query port on a store."""
    host = Host(
        "query", Stats(), logging.getLogger("collector.component.query"), stores={"sqlite": store}
    )
    config = QueryServer.Config(**{"endpoint": "localhost:0", **settings})
    async with QueryServer(config, host) as server:
        yield Loki(server.endpoints["http"])


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        yield opened


@pytest.fixture
async def loki(store):
    await store.write(Signal.LOGS, log_documents())
    async with serving(store) as source:
        yield source


def lines_of(answer):
    """The entries of all streams as (time, line, metadata, parsed), newest first."""
    found = [
        (int(time), line, rest.get("structuredMetadata", {}), rest.get("parsed", {}), one["stream"])
        for one in answer["data"]["result"]
        for time, line, rest in one["values"]
    ]
    return sorted(found, key=lambda entry: (-entry[0], entry[1]))


async def test_every_query_of_the_data_set_answers_as_loki_does(loki):
    """All recorded queries over HTTP and SQLite give the golden lines and numbers (D5)."""
    for row in GOLDEN:
        if "lines" in row:
            answer = await loki.get("query_range", query=row["query"], limit=row["limit"])
            assert answer["data"]["encodingFlags"] == ["categorize-labels"]
            found = [
                [
                    (time - START) // 10**6,
                    stream["service_name"],
                    metadata.get("detected_level", parsed.get("detected_level")),
                    {key: value for key, value in parsed.items() if key != "__error_details__"},
                ]
                for time, _, metadata, parsed, stream in lines_of(answer)
            ]
            by_time = sorted(found, key=lambda entry: (-entry[0], json.dumps(entry)))
            expected = sorted(row["lines"], key=lambda entry: (-entry[0], json.dumps(entry)))
            assert by_time == expected
        elif "step_s" in row:
            step = f"{row['step_s']}s"
            answer = await loki.get("query_range", query=row["query"], step=step)
            assert answer["data"]["resultType"] == "matrix"
            series = [
                [
                    one["metric"],
                    [
                        [time - START // SECOND, pytest.approx(float(value))]
                        for time, value in one["values"]
                    ],
                ]
                for one in answer["data"]["result"]
            ]
            assert series == row["series"]
        else:
            answer = await loki.get("query", query=row["query"], time=row["at_s"])
            assert answer["data"]["resultType"] == "vector"
            assert [
                [one["metric"], float(one["value"][1])] for one in answer["data"]["result"]
            ] == row["series"]


async def test_an_entry_has_this_shape(loki):
    """Key order, text everywhere, a third element for each entry, numbers in the statistics (D5)."""
    query = '{service_name="worker"} |= "task-003: " | pattern "<_> failed <_>: <why>"'
    parameters = urllib.parse.urlencode({"query": query, **TIMES})
    answer = await loki.get("query_range", query=query)
    statistics = answer["data"].pop("stats")["summary"]
    assert all(isinstance(value, int | float) for value in statistics.values())
    assert statistics["totalEntriesReturned"] == 1
    assert list(answer["data"]) == ["resultType", "encodingFlags", "result"]
    [stream] = answer["data"]["result"]
    [[time, line, rest]] = stream["values"]
    assert (time, line) == (
        "1796040090230000000", "settle failed task=task-003: bank did not answer"
    )  # fmt: skip
    assert rest["parsed"] == {"why": "bank did not answer"}
    assert rest["structuredMetadata"]["trace_id"] == "659ce23066fd5d39e5f986a55133911f"
    assert {type(value) for kind in rest.values() for value in kind.values()} == {str}
    status, plain = await loki.ask(f"/loki/api/v1/query_range?{parameters}")
    assert status == 200
    assert list(plain["data"]) == ["resultType", "result", "stats"]
    [stream] = plain["data"]["result"]
    assert stream["values"] == [[time, line]]
    assert stream["stream"]["why"] == "bank did not answer"
    assert stream["stream"]["k8s_pod_name"] == "worker-7d9f"


async def test_save_and_test(loki):
    """`vector(1)+vector(1)` in the year 2096 is 2; a number stays a number (D5)."""
    answer = await loki.get("query", query="vector(1)+vector(1)", time="4000000000")
    assert answer["data"]["result"] == [{"metric": {}, "value": [4000000000, "2"]}]
    answer = await loki.get("query", query="1+1", time="4000000000")
    assert answer["data"]["resultType"] == "scalar"
    assert answer["data"]["result"] == [4000000000, "2"]
    answer = await loki.get("query_range", query="1+1", step="1200")
    assert answer["data"]["result"] == [
        {"metric": {}, "values": [[START // SECOND, "2"], [END // SECOND, "2"]]}
    ]


async def test_labels_values_and_series(loki):
    """What there is to select by, with a selector and without, by GET and by form (D5)."""
    names = [
        "deployment_environment_name", "k8s_pod_name", "service_instance_id", "service_name",
        "service_namespace",
    ]  # fmt: skip
    assert await loki.get("labels") == {"status": "success", "data": names}
    without_pod = [name for name in names if name != "k8s_pod_name"]
    assert (await loki.get("labels", query='{service_name="scoring"}'))["data"] == without_pod
    services = ["checkout", "scoring", "worker"]
    assert (await loki.get("label/service_name/values"))["data"] == services
    assert (await loki.get("label/nothing/values"))["data"] == []
    assert (await loki.get("labels", end=START - 1, start=START - SECOND))["data"] == []
    form = [("match[]", '{service_name="worker"}'), ("match[]", '{service_name="none"}')]
    status, found = await loki.ask("/loki/api/v1/series", [*form, *TIMES.items()], method="POST")
    assert (status, found["data"]) == (
        200,
        [
            {
                "deployment_environment_name": "staging", "k8s_pod_name": "worker-7d9f",
                "service_instance_id": "worker-1", "service_name": "worker",
                "service_namespace": "shop",
            }
        ],
    )  # fmt: skip


async def test_sizes_and_volumes(loki):
    """`index/stats`, volume and volume over time: structure as Loki's, numbers as counted (D5)."""
    total = sum(len(document["message"].encode()) for document in log_documents())
    assert await loki.get("index/stats", query=ALL) == {
        "streams": 3, "chunks": 0, "bytes": total, "entries": 177
    }  # fmt: skip
    answer = await loki.get("index/volume", query=ALL)
    found = [(one["metric"]["service_name"], *one["value"]) for one in answer["data"]["result"]]
    assert [name for name, _, _ in found] == ["checkout", "worker", "scoring"]
    assert {time for _, time, _ in found} == {END // SECOND}
    assert sum(int(value) for _, _, value in found) == total
    answer = await loki.get("index/volume", query=ALL, targetLabels="k8s_pod_name", limit=1)
    assert [one["metric"] for one in answer["data"]["result"]] == [{}]
    answer = await loki.get("index/volume_range", query=ALL, step="600")
    assert answer["data"]["resultType"] == "matrix"
    times = {time for one in answer["data"]["result"] for time, _ in one["values"]}
    assert times == {START / SECOND + 599.999, END // SECOND}


async def test_sizes_of_more_than_the_sample_are_scaled(store):
    """Above five thousand records `index/stats` estimates from the newest: shown before a query."""
    await store.write(Signal.LOGS, [record(f"n={n:05}", seconds=n / 10) for n in range(10_000)])
    async with serving(store) as loki:
        end = START + 1000 * SECOND
        found = await loki.get("index/stats", query=ALL, start=START, end=end)
        names = await loki.get("label/service_name/values", start=START, end=end)
    assert found["entries"] == pytest.approx(10_000, rel=0.01)
    assert found["bytes"] == pytest.approx(70_000, rel=0.01)
    assert names["data"] == ["shop"]


async def test_detected_labels_and_fields(loki):
    """Fields of metadata and of the line, with type and parser, and their values (D5)."""
    answer = await loki.get("detected_labels", query=ALL)
    assert {one["label"]: one["cardinality"] for one in answer["detectedLabels"]} == {
        "deployment_environment_name": 1, "k8s_pod_name": 1, "service_instance_id": 3,
        "service_name": 3, "service_namespace": 1,
    }  # fmt: skip
    answer = await loki.get("detected_fields", query='{service_name="worker"}')
    found = {one.pop("label"): one for one in answer["fields"]}
    assert found["took"] == {"type": "duration", "cardinality": 31, "parsers": ["logfmt"]}
    assert found["size"] == {"type": "bytes", "cardinality": 31, "parsers": ["logfmt"]}
    assert found["tick"] == {"type": "int", "cardinality": 20, "parsers": ["logfmt"]}
    assert found["trace_id"] == {"type": "string", "cardinality": 39, "parsers": None}
    assert answer["limit"] == 1000
    answer = await loki.get("detected_fields", query='{service_name="checkout"}')
    found = {one.pop("label"): one for one in answer["fields"]}
    assert found["took_ms"] == {
        "type": "int", "cardinality": 39, "parsers": ["json"], "jsonPath": ["took_ms"]
    }  # fmt: skip
    answer = await loki.get(
        "detected_field/exception_type/values", query='{service_name="worker"}', limit=10
    )
    assert answer == {"values": ["TimeoutError", "ValueError"], "limit": 10}
    assert (await loki.get("detected_field/none/values", query=ALL))["values"] == []


async def test_the_small_answers(loki):
    """Ready, build, limits that promise what is served, patterns, the text of a query (D5)."""
    assert await loki.ask("/ready") == (200, "ready\n")
    assert (await loki.get("status/buildinfo"))["version"] == "3.4.0"
    limits = await loki.get("drilldown-limits")
    assert (limits["pattern_ingester_enabled"], limits["limits"]["volume_enabled"]) == (False, True)
    assert await loki.get("patterns", query=ALL) == {"status": "success", "data": []}
    answer = await loki.get("format_query", query='rate({a="b"}|="c"[60s])')
    assert answer == {"status": "success", "data": 'rate({a="b"} |= "c" [1m])'}


@pytest.mark.parametrize("prefix", ["/loki/api/v1", "/loki/loki/api/v1", "/loki/api/v1" * 2])
async def test_other_prefixes_answer_and_unknown_paths_are_json(loki, prefix):
    """A data source with a path, a doubled prefix, and 404 with a message (D5)."""
    assert (await loki.ask(f"{prefix}/labels", TIMES))[0] == 200
    status, found = await loki.ask(f"{prefix}/rules")
    assert (status, list(found)) == (404, ["message"])


@pytest.mark.parametrize(
    ("path", "parameters", "status", "text"),
    [
        ("query_range", {}, 400, "query: is missing"),
        ("query_range", {"query": '{a="b"'}, 400, "parse error at line 1, col 7: expected"),
        ("query_range", {"query": "{}"}, 400, "parse error at line 1, col 1: queries require"),
        ("query_range", {"query": ALL, "limit": "-1"}, 400, "limit: write a whole number from 1"),
        ("query_range", {"query": ALL, "limit": "0"}, 400, "limit: write a whole number from 1"),
        ("query_range", {"query": ALL, "direction": "up"}, 400, "direction: write backward or"),
        ("query_range", {"query": ALL, "start": "x"}, 400, "start: write nanoseconds or seconds"),
        ("query_range", {"query": ALL, "start": END, "end": START}, 400, "end: lies before start"),
        ("query_range", {"query": ALL, "start": 0}, 422, "start, end: the time is longer than"),
        ("query_range", {"query": "1", "step": "0"}, 400, "step: must be longer than 0"),
        ("query_range", {"query": "1", "step": "x"}, 400, "step: write seconds or a duration"),
        ("query_range", {"query": "1", "step": "10ms"}, 400, "step: 120001 points for each series"),
        ("query", {"query": ALL}, 400, "log queries are not supported as an instant query type"),
        ("query", {"query": f"sum by (msg) (count_over_time({ALL} | json [20m]))",
                   "time": END}, 400, "pipeline error: 'JSONParserErr'"),
        ("series", {}, 400, "match[]: is missing"),
        ("series", {"match[]": "{a"}, 400, "parse error at line 1, col 3"),
        ("labels", {"query": "{"}, 400, "parse error at line 1, col 2"),
        ("index/stats", {"query": "vector(1)"}, 400, "parse error at line 1, col 1: only a log"),
        ("detected_fields", {"query": "{"}, 400, "parse error"),
        ("format_query", {"query": "sum("}, 400, "parse error at line 1, col 5"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_refused_in_words(loki, path, parameters, status, text):
    """400 with line and column or the parameter's name, 422 for limits, as plain text (D5)."""
    found = await loki.ask(f"/loki/api/v1/{path}", TIMES | parameters)
    assert found[0] == status
    assert found[1].startswith(text)


async def test_a_query_or_a_form_that_is_too_large_is_refused(loki):
    """A hundred thousand characters of query are 422, a megabyte of form is not even read (D5)."""
    status, found = await loki.ask(
        "/loki/api/v1/query_range", {"query": "a" * 100_000}, method="POST"
    )
    assert (status, found[:31]) == (422, "the query has 100000 characters")
    status, found = await loki.ask(
        "/loki/api/v1/series", {"match[]": "x" * 1_000_000}, method="POST"
    )
    assert (status, found) == (400, "the form has more than 262144 bytes")


async def test_too_many_series_are_422(store):
    """One series a line: 422 with the sentence that helps (D5)."""
    await store.write(Signal.LOGS, [record(f"n={n}", seconds=1 + n / 10) for n in range(600)])
    async with serving(store) as loki:
        query = f"count_over_time({ALL} | logfmt [2m])"
        status, found = await loki.ask(
            "/loki/api/v1/query", {"query": query, "time": START + 100 * SECOND}
        )
    assert status == 422
    assert found.startswith("maximum number of series (500) reached for a single query")


async def test_more_lines_than_the_cap_say_so(store):
    """`limit=100000` answers five thousand lines and a warning beside them (D5)."""
    documents = [record(f"n={n}", seconds=n / 10) for n in range(5100)]
    await store.write(Signal.LOGS, documents)
    async with serving(store) as loki:
        found = await loki.get("query_range", query=ALL, limit=100_000)
    assert found["warnings"] == [
        "limit: at most 5000 lines are answered at once; go on from the last one"
    ]
    assert len(lines_of(found)) == 5000


async def test_pages_by_time_neither_repeat_nor_lose_a_line(store):
    """The next page ends where the last line stood: with ties of one nanosecond inside (D5)."""
    documents = [record(f"n={n}", seconds=n // 3) for n in range(60)]
    await store.write(Signal.LOGS, documents)
    seen = []
    async with serving(store) as loki:
        end = END
        while page := lines_of(await loki.get("query_range", query=ALL, limit=9, end=end)):
            seen += [line for _, line, *_ in page]
            end = page[-1][0]
    assert len(seen) == len(set(seen)) == 60


async def test_a_query_that_takes_too_long_ends(store, monkeypatch):
    """The port's time is over: 503, and the thread stops reading pages."""
    await store.write(Signal.LOGS, [record(f"n={n}", seconds=n / 100) for n in range(300)])
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    find = StoreSource._find  # a page that never comes cannot be had from a real store

    def slow(self, query):
        while not self._stopped():
            find(self, query)
        loop.call_soon_threadsafe(stopped.set)
        return []

    monkeypatch.setattr(StoreSource, "_find", slow)
    async with serving(store, timeout=0.3) as loki:
        status, found = await loki.ask("/loki/api/v1/query_range", TIMES | {"query": ALL})
        assert status == 503
        assert found["error"].startswith("no answer within 0.3 s")
        await asyncio.wait_for(stopped.wait(), 10)


async def test_the_guard_stands_before_these_routes_too(store):
    """Without the token nothing below /loki answers (D5)."""
    async with serving(store, token="secret") as loki:
        assert (await loki.ask("/loki/api/v1/labels"))[0] == 401
        headers = {"Authorization": "Bearer secret"}
        assert (await loki.ask("/loki/api/v1/labels", headers=headers))[0] == 200
