"""Metric queries: windows, vectors, operations and bounds, by whole values."""

import math

import pytest

from collector.query.logql import LimitError, PipelineError, QueryError, parse
from collector.query.logql.evaluation import metrics
from collector.query.logql.evaluation.budget import Budget
from collector.query.logql.evaluation.source import Documents
from tests.logql import SECOND, START, record

MINUTE = 60 * SECOND
# v is 1, 2, ... 6 at 10, 20, ... 60 s, in two services by turns.
DOCUMENTS = [
    record(f"v={n} t={n}s b={n}KB k=x", seconds=n * 10, service="even" if n % 2 == 0 else "odd")
    for n in range(1, 7)
]
S = '{service_name=~".+"}'
BY = f"sum by (service_name) (count_over_time({S}[50s]))"


def at(query, seconds=60, documents=DOCUMENTS, **options):
    """The vector of a query at a time: label values joined -> number; a number for a number."""
    found = metrics.evaluate_at(
        parse(query), Documents(documents), time=START + seconds * SECOND, **options
    )
    if isinstance(found, float):
        return found
    return {",".join(one.labels.values()): one.values[0] for one in found}


def over(query, *, start=0, end=60, step=30, documents=DOCUMENTS, **options):
    """The matrix of a query: label values joined -> [(seconds, number)]."""
    found = metrics.evaluate_range(
        parse(query), Documents(documents), start=START + start * SECOND,
        end=START + end * SECOND, step=step * SECOND, **options,
    )  # fmt: skip
    return {
        ",".join(one.labels.values()): [
            ((time - START) // SECOND, value)
            for time, value in zip(one.times, one.values, strict=True)
        ]
        for one in found
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"sum(count_over_time({S}[1m]))", {"": 6}),
        (f"sum(count_over_time({S}[20s]))", {"": 2}),
        (f"sum(rate({S}[1m]))", {"": 0.1}),
        (f"sum(bytes_over_time({S}[20s]))", {"": 36}),
        (f"sum(bytes_rate({S}[20s]))", {"": 1.8}),
        (f"sum by (service_name) (count_over_time({S}[30s]))", {"even": 2, "odd": 1}),
        (f"sum(sum_over_time({S} | logfmt | unwrap v [1m]))", {"": 21}),
        (f"sum(rate({S} | logfmt | unwrap v [1m]))", {"": 0.35}),
        (f"avg_over_time({S} | logfmt | unwrap v [1m]) by (k)", {"x": 3.5}),
        (f"min_over_time({S} | logfmt | unwrap v [30s]) by (service_name)", {"odd": 5, "even": 4}),
        (f"max_over_time({S} | logfmt | unwrap duration(t) [30s]) by (k)", {"x": 6}),
        (f"max_over_time({S} | logfmt | unwrap bytes(b) [30s]) by (k)", {"x": 6000}),
        (f"first_over_time({S} | logfmt | unwrap v [1m]) by (k)", {"x": 1}),
        (f"last_over_time({S} | logfmt | unwrap v [1m]) by (k)", {"x": 6}),
        (f"stdvar_over_time({S} | logfmt | unwrap v [1m]) by (k)", {"x": 35 / 12}),
        (f"stddev_over_time({S} | logfmt | unwrap v [1m]) by (k)", {"x": math.sqrt(35 / 12)}),
        (f"quantile_over_time(0.5, {S} | logfmt | unwrap v [1m]) by (k)", {"x": 3.5}),
        (f"quantile_over_time(0.9, {S} | logfmt | unwrap v [1m]) by (k)", {"x": 5.5}),
        (f"quantile_over_time(2, {S} | logfmt | unwrap v [1m]) by (k)", {"x": math.inf}),
        (f"sum(rate_counter({S} | logfmt | keep k, v | unwrap v [1m]))", {"": 6 / 60}),
        ('absent_over_time({service_name="none"}[1m])', {"none": 1}),
        ('absent_over_time({service_name="odd"}[1m])', {}),
        (f"sum(count_over_time({S}[20s] offset 20s))", {"": 2}),
        (f"sum(count_over_time({S} | logfmt | unwrap v | v > 3 [1m]))", None),
        (f"sum(sum_over_time({S} | logfmt | unwrap v | v > 3 [1m]))", {"": 15}),
        (f"avg(sum by (service_name) (count_over_time({S}[50s])))", {"": 2.5}),
        (f"min(sum by (service_name) (count_over_time({S}[50s])))", {"": 2}),
        (f"max(sum by (service_name) (count_over_time({S}[50s])))", {"": 3}),
        (f"count(sum by (service_name) (count_over_time({S}[50s])))", {"": 2}),
        (f"stddev(sum by (service_name) (count_over_time({S}[50s])))", {"": 0.5}),
        (f"stdvar(sum by (service_name) (count_over_time({S}[50s])))", {"": 0.25}),
        (f"topk(1, sum by (service_name) (count_over_time({S}[50s])))", {"even": 3}),
        (f"bottomk(1, sum by (service_name) (count_over_time({S}[50s])))", {"odd": 2}),
        (f"sum without (service_name) (count_over_time({S} | keep service_name [1m]))", {"": 6}),
        (f"sum(count_over_time({S}[1m])) * 2 + 1", {"": 13}),
        (f"2 - sum(count_over_time({S}[1m]))", {"": -4}),
        (f"sum(count_over_time({S}[1m])) > 5", {"": 6}),
        (f"sum(count_over_time({S}[1m])) > 6", {}),
        (f"sum(count_over_time({S}[1m])) > bool 6", {"": 0}),
        ("vector(1) / vector(0)", {"": math.inf}),
        ("vector(7) % vector(4)", {"": 3}),
        ("vector(2) ^ 3 ^ 2", {"": 512}),
        ("1 + 2 * 3", 7.0),
        ("1 > 2", 0.0),
        ("vector(1) or vector(2)", {"": 1}),
        ("vector(1) and vector(2)", {"": 1}),
        ("vector(1) unless vector(2)", {}),
        (
            f"{BY} / on() group_left() sum(count_over_time({S}[50s]))",
            {"even": 0.6, "odd": 0.4},
        ),
        (
            f"{BY} / {BY}",
            {"even": 1, "odd": 1},
        ),
        (
            f'label_replace({BY}, "s", "<$1>", "service_name", "(e).*")',
            {"<e>,even": 3, "odd": 2},
        ),
    ],
)  # fmt: skip
def test_a_query_has_this_value_at_one_time(query, expected):
    """Each aggregation, function and operator over six records whose numbers can be checked (D5)."""
    if expected is None:
        with pytest.raises(QueryError):
            at(query)
    else:
        assert at(query) == pytest.approx(expected)


def test_sort_orders_an_instant_vector():
    """`sort` and `sort_desc` are seen in the order of the answer."""
    query = f"(sum by (service_name) (count_over_time({S}[50s])))"
    assert list(at(f"sort{query}")) == ["odd", "even"]
    assert list(at(f"sort_desc{query}")) == ["even", "odd"]


def test_windows_end_at_their_time_and_begin_behind_their_start():
    """(t - range, t]: a record at the edge is in one window only; no record, no point (D5)."""
    assert over(f"sum(count_over_time({S}[10s]))", start=0, end=80, step=10) == {
        "": [(10, 1), (20, 1), (30, 1), (40, 1), (50, 1), (60, 1)]
    }


def test_windows_that_overlap_count_a_record_in_each():
    """A range longer than the step: each window on its own, for sums and for quantiles."""
    counts = [(0, 0), (20, 2), (40, 4), (60, 4), (80, 2)]
    assert over(f"sum(count_over_time({S}[40s]))", end=80, step=20) == {"": counts[1:]}
    assert over(
        f"quantile_over_time(0.5, {S} | logfmt | unwrap v [40s]) by (k)", end=80, step=20
    ) == {"x": [(20, 1.5), (40, 2.5), (60, 4.5), (80, 5.5)]}
    assert over(f"min_over_time({S} | logfmt | unwrap v [40s]) by (k)", end=80, step=20) == {
        "x": [(20, 1), (40, 1), (60, 3), (80, 5)]
    }


def test_times_are_aligned_to_the_step():
    """The start moves down and the end up to a multiple of the step, as Loki's frontend does."""
    assert over("vector(1)", start=7, end=31, step=30) == {"": [(0, 1), (30, 1), (60, 1)]}


def test_a_number_is_a_series_over_a_range():
    """`1+1` over a time is a line."""
    assert over("1+1", end=60) == {"": [(0, 2), (30, 2), (60, 2)]}


def test_a_failed_line_fails_a_count_that_needs_its_labels():
    """`sum by (msg)` of lines that are no JSON is refused; the plain sum skips the parser (D5)."""
    with pytest.raises(PipelineError, match=r"pipeline error: 'JSONParserErr'.*__error__=\"\""):
        at(f"sum by (msg) (count_over_time({S} | json [1m]))")
    assert at(f"sum(count_over_time({S} | json [1m]))") == {"": 6}
    assert at(f'sum by (msg) (count_over_time({S} | json | __error__="" [1m]))') == {}
    assert at(f"sum by (msg) (count_over_time({S} | json | drop __error__, __error_details__ [1m]))") == {"": 6}  # fmt: skip


def test_a_number_that_is_none_fails_unless_it_is_filtered():
    """Unwrap of text is refused, of an absent label it is no sample (D5)."""
    with pytest.raises(PipelineError, match="SampleExtractionErr"):
        at(f"sum(sum_over_time({S} | logfmt | unwrap k [1m]))")
    assert at(f'sum(sum_over_time({S} | logfmt | unwrap k | __error__="" [1m]))') == {}
    assert at(f"sum(sum_over_time({S} | logfmt | unwrap none [1m]))") == {}


def test_series_that_meet_twice_are_refused():
    """Several series where one is needed: an error that names the labels (D5)."""
    many = f"sum by (service_name) (count_over_time({S}[50s]))"
    with pytest.raises(PipelineError, match="several series on the right side"):
        at(f"{many} / on() {many}")
    with pytest.raises(PipelineError, match="several series on the left side"):
        at(f"{many} / on() sum(count_over_time({S}[50s]))")


def test_too_many_series_are_refused():
    """One series a line: the five hundred and first is 422 with what to do (D5)."""
    documents = [record(f"n={n}", seconds=1 + n / 100) for n in range(501)]
    with pytest.raises(LimitError, match=r"maximum number of series \(500\)") as caught:
        at(f"count_over_time({S} | logfmt [1m])", documents=documents)
    assert caught.value.status == 422
    assert len(at(f"count_over_time({S} | logfmt [1m])", documents=documents[1:])) == 500


def test_a_query_that_needs_too_much_memory_is_refused():
    """Series inside an aggregation count too, before the answer exists (D5)."""
    documents = [record(f"n={n}", seconds=n / 100) for n in range(2000)]
    budget = Budget(memory=1 << 20)
    with pytest.raises(LimitError, match="needs more than 1 MiB") as caught:
        at(f"count(count_over_time({S} | logfmt [1m]))", documents=documents, budget=budget)
    assert caught.value.status == 422


def test_a_window_gives_its_memory_back():
    """A thousand series that come and go need no more than those of one window."""
    documents = [record(f"n={n}", seconds=n) for n in range(1000)]
    budget = Budget(memory=200_000)
    found = over(
        f"count(count_over_time({S} | logfmt [5s]))", end=1000, step=5, documents=documents,
        budget=budget,
    )  # fmt: skip
    assert [value for _, value in found[""]] == [1, *[5] * 199, 4]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"step": 0}, "step: must be longer than 0"),
        ({"end": -1}, "end: lies before start"),
        ({"end": 11_000, "step": 1}, "step: 11001 points for each series are more than 11000"),
    ],
)
def test_times_that_make_no_sense_are_refused(options, reason):
    """400 with the parameter and the fix."""
    with pytest.raises(QueryError, match=reason) as caught:
        over("vector(1)", **options)
    assert caught.value.status == 400


def test_halves_of_a_time_add_up():
    """Counting twice thirty seconds is counting a minute, whatever the filter (D5)."""
    for stages in ("", '|= "1"', "| logfmt | v > 2"):
        whole = at(f"sum(count_over_time({S} {stages} [1m]))")[""]
        halves = over(f"sum(count_over_time({S} {stages} [30s]))", start=30, end=60)[""]
        assert sum(value for _, value in halves) == whole
