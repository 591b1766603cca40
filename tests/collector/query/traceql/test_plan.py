"""What a plan asks a store for, and that nothing is lost by it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Signal
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import Conditions, plan
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.tree import Query
from collector.query.traceql.view import Trace, traces
from collector.stores.base import Query as StoreQuery
from collector.stores.query_match import matches
from tests.collector.query.traceql import trees
from tests.collector.query.traceql.spans import span

NONE = Conditions()
ERRORS = Conditions(status="ERROR")


@pytest.mark.parametrize(
    ("text", "conditions", "local"),
    [
        ("{ }", [NONE], False),
        ('{ resource.service.name = "a" && status = error }', [Conditions(service="a", status="ERROR")], False),
        ('{ .service.name = "a" || span.service.name = "a" }', [NONE], False),
        ('{ name = "a" && name = "b" }', [Conditions(names=("a",))], False),
        ('{ name = "a" || name = "b" || name = "a" }', [Conditions(names=("a", "b"))], False),
        ('{ name =~ "a b|/c" && duration > 1.5ms }', [Conditions(names=("a b", "/c"), min_duration_ms=1.5)], False),
        ('{ name =~ "a.*" }', [NONE], False),
        ('{ name = "" }', [NONE], False),
        ('{ name = "a" || status = error }', [NONE], False),
        ("{ duration > 1s && span:duration >= 2s && duration < 5s }", [Conditions(min_duration_ms=2000.0)], False),
        ('{ trace:id = "ABC" }', [Conditions(trace_ids=("abc".zfill(32),))], False),
        ("{ nestedSetParent < 0 && kind = server }", [Conditions(roots=True)], False),
        ('{ span.correlation.id = "c" }', [Conditions(context=(("correlation_id", "c"),))], False),
        ('{ .correlation.id = "c" && span.x = "y" }', [NONE], False),
        ('{ status = error && !(resource.service.name = "a") }', [ERRORS], False),
        ("{ } >> { status = error }", [ERRORS], False),
        ("{ status = error } >> { }", [ERRORS], False),
        ("{ status = error } !>> { }", [NONE], False),
        ('{ status = error } || { name = "a" }', [ERRORS, Conditions(names=("a",))], False),
        ("{ } || { } || { } || { } || { }", [NONE], False),
        ("{ } | by(name) | { status = error }", [ERRORS], False),
        ("({ status = error } | count() > 1) && { }", [ERRORS], False),
        ("{ status = error } | rate()", [ERRORS], True),
        ('{ status = error } | { name = "a" } | rate()', [Conditions(names=("a",))], True),
        ("{ status = error } >> { } | rate()", [NONE], False),
        ("{ } &>> { status = error } | rate()", [NONE, ERRORS], False),
        ("{ } | rate() by (rootName)", [NONE], False),
        ("{ traceDuration > 1s } | rate()", [NONE], False),
        ("{ nestedSetParent < 0 } | compare({ status = error })", [Conditions(roots=True)], True),
        ("{ } | compare({ status = error })", [NONE], False),
        ("{ } | count() > 2 | rate()", [NONE], False),
    ],
)  # fmt: skip
def test_a_plan_asks_for_what_a_store_knows(text, conditions, local):
    """Conditions of the strongest necessary filter; local when single spans are the answer."""
    made = plan(parse(text))
    assert ([scan.conditions for scan in made.scans], made.local) == (conditions, local)


def candidates(made, documents):
    """The documents that the plan's scans find, as a store would."""
    found = {}
    for scan in made.scans:
        known = scan.conditions
        query = StoreQuery(
            signal=Signal.TRACES,
            service=known.service,
            status=known.status,
            names=known.names,
            roots=known.roots,
            min_duration_ms=known.min_duration_ms,
            trace_ids=known.trace_ids,
            context=dict(known.context),
        )
        match = matches(query)
        for one in Trace(documents).spans:
            if match(one.document) and scan.test(one):
                found[one.document["_id"]] = one.document
    return list(found.values())


def answer(query, found):
    """The ids of the spans of each trace that a query finds."""
    run = pipeline(query.stages)
    return {
        trace.id: [[one.id for one in each.spans] for each in sets]
        for trace in found
        if (sets := run(trace))
    }


some = st.sampled_from
words = some(["a", "b", "http.route"])
spans = st.builds(
    lambda number, parent, trace, fields: span(
        number, parent=parent if parent != number else None, trace=f"{trace:032x}", **fields
    ),
    st.integers(1, 5),
    st.none() | st.integers(1, 6),
    st.integers(1, 3),
    st.fixed_dictionaries(
        {},
        optional={
            "name": words,
            "status": st.integers(0, 2),
            "kind": st.integers(0, 5),
            "service": words | st.none(),
            "took_ms": some([0, 0.001, 1, 1500]),
            "at_ms": st.integers(0, 3),
            "a": st.integers(-2, 2) | words | st.booleans() | st.lists(words, max_size=2),
            "correlation__id": words | st.integers(0, 2),
            "correlation_id": words,
        },
    ),
)
small = st.builds(
    "{{ {} }}".format,
    st.recursive(
        some([
            'name = "a"', 'name = "b" || name = "a"', 'name =~ "a|b"', "status = error", "status != ok",
            'resource.service.name = "a"', '.service.name = "b"', "duration > 1ms", "duration >= 1.5s",
            "nestedSetParent < 0", "nestedSetLeft > 2", "traceDuration > 1ms", 'span.correlation.id = "a"',
            ".a = 1", '.a != "a"', 'span.a = "b"', ".a", 'rootName = "a"', 'trace:id = "1"', "kind = server",
            'trace:id = "1" || trace:id = "2"', "span.a = nil",
        ]),
        lambda inner: st.builds("({} {} {})".format, inner, some(["&&", "||"]), inner)
        | st.builds("!({})".format, inner),
        max_leaves=4,
    ),
)  # fmt: skip
pipelines = st.builds(
    "{}{}".format,
    st.recursive(
        small,
        lambda inner: st.builds(
            "({} {} {})".format, inner, some(["&&", "||", *trees.STRUCTURAL]), inner
        ),
        max_leaves=3,
    ),
    some(
        [
            "",
            " | count() > 1",
            " | by(name)",
            " | { status = error }",
            ' | by(name) | { name = "a" }',
        ]
    ),
)


@given(
    st.lists(spans, max_size=12, unique_by=lambda one: (one["trace_id"], one["span_id"])), pipelines
)
@settings(max_examples=400, deadline=None)
def test_a_search_over_the_candidates_finds_all_there_is(documents, text):
    """Whole traces of the candidates give the same answer as all traces."""
    query = parse(text)
    wanted = {one["trace_id"] for one in candidates(plan(query), documents)}
    found = [trace for trace in traces(documents) if trace.id in wanted]
    assert answer(query, found) == answer(query, traces(documents))


@given(
    st.lists(spans, max_size=12, unique_by=lambda one: (one["trace_id"], one["span_id"])), pipelines
)
@settings(max_examples=400, deadline=None)
def test_a_metrics_query_counts_all_there_is(documents, text):
    """What comes out of the pipeline is among the candidates, and equals them when they are local."""
    query = parse(f"{text} | rate()")
    made = plan(query)
    found = {(one["trace_id"], one["span_id"]) for one in candidates(made, documents)}
    counted = {
        (trace, one)
        for trace, sets in answer(Query(query.stages), traces(documents)).items()
        for spans in sets
        for one in spans
    }
    assert counted <= found
    assert not made.local or counted == found
