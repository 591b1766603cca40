"""What pipelines give for one trace: operators, groups, aggregates."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.query.traceql.parser import parse
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.view import Trace, traces
from tests.collector.query.traceql.spans import span

# a1 ─┬─ b2 ─┬─ c4          (10 is an orphan: its parent 9 is not there)
#     │      └─ c5 ── b6
#     └─ b3                 the letter is the name, the number the id
TREE = [
    span(1, name="a", took_ms=100, service="shop", cost=10),
    span(2, name="b", parent=1, at_ms=1, took_ms=50, service="shop", cost=2.5),
    span(3, name="b", parent=1, at_ms=2, took_ms=20, service="pay"),
    span(4, name="c", parent=2, at_ms=3, took_ms=10, service="pay", cost="text"),
    span(5, name="c", parent=2, at_ms=4, took_ms=30, service="pay", cost=4),
    span(6, name="b", parent=5, at_ms=5, took_ms=1, service="mail"),
    span(10, name="b", parent=9, at_ms=6, took_ms=1, service="mail"),
]
TRACE = Trace(TREE)
A, B, C = '{ name = "a" }', '{ name = "b" }', '{ name = "c" }'


def run(text, trace=TRACE):
    """The spansets of a query: ids of the spans, and attributes."""
    found = pipeline(parse(text).stages)(trace)
    return [(sorted(int(one.id, 16) for one in each.spans), each.attributes) for each in found]


def ids(text, trace=TRACE):
    """The ids of the spans that a query finds in a trace, of its only spanset."""
    found = run(text, trace)
    return found[0][0] if found else []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{ }", [1, 2, 3, 4, 5, 6, 10]),
        (C, [4, 5]),
        (f"{A} && {C}", [1, 4, 5]),
        (f'{A} && {{ name = "x" }}', []),
        (f'{A} || {{ name = "x" }}', [1]),
        (f"{A} || {C}", [1, 4, 5]),
        (f'{{ name = "x" }} || {A} && {C}', [1, 4, 5]),
        (f"{A} > {B}", [2, 3]),
        (f"{A} >> {B}", [2, 3, 6]),
        (f"{B} >> {B}", [6]),
        (f"{B} > {C}", [4, 5]),
        (f"{C} < {B}", [2]),
        (f"{C} << {B}", [2]),
        (f"{B} << {B}", [2]),
        ('{ span:id = "6" } << { }', [1, 2, 5]),
        (f"{B} ~ {B}", [2, 3]),
        (f"{C} ~ {C}", [4, 5]),
        (f"{A} ~ {A}", []),
        (f"{A} !> {B}", [6, 10]),
        (f"{A} !>> {B}", [10]),
        (f"{C} !< {B}", [3, 6, 10]),
        (f"{C} !<< {B}", [3, 6, 10]),
        (f"{B} !~ {B}", [6, 10]),
        (f"{A} &> {B}", [1, 2, 3]),
        (f"{B} &>> {B}", [2, 6]),
        (f"{C} &< {B}", [2, 4, 5]),
        (f"{C} &<< {A}", [1, 4, 5]),
        (f"{C} &~ {C}", [4, 5]),
        (f"{A} >> {B} >> {B}", [6]),
        (f"{{ }} | {B} | {{ duration > 10ms }}", [2, 3]),
        (f"({C} | count() > 1) && {A}", [1, 4, 5]),
        (f"({C} | count() > 2) && {A}", []),
        (f"({C} | count() > 2) || {A}", [1]),
    ],
)
def test_operators_find_what_hangs_together(text, found):
    """Sets, children, descendants, parents, ancestors, siblings; negated; with both sides."""
    assert ids(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{ } | count() > 6", [([1, 2, 3, 4, 5, 6, 10], {"count()": 7})]),
        ("{ } | count() > 7", []),
        (f"{C} | avg(duration) = 20ms", [([4, 5], {"avg(duration)": 20_000_000})]),
        (f"{C} | max(duration) > 20ms", [([4, 5], {"max(duration)": 30_000_000})]),
        ("{ } | sum(span.cost) = 16.5", [([1, 2, 3, 4, 5, 6, 10], {"sum(span.cost)": 16.5})]),
        ("{ } | min(span.cost) < 3 | max(.cost) = 10", [
            ([1, 2, 3, 4, 5, 6, 10], {"min(span.cost)": 2.5, "max(.cost)": 10}),
        ]),
        ("{ } | avg(span.absent) > 0", []),
        ("{ } | count() + 1 > 2 * 3", [([1, 2, 3, 4, 5, 6, 10], {"count()": 7})]),
        ("{ } | by(resource.service.name)", [
            ([1, 2], {"by(resource.service.name)": "shop"}),
            ([3, 4, 5], {"by(resource.service.name)": "pay"}),
            ([6, 10], {"by(resource.service.name)": "mail"}),
        ]),
        ("{ } | by(resource.service.name) | count() = 3", [
            ([3, 4, 5], {"by(resource.service.name)": "pay", "count()": 3}),
        ]),
        ("{ } | by(.cost) | count() > 1", [([3, 6, 10], {"by(.cost)": None, "count()": 3})]),
        ("{ } | by(name) | count() > 1 | coalesce()", [([2, 3, 4, 5, 6, 10], {})]),
        (f"{C} | select(.cost)", [([4, 5], {})]),
        ("{ } | by(name) | { duration < 5ms }", [([6, 10], {"by(name)": "b"})]),
    ],
)  # fmt: skip
def test_stages_group_and_compare_spansets(text, found):
    """Aggregates per group, groups by value with nil as one of them, one set again by coalesce."""
    assert run(text) == found


def ancestors(parents, number):
    """The ids above a span, by following parents."""
    while (number := parents[number]) is not None:
        yield number


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.data())
@settings(max_examples=100, deadline=None)
def test_structure_agrees_with_following_parents(draws, data):
    """Nested-set operators against the plain definition, over any tree and any two sets."""
    parents = {
        number + 1: None if not number else draw % number + 1 for number, draw in enumerate(draws)
    }
    left = data.draw(st.sets(st.sampled_from(sorted(parents))))
    right = data.draw(st.sets(st.sampled_from(sorted(parents))))
    trace = Trace(
        [
            span(number, parent=parent, left=number in left, right=number in right)
            for number, parent in parents.items()
        ]
    )
    relations = {
        ">": lambda a, b: parents[b] == a,
        "<": lambda a, b: parents[a] == b,
        ">>": lambda a, b: a in ancestors(parents, b),
        "<<": lambda a, b: b in ancestors(parents, a),
        "~": lambda a, b: a != b and parents[a] is not None and parents[a] == parents[b],
    }
    for op, relation in relations.items():
        pairs = [(a, b) for a, b in itertools.product(left, right) if relation(a, b)]
        found = sorted({b for _, b in pairs})
        query = "{{ span.left }} {} {{ span.right }}"
        assert ids(query.format(op), trace) == found
        assert ids(query.format(f"!{op}"), trace) == sorted(right - set(found))
        assert ids(query.format(f"&{op}"), trace) == sorted({a for a, _ in pairs} | set(found))


def test_a_chain_of_ten_thousand_spans_is_no_recursion():
    """Depth is bounded by nothing but the number of spans."""
    first = span(1)
    chain = [first] + [
        {**first, "span_id": f"{n:016x}", "parent_span_id": f"{n - 1:016x}"}
        for n in range(2, 10_001)
    ]
    deepest = '{ nestedSetParent < 0 } >> { span:id = "2710" && nestedSetLeft = 10000 }'
    assert ids(deepest, Trace(chain)) == [10_000]


def test_documents_of_several_traces_come_apart():
    """In order of appearance, each with its own spans."""
    other = "000000000000000000000000000000ff"
    found = traces([span(1, trace=other), span(2), span(3, trace=other)])
    assert [[int(one.id, 16) for one in trace.spans] for trace in found] == [[1, 3], [2]]
