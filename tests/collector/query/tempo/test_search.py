"""Searches over any data: complete, in order, within bounds, and never what crashes the reader."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.documents.build import documents
from collector.model import Signal
from collector.query.tempo import candidates
from collector.query.tempo.candidates import Bounds, Reader, weight
from collector.query.tempo.metrics import instant as instantly
from collector.query.tempo.metrics import over_time
from collector.query.tempo.parameters import Range
from collector.query.tempo.search import search
from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.parser import parse
from collector.query.traceql.printer import quoted
from collector.query.traceql.series import instant, over_range
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.view import traces
from collector.stores.base import dumps
from tests import strategies
from tests.collector.query.tempo import strict
from tests.collector.query.traceql.spans import FIRST, MS, span
from tests.collector.query.traceql.test_plan import pipelines, spans
from tests.traces import Remembering

pytestmark = pytest.mark.anyio
EVER = Range(0, 2**63)
SECOND = 1_000_000_000
some_spans = st.lists(spans, max_size=14, unique_by=lambda one: (one["trace_id"], one["span_id"]))


def run(work):
    """The result of a coroutine that never waits for the outside."""
    return asyncio.run(work)


def plainly(query, found):
    """Ids of the traces that a query finds, newest first, by looking at everything."""
    evaluate = pipeline(query.stages)
    matching = [trace for trace in traces(found) if evaluate(trace)]
    return [trace.id for trace in sorted(matching, key=lambda trace: (-trace.start, trace.id))]


@given(some_spans, pipelines, st.integers(1, 3), st.integers(1, 3))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_search_is_the_newest_of_all_that_match(monkeypatch, found, text, limit, page):
    """Whatever the pages, the plan and the limit are: equal to looking at everything."""
    monkeypatch.setattr(candidates, "FIRST_PAGE", page)
    monkeypatch.setattr(candidates, "LARGEST_PAGE", page)
    monkeypatch.setattr(candidates, "FEW_TRACES", page)
    query = parse(text)
    answer = run(search(Reader(Remembering(found)), query, EVER, limit=limit, spans=3))
    ids = [trace["traceID"] for trace in answer["traces"]]
    assert ids == plainly(query, found)[:limit]
    strict.search(json.loads(dumps(answer)))


@given(some_spans, pipelines, st.sampled_from(["", " by (name)", " by (.a)", " by (rootName)"]))
@settings(max_examples=100, deadline=None)
def test_counts_add_up_to_the_spans_that_match(found, text, by):
    """Over time and at once, grouped or not: each span that comes out counts exactly once."""
    query = parse(f"{text} | count_over_time(){by}")
    evaluate = pipeline(query.stages)
    expected = sum(len(each.spans) for trace in traces(found) for each in evaluate(trace))
    intervals = over_range(FIRST, FIRST + SECOND, 100 * MS)
    ranged = run(over_time(Reader(Remembering(found)), query, intervals, exemplars=0))
    counted = sum(sample["value"] for one in ranged["series"] for sample in one["samples"])
    at_once = run(instantly(Reader(Remembering(found)), query, instant(FIRST - 1, FIRST + SECOND)))
    strict.instant(json.loads(dumps(at_once)))
    assert (counted, sum(one["value"] for one in at_once["series"])) == (expected, expected)


@given(strategies.requests(Signal.TRACES), st.lists(strategies.keys.filter(bool), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_data_gives_an_answer_that_the_data_source_reads(message, names):
    """Every OTLP type under every key, times of every size: no unknown field, no mixed kinds."""
    number = 0
    for group in message.resource_spans:
        for scoped in group.scope_spans:
            for one in scoped.spans:
                number += 1
                one.trace_id = (number % 3 + 1).to_bytes(16)
                one.span_id = number.to_bytes(8)
                one.parent_span_id = b"" if number % 2 else (number // 2).to_bytes(8)
    found = documents(strategies.batch(Signal.TRACES, message))
    fields = [
        f"{scope}.{quoted(name)}" for name in names for scope in ("span", "resource", "event")
    ]
    fields += ["." + quoted(name) for name in names]
    fields += ["name", "status", "kind", "statusMessage", "nestedSetLeft", "event:timeSinceStart"]
    for text in (
        "{ }",
        "{ } | by(statusMessage)",
        *(f"{{ {one} != nil }} | by({one})" for one in fields),
    ):
        query = parse(f"{text} | select({', '.join(fields)})")
        answer = run(search(Reader(Remembering(found)), query, Range(0, 2**64), limit=10, spans=10))
        strict.search(json.loads(dumps(answer)))


async def test_one_key_with_several_kinds_becomes_text():
    """Text, number, bool, array, map, bytes under one key of one answer."""
    values = ["x", 5, 0.5, True, ["a"], {"b": 1}, b"\x00"]
    found = [span(n, trace=f"{n:032x}", at_ms=-n, v=one, w=n) for n, one in enumerate(values, 1)]
    query = parse("{ } | select(span.v, span.w)")
    answer = await search(Reader(Remembering(found)), query, EVER, limit=10, spans=3)
    strict.search(json.loads(dumps(answer)))
    shown = [
        {one["key"]: one["value"] for one in trace["spanSets"][0]["spans"][0]["attributes"]}
        for trace in answer["traces"]
    ]
    assert [one["v"]["stringValue"] for one in shown] == [
        "x", "5", "0.5", "true", '["a"]', '{"b":1}', '{"$binary":{"base64":"AA==","subType":"00"}}',
    ]  # fmt: skip
    assert [one["w"] for one in shown] == [{"intValue": str(n)} for n in range(1, 8)]


async def test_a_trace_without_its_root():
    """The words that Tempo has for it, and times of what there is."""
    found = [span(2, parent=1, at_ms=5, took_ms=2), span(3, parent=2, at_ms=6, took_ms=4, status=2)]
    answer = await search(Reader(Remembering(found)), parse("{ }"), EVER, limit=10, spans=1)
    ((trace),) = answer["traces"]
    (sets,) = trace.pop("spanSets")
    assert trace.pop("spanSet") == sets
    assert sets["matched"] == 2
    assert trace == {
        "traceID": "00000000000000000000000000000a01",
        "rootServiceName": "<root span not yet received>",
        "startTimeUnixNano": str(FIRST + 5 * MS),
        "durationMs": 5,
        "serviceStats": {"shop": {"spanCount": 2, "errorCount": 1}},
    }


MANY = [span(n, trace=f"{n % 100:032x}", at_ms=n) for n in range(1, 1001)]


async def test_a_search_that_hits_a_bound_says_so():
    """It answers with what there is; the jobs that are not completed tell."""
    reading = Reader(Remembering(MANY), Bounds(spans=300))
    answer = await search(reading, parse("{ } | count() > 1"), EVER, limit=1000, spans=3)
    assert 0 < len(answer["traces"]) < 100
    assert answer["metrics"]["completedJobs"] == 0
    whole = await search(Reader(Remembering(MANY)), parse("{ }"), EVER, limit=1000, spans=3)
    assert (len(whole["traces"]), whole["metrics"]["completedJobs"]) == (100, 1)


async def test_metrics_that_hit_a_bound_say_so_or_are_refused():
    """A range answer has a status for it, an instant one has not."""
    query = parse("{ } | count_over_time()")
    intervals = instant(FIRST, FIRST + 10 * SECOND)
    answer = await over_time(
        Reader(Remembering(MANY), Bounds(spans=300)), query, intervals, exemplars=0
    )
    assert (answer["status"], answer["message"]) == (
        "PARTIAL",
        "300 spans were looked at; narrow the query or the time",
    )
    with pytest.raises(LimitExceeded, match="300 spans were looked at"):
        await instantly(Reader(Remembering(MANY), Bounds(spans=300)), query, intervals)


async def test_reading_ends_when_its_time_is_over():
    """No page is asked for after that."""
    store = Remembering(MANY)
    answer = await search(
        Reader(store, Bounds(seconds=-1)), parse("{ }"), EVER, limit=1000, spans=3
    )
    assert (answer["traces"], answer["metrics"]["completedJobs"], store.queries) == ([], 0, [])


async def test_a_search_reads_no_more_than_it_needs():
    """Five traces of a thousand spans: a page or two, and five traces or a few more."""
    store = Remembering([span(n, trace=f"{n:032x}", at_ms=n) for n in range(1, 1001)])
    answer = await search(Reader(store), parse("{ }"), EVER, limit=5, spans=3)
    assert [int(trace["traceID"], 16) for trace in answer["traces"]] == [1000, 999, 998, 997, 996]
    assert answer["metrics"]["inspectedTraces"] <= 200
    assert sum(query.limit for query in store.queries) <= 2000


async def test_large_documents_make_small_pages():
    """Memory of a page is bounded by what the page before weighed."""
    text = "x" * (4 * 1024 * 1024)
    store = Remembering([span(n, trace=f"{n:032x}", at_ms=n, text=text) for n in range(1, 80)])
    await search(Reader(store), parse('{ span.text = "y" }'), EVER, limit=5, spans=3)
    assert weight(store.documents[Signal.TRACES][0]) > 4 * 1024 * 1024
    assert [query.limit for query in store.queries][:3] == [50, 1, 1]


async def test_a_trace_that_is_too_large_is_looked_at_in_part():
    """Its first spans count, and the answer is marked as incomplete."""
    found = [span(n, at_ms=n) for n in range(1, 1001)]
    reading = Reader(Remembering(found), Bounds(spans_per_trace=300))
    answer = await search(reading, parse("{ }"), EVER, limit=5, spans=1)
    (trace,) = answer["traces"]
    assert trace["spanSets"][0]["matched"] == 300
    assert answer["metrics"]["completedJobs"] == 0


async def test_an_answer_that_is_too_large_is_refused():
    """Attributes of megabytes, times the limit."""
    text = "x" * (1024 * 1024)
    found = [span(n, trace=f"{n:032x}", at_ms=n, text=text) for n in range(1, 30)]
    with pytest.raises(LimitExceeded, match="lower limit or spss"):
        await search(
            Reader(Remembering(found)), parse("{ span.text != nil }"), EVER, limit=100, spans=3
        )
