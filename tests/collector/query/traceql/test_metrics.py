"""Metrics functions: intervals, what each function computes, labels, ranks, bounds."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.query.traceql import metrics, series
from collector.query.traceql.errors import LimitExceeded
from collector.query.traceql.metrics import accumulator, finished
from collector.query.traceql.parser import parse
from collector.query.traceql.series import Exemplar, default_step, instant, over_range, quantile
from collector.query.traceql.spansets import pipeline
from collector.query.traceql.view import Trace
from tests.collector.query.traceql.spans import FIRST, TRACE, span

SECOND = 1_000_000_000
DATA = [
    span(1, at_ms=0, took_ms=100, name="a", cost=10, vip=True),
    span(2, at_ms=1, took_ms=200, name="a", cost=2.5, vip=False),
    span(3, at_ms=60_000, took_ms=300, name="b", cost="text"),
    span(4, at_ms=60_001, took_ms=400, name="a", cost=float("nan"), vip=1),
    span(5, at_ms=150_000, took_ms=0, name="b"),
]


def ask(text, intervals=None, documents=DATA, exemplars=0):
    """Labels and samples, times in seconds behind FIRST."""
    query = parse(text)
    intervals = intervals or over_range(FIRST, FIRST + 180 * SECOND, 60 * SECOND)
    found = accumulator(query, intervals, exemplars=exemplars)
    for each in pipeline(query.stages)(Trace(documents)):
        for one in each.spans:
            found.add(one)
    made, cut = finished(query, found.series())
    assert not cut
    return [
        (
            dict(one.labels),
            {
                (intervals.end(place) - FIRST) // SECOND: value
                for place, value in one.samples.items()
            },
        )
        for one in made
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{ } | count_over_time()", [({"__name__": "count_over_time"}, {0: 1, 60: 2, 120: 1, 180: 1})]),
        ("{ } | rate()", [({"__name__": "rate"}, {0: 1 / 60, 60: 2 / 60, 120: 1 / 60, 180: 1 / 60})]),
        ('{ name = "x" } | rate()', []),
        ('{ name = "b" } | count_over_time() by (name)', [({"name": "b"}, {0: 0, 60: 1, 120: 0, 180: 1})]),
        ("{ } | max_over_time(duration)", [({"__name__": "max_over_time"}, {0: 0.1, 60: 0.3, 120: 0.4, 180: 0})]),
        ("{ } | min_over_time(duration)", [({"__name__": "min_over_time"}, {0: 0.1, 60: 0.2, 120: 0.4, 180: 0})]),
        ("{ } | avg_over_time(duration)", [({"__name__": "avg_over_time"}, {0: 0.1, 60: 0.25, 120: 0.4, 180: 0})]),
        ("{ } | sum_over_time(span.cost)", [({"__name__": "sum_over_time"}, {0: 10, 60: 2.5})]),
        ("{ } | sum_over_time(span.absent)", []),
        ("{ } | count_over_time() by (span.vip)", [
            ({"span.vip": True}, {0: 1, 60: 0, 120: 0, 180: 0}),
            ({"span.vip": False}, {0: 0, 60: 1, 120: 0, 180: 0}),
            ({"span.vip": "nil"}, {0: 0, 60: 1, 120: 0, 180: 1}),
            ({"span.vip": 1}, {0: 0, 60: 0, 120: 1, 180: 0}),
        ]),
        ("{ } | histogram_over_time(duration)", [
            ({"__bucket": 0.134217728}, {0: 1, 60: 0, 120: 0, 180: 0}),
            ({"__bucket": 0.268435456}, {0: 0, 60: 1, 120: 0, 180: 0}),
            ({"__bucket": 0.536870912}, {0: 0, 60: 1, 120: 1, 180: 0}),
        ]),
        ("{ } | histogram_over_time(span.cost) by (name)", [
            ({"name": "a", "__bucket": 4.0}, {0: 0, 60: 1, 120: 0, 180: 0}),
            ({"name": "a", "__bucket": 16.0}, {0: 1, 60: 0, 120: 0, 180: 0}),
        ]),
        ("{ } | quantile_over_time(duration, 1, .25)", [
            ({"p": 1.0}, {0: 0.134217728, 60: 0.536870912, 120: 0.536870912, 180: 0}),
            ({"p": 0.25}, {0: 0.134217728, 60: 0.268435456, 120: 0.536870912, 180: 0}),
        ]),
        ("{ } | count_over_time() by (name) | topk(1)", [
            ({"name": "a"}, {0: 1, 60: 1, 120: 1}), ({"name": "b"}, {180: 1}),
        ]),
        ("{ } | count_over_time() by (name) | bottomk(1)", [
            ({"name": "a"}, {60: 1, 180: 0}), ({"name": "b"}, {0: 0, 120: 0}),
        ]),
    ],
)  # fmt: skip
def test_each_function_over_time(text, found):
    """Intervals end at their label; counts have zeros, other functions leave a gap."""
    assert ask(text) == found


def test_an_instant_query_is_one_interval_without_its_beginning():
    """A span counts from behind the start to the end."""
    intervals = instant(FIRST, FIRST + 150 * SECOND)
    assert ask("{ } | count_over_time()", intervals) == [
        ({"__name__": "count_over_time"}, {150: 4})
    ]
    assert ask("{ } | rate()", intervals) == [({"__name__": "rate"}, {150: 4 / 150})]


def test_compare_counts_the_values_of_selection_and_baseline():
    """Each attribute and intrinsic, the most frequent values, and the total of each group."""
    found = ask('{ } | compare({ name = "b" }, 1)', instant(FIRST - 1, FIRST + 180 * SECOND))
    assert [
        (labels, samples[180]) for labels, samples in found if {"name", "span.vip"} & set(labels)
    ] == [
        ({"__meta_type": "baseline", "name": "a"}, 3),
        ({"__meta_type": "baseline", "span.vip": 1}, 1),
        ({"__meta_type": "selection", "name": "b"}, 2),
        ({"__meta_type": "baseline_total", "name": "nil"}, 3),
        ({"__meta_type": "baseline_total", "span.vip": "nil"}, 3),
        ({"__meta_type": "selection_total", "name": "nil"}, 2),
    ]


def test_compare_selects_inside_its_own_times_only():
    """A span outside of them is baseline, whatever it matches."""
    text = f'{{ }} | compare({{ name = "a" }}, 5, {FIRST}, {FIRST + SECOND})'
    found = ask(text, instant(FIRST - 1, FIRST + 180 * SECOND))
    assert [(labels, samples[180]) for labels, samples in found if "name" in labels] == [
        ({"__meta_type": "selection", "name": "a"}, 2),
        ({"__meta_type": "baseline", "name": "b"}, 2),
        ({"__meta_type": "baseline", "name": "a"}, 1),
        ({"__meta_type": "selection_total", "name": "nil"}, 2),
        ({"__meta_type": "baseline_total", "name": "nil"}, 3),
    ]


def test_exemplars_are_spans_of_the_series():
    """At most as many as wanted, with the trace and the span's number in seconds."""
    intervals = over_range(FIRST, FIRST + 180 * SECOND, 60 * SECOND)
    query = parse('{ name = "b" } | max_over_time(duration)')
    found = accumulator(query, intervals, exemplars=1)
    for one in Trace(DATA).spans:
        if one.document["name"] == "b":
            found.add(one)
    assert [one.exemplars for one in found.series()] == [
        [Exemplar(FIRST + 60 * SECOND, TRACE, 0.3)]
    ]


@pytest.mark.parametrize(
    ("seconds", "step"),
    [(1, 0.05), (30, 0.1), (59, 0.2), (60, 1), (1200, 5), (3600, 15), (21600, 60), (86400, 300)],
)
def test_a_range_without_a_step_gets_a_round_one(seconds, step):
    """A 240th of the range, rounded down to a multiple of the largest unit below it."""
    assert default_step(0, seconds * SECOND) == step * SECOND


def test_intervals_are_bounded():
    """Ten years by the second are refused before anything is read."""
    with pytest.raises(LimitExceeded, match="raise step"):
        over_range(0, 10 * 365 * 86400 * SECOND, SECOND)


def test_series_are_bounded(monkeypatch):
    """Labels with too many values are refused, and an answer with too many series is cut."""
    documents = [span(number, user=f"u{number}") for number in range(1, 40)]
    query = parse("{ } | count_over_time() by (span.user)")
    intervals = instant(FIRST - 1, FIRST + SECOND)
    monkeypatch.setattr(metrics, "MAX_SERIES", 10)
    found = accumulator(query, intervals)
    for one in Trace(documents).spans:
        found.add(one)
    made, cut = finished(query, found.series())
    assert (len(made), cut) == (10, True)
    monkeypatch.setattr(metrics, "MAX_CELLS", 50)
    with pytest.raises(LimitExceeded, match="group by less"):
        ask("{ } | count_over_time() by (span.user)", intervals, documents)


@given(st.lists(st.integers(2, 2**40), min_size=1, max_size=30), st.floats(0, 1))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(values, wanted):
    """Interpolation never leaves the power of two that the exact value is in."""
    counts = {}
    for value in values:
        top = series.bucket(value)
        counts[top] = counts.get(top, 0) + 1
    rank = max(1, math.ceil(wanted * len(values)))
    exact = sorted(values)[rank - 1]
    found = quantile(wanted, sorted(counts.items()))
    below = [top for top in counts if top < series.bucket(exact)]
    assert (max(below) if below else series.bucket(exact) / 2) <= found * (1 + 1e-9)
    assert found <= series.bucket(exact) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "top"),
    [(1.9, None), (2, 2.0), (3, 4.0), (4, 4.0), (5, 8.0), (-8, None), (2**60, 2.0**60)],
)
def test_a_bucket_is_the_next_power_of_two(value, top):
    """A power of two is its own bucket; small and negative values have none."""
    assert series.bucket(value) == top
