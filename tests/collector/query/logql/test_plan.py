"""The planner: what a store is asked for, and that its answers lose nothing."""

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Host, Secret, Signal
from collector.query.logql import parse_log, tree
from collector.query.logql.evaluation import logs
from collector.query.logql.evaluation.budget import Stopped
from collector.query.logql.evaluation.plan import Conditions, conditions
from collector.query.logql.evaluation.source import Documents
from collector.query.logql.evaluation.stages import pipeline
from collector.query.logql.evaluation.store_source import StoreSource
from collector.stats import Stats
from collector.stores.mongodb.store import MongoDB
from collector.stores.query_match import matches
from collector.stores.sqlite.store import SQLite
from tests.logql import END, SECOND, START, log_documents, record

pytestmark = pytest.mark.anyio
ALL = '{service_name=~".+"} '


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ALL, Conditions()),
        ('{service_name="a"}', Conditions(service="a")),
        ('{service_name=~"a"}', Conditions(service="a")),
        ('{service_name=~"a|b"}', Conditions()),
        ('{service_name="a", service_name="b"}', Conditions(service="b", nothing=True)),
        ('{k8s_pod_name="p"}', Conditions()),
        (ALL + '|= "abc" |= "longer" |~ "x"', Conditions(text="longer")),
        (ALL + '|= "a" or "b"', Conditions()),
        (ALL + '|= ip("10.0.0.1")', Conditions()),
        (ALL + '| json |= "a"', Conditions(text="a")),
        (ALL + '| line_format "x" |= "a"', Conditions()),
        (ALL + '| trace_id="ab"', Conditions(trace_ids=("ab",))),
        (ALL + '| trace_id=~"ab|cd"', Conditions(trace_ids=("ab", "cd"))),
        (ALL + '| trace_id=~"ab|cd" | trace_id="cd"', Conditions(trace_ids=("cd",))),
        (ALL + '| trace_id=~"a."', Conditions()),
        (ALL + '| json | trace_id="ab"', Conditions()),
        (ALL + '| trace_id="ab" or x="y"', Conditions()),
        (
            ALL + '| correlation_id="c" and task_id="t", x="y"',
            Conditions(context={"correlation_id": "c", "task_id": "t"}),
        ),
        (ALL + '| correlation_id!="c" | order_id=""', Conditions()),
        (ALL + '| span_id="s" | host_name="h"', Conditions()),
    ],
)  # fmt: skip
def test_what_is_certain_is_asked_of_the_store(query, expected):
    """Service, trace, ids and text go to the store; what could change on the way does not (D4)."""
    assert conditions(parse_log(query)) == expected


@pytest.fixture
async def store(tmp_path):
    host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
    async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as opened:
        yield opened


QUERIES = [
    ALL,
    '{service_name="worker"} |= "FAILED"',
    '{service_name="worker"} |= "failed"',
    ALL + '| trace_id="659ce23066fd5d39e5f986a55133911f"',
    ALL + '| correlation_id="corr-001"',
    ALL + '| order_id="ord-1001"',
    ALL + "| json | took_ms > 60",
    '{service_name="worker"} |= "done" | logfmt | took > 200ms',
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_store_gives_what_all_documents_give(store, query, newest_first):
    """Planner and pages against a plain evaluation over every document: equal lines (D4)."""
    documents = log_documents()
    await store.write(Signal.LOGS, documents)
    source = StoreSource(store, asyncio.get_running_loop())
    options = {"since": START, "until": END, "limit": 150, "newest_first": newest_first}

    def texts(found):
        return [(line.time, line.text, line.all()) for line in found.lines]

    expected = logs.select(parse_log(query), Documents(documents), **options)
    found = await asyncio.to_thread(logs.select, parse_log(query), source, **options)
    assert texts(found) == texts(expected)
    assert bool(found.lines) == ("FAILED" not in query)  # the filter is case-sensitive


WORDS = st.sampled_from(["done", "FAILED", "failed", "task-00", "order", "took_ms", "i", "\u00e9"])
SERVICES = st.sampled_from(["worker", "checkout", "scoring", "work.*", ".+", "worker|scoring", "x"])
IDS = st.sampled_from(
    ["659ce23066fd5d39e5f986a55133911f", "corr-001", "corr-0.*", "ord-1001", "task-003", ""]
)
FILTERS = st.builds(
    tree.Matcher,
    st.sampled_from(["trace_id", "correlation_id", "order_id", "task_id", "host_name", "level"]),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    IDS,
)
STAGES = st.one_of(
    st.builds(
        lambda op, text: tree.LineFilter(op, (text,), (False,)),
        st.sampled_from(["|=", "!=", "|~", "!~"]), WORDS,
    ),
    st.builds(
        lambda a, b: tree.LineFilter("|=", (a, b), (False, False)), WORDS, WORDS
    ),
    FILTERS,
    st.builds(tree.Both, FILTERS, FILTERS),
    st.builds(tree.Either, FILTERS, FILTERS),
    st.sampled_from([
        tree.Json(), tree.Logfmt(), tree.LineFormat("done {{.took}}"), tree.Drop(("trace_id",)),
        tree.LabelFormat((tree.Format("order_id", "task", rename=True),)), tree.Keep(("task",)),
        tree.NumberFilter("took_ms", ">", 40, "number"),
    ]),
)  # fmt: skip
PLANNED = st.builds(
    lambda op, service, stages: tree.LogQuery(
        (tree.Matcher("service_name", "=~", ".+"), tree.Matcher("service_name", op, service)),
        tuple(stages),
    ),
    st.sampled_from(["=", "!=", "=~", "!~"]), SERVICES, st.lists(STAGES, max_size=4),
)  # fmt: skip


@settings(max_examples=300)
@given(PLANNED)
def test_a_plan_never_finds_too_little(query):
    """Any query: what the plan asks a store for holds every line that a plain evaluation finds."""
    asked = conditions(query)
    candidate = matches(asked.query())
    documents = log_documents()
    run = pipeline(query)
    found = [document for document in documents if run(document) is not None]
    assert not (asked.nothing and found)
    assert [document for document in found if not candidate(document)] == []


async def test_mongodb_gives_what_all_documents_give(mongodb_uri, mongodb_database):
    """The other store, with the same queries: equal lines (D4)."""
    host = Host("mongodb", Stats(), logging.getLogger("collector.component.mongodb"))
    config = MongoDB.Config(uri=Secret(mongodb_uri), database=mongodb_database)
    async with MongoDB(config, host) as store:
        await store.write(Signal.LOGS, log_documents())
        source = StoreSource(store, asyncio.get_running_loop())
        options = {"since": START, "until": END, "limit": 150}
        for query in QUERIES:
            expected = logs.select(parse_log(query), Documents(log_documents()), **options)
            found = await asyncio.to_thread(logs.select, parse_log(query), source, **options)
            assert [line.all() for line in found.lines] == [line.all() for line in expected.lines]


async def test_large_records_come_in_small_pages(store):
    """A page holds a few MiB: records of 100 KB come eighty at a time, not two thousand."""
    documents = [record(f"{n} " + "x" * 100_000, seconds=n) for n in range(190)]
    await store.write(Signal.LOGS, documents)
    sizes = []

    class Watched:
        async def find(self, query):
            found = await store.find(query)
            sizes.append((query.limit, len(found)))
            return found

    source = StoreSource(Watched(), asyncio.get_running_loop())

    def texts():
        found = source.documents(parse_log(ALL), START, START + 200 * SECOND, newest_first=False)
        return [document["message"].partition(" ")[0] for document in found]

    assert await asyncio.to_thread(texts) == [str(n) for n in range(190)]
    assert sizes == [(100, 100), (82, 82), (82, 8)]


async def test_a_caller_that_left_stops_waiting_for_a_page():
    """While a store takes its time the query can end."""
    waiting = asyncio.Event()

    class Slow:
        async def find(self, query):
            try:
                await asyncio.sleep(60)
            finally:
                waiting.set()

    source = StoreSource(Slow(), asyncio.get_running_loop(), lambda: True)
    with pytest.raises(Stopped):
        await asyncio.to_thread(
            lambda: list(source.documents(parse_log(ALL), 0, 1, newest_first=True))
        )
    await asyncio.wait_for(waiting.wait(), 5)
