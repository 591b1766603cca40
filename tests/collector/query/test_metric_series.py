"""`metrics/series`: increases, resets, histograms, groups and steps."""

import logging

import msgspec
import pytest

from collector.documents.build import NonFinite
from collector.model import Host, Signal
from collector.query.paged import ask
from collector.query.parameters import BadParameter
from collector.stats import Stats
from collector.stores.sqlite.store import SQLite
from tests.contracts.stores import point

pytestmark = pytest.mark.anyio

SECOND = 10**9
T0 = 1_800_000_000 * SECOND
NOW = T0 + 300 * SECOND
RANGE = (("since", "5m"), ("until", "0s"), ("step", "1m"))


def points(name, values, **fields):
    """Points of one series: (seconds behind T0, value), or more fields instead of a value."""
    for seconds, value in values:
        own = value if isinstance(value, dict) else {"value": value}
        time = T0 + seconds * SECOND
        points.number += 1
        yield point(points.number, name=name, time_unix_nano=time, **{**fields, **own})


points.number = 0

COUNTER = {"type": "sum", "monotonic": True, "temporality": "cumulative"}


@pytest.fixture
def series(tmp_path):
    """Ask for the values of points that are stored first."""

    async def asked(stored, *pairs):
        host = Host("sqlite", Stats(), logging.getLogger("collector.component.sqlite"))
        async with SQLite(SQLite.Config(path=str(tmp_path / "t.db")), host) as store:
            await store.write(Signal.METRICS, [*stored])
            body = await ask(store, "metrics/series", [*pairs], now_unix_nano=NOW)
        found = msgspec.json.decode(body)
        found.pop("searched")
        return found

    return asked


def values(answer, **labels):
    """The points of one series as (seconds behind T0, value)."""
    (found,) = [each for each in answer["series"] if labels.items() <= each["labels"].items()]
    return [((each["time_unix_nano"] - T0) // SECOND, each["value"]) for each in found["points"]]


async def test_a_whole_answer(series):
    """A gauge: its last value in each step, what it is, and what was asked for."""
    stored = points(
        "load", [(0, 1.5), (59, 2.5), (60, 3.5)], type="gauge", unit="1", description="d"
    )
    assert await series(stored, ("name", "load"), *RANGE) == {
        "name": "load",
        "type": "gauge",
        "unit": "1",
        "description": "d",
        "step_s": 60.0,
        "since_unix_nano": T0,
        "until_unix_nano": NOW,
        "values": "last",
        "series": [
            {
                "labels": {"service": "web"},
                "points": [
                    {"time_unix_nano": T0, "value": 2.5},
                    {"time_unix_nano": T0 + 60 * SECOND, "value": 3.5},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("fields", "stored", "kind", "wanted"),
    [
        # what began before the range counts from its first point in it
        ({**COUNTER, "start_unix_nano": T0 - 1}, [(0, 100), (30, 104), (70, 110)], "increase",
         [(0, 4), (60, 6)]),
        # what began in the range counts from nothing
        ({**COUNTER, "start_unix_nano": T0}, [(30, 4), (70, 10)], "increase", [(0, 4), (60, 6)]),
        # a counter that falls, or says so, has begun anew
        ({**COUNTER, "start_unix_nano": T0 - 1}, [(0, 100), (30, 3)], "increase", [(0, 3)]),
        (COUNTER, [(0, {"value": 5, "start_unix_nano": T0 - 9}),
                   (30, {"value": 7, "start_unix_nano": T0 + 9})], "increase", [(0, 7)]),
        ({"type": "sum", "monotonic": True, "temporality": "delta"}, [(0, 5), (1, 6), (60, 7)],
         "increase", [(0, 11), (60, 7)]),
        ({"type": "sum", "temporality": "cumulative"}, [(0, 5), (1, 3), (60, 7)], "last",
         [(0, 3), (60, 7)]),
        ({"type": "gauge"}, [(0, NonFinite("nan")), (1, NonFinite("inf")), (60, -7)], "last",
         [(60, -7)]),
    ],
)  # fmt: skip
async def test_what_a_value_is(series, fields, stored, kind, wanted):
    """Counters become increases, through resets; what may fall is shown as it was last."""
    answer = await series(points("m", stored, **fields), ("name", "m"), *RANGE)
    assert (answer["values"], values(answer)) == (kind, wanted)


def recorded(counts, total):
    return {"count": sum(counts), "sum": total, "bucket_counts": counts}


async def test_a_histogram_is_what_was_recorded_in_each_step(series):
    """Cumulative buckets are taken apart: mean, count and percentiles are those of the step alone."""
    stored = points(
        "latency",
        [(0, recorded([9, 9, 9], 99.0)), (30, recorded([9, 13, 9], 107.0)),
         (60, recorded([9, 13, 10], 207.0))],
        type="histogram", temporality="cumulative", explicit_bounds=[1.0, 3.0],
    )  # fmt: skip
    answer = await series(stored, ("name", "latency"), *RANGE)
    assert answer["values"] == "mean"
    assert answer["series"][0]["points"] == [
        {"time_unix_nano": T0, "value": 2.0, "count": 4, "p50": 2.0, "p95": 2.9, "p99": 2.98},
        {"time_unix_nano": T0 + 60 * SECOND, "value": 100.0, "count": 1, "p50": 3.0, "p95": 3.0,
         "p99": 3.0},
    ]  # fmt: skip


async def test_buckets_that_differ_have_no_percentiles(series):
    """Histograms whose buckets are not the same are joined by count and sum only."""
    stored = [
        *points("h", [(0, recorded([1, 1], 4.0))], type="histogram", temporality="delta",
                explicit_bounds=[1.0]),
        *points("h", [(0, recorded([1, 1], 8.0))], type="histogram", temporality="delta",
                explicit_bounds=[2.0], service="db"),
    ]  # fmt: skip
    answer = await series(stored, ("name", "h"), ("group_by", "nothing"), *RANGE)
    assert answer["series"] == [
        {"labels": {}, "points": [{"time_unix_nano": T0, "value": 3.0, "count": 4}]}
    ]


async def test_groups_join_series(series):
    """Counters of a group are added, gauges averaged; a counter per instance keeps its own resets."""
    counters = [
        each
        for host, route, top in (("a", "/x", 10), ("b", "/x", 100), ("b", "/y", 1000))
        for each in points(
            "requests", [(0, 0), (30, top)], **COUNTER, attributes={"http.route": route},
            resource={"host.name": host},
        )
    ]  # fmt: skip
    for group, wanted in (
        ("http.route", {"/x": 110, "/y": 1000}),
        ("host.name", {"a": 10, "b": 1100}),
        ("service", {"web": 1110}),
    ):
        answer = await series(counters, ("name", "requests"), ("group_by", group), *RANGE)
        found = {each["labels"][group]: each["points"][0]["value"] for each in answer["series"]}
        assert found == wanted
    gauges = [
        *points("load", [(0, 1.0)], type="gauge", service="a"),
        *points("load", [(0, 2.0)], type="gauge", service="b"),
    ]
    answer = await series(gauges, ("name", "load"), ("group_by", "none"), *RANGE)
    assert values(answer) == [(0, 1.5)]


async def test_the_series_with_the_most_points_when_there_are_too_many(series):
    """A label with many values is cut to the limit, and the answer says so."""
    stored = [
        *points("load", [(0, 1), (60, 1)], type="gauge", service="full"),
        *points("load", [(0, 1)], type="gauge", service="a"),
        *points("load", [(0, 1)], type="gauge", service="b"),
    ]
    answer = await series(stored, ("name", "load"), ("limit", "2"), *RANGE)
    assert [each["labels"]["service"] for each in answer["series"]] == ["full", "a"]
    assert answer["cut"] == ["3 series; those with the most points are shown, use group_by"]


async def test_conditions(series):
    """`service` and `where` narrow the points down; an unknown name has no series."""
    stored = [
        *points("load", [(0, 1)], type="gauge", service="a", attributes={"cpu": 0}),
        *points("load", [(0, 2)], type="gauge", service="a", attributes={"cpu": 1}),
        *points("load", [(0, 3)], type="gauge", service="b", attributes={"cpu": 1}),
    ]
    answer = await series(stored, ("name", "load"), ("service", "a"), ("where", "cpu=1"), *RANGE)
    assert [each["points"][0]["value"] for each in answer["series"]] == [2]
    nothing = await series(stored, ("name", "unknown"), *RANGE)
    assert "series" not in nothing


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([], "name: write the name of a metric"),
        ([("name", "m"), ("step", "100ms")], "step: write 1s or more"),
        ([("name", "m"), ("since", "9w"), ("step", "1s")], "step: more than 1000 steps"),
        ([("name", "m"), ("group_by", "a,,b")], "group_by: write names with commas"),
        ([("name", "m"), ("limit", "501")], "limit: write a whole number from 1 to 500"),
        ([("name", "m"), ("cursor", "x")], "cursor: unknown parameter"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_the_fix(series, pairs, reason):
    """A wrong parameter is named, with what to write instead."""
    with pytest.raises(BadParameter) as refused:
        await series([], *pairs)
    assert str(refused.value).startswith(reason)


async def test_the_step_fits_the_range(series):
    """Without `step` a range has about 60 steps of a length that people know."""
    steps = {
        since: (await series([], ("name", "m"), ("since", since)))["step_s"]
        for since in ("1m", "1h", "1d", "7d", "900w")
    }
    assert steps == {"1m": 10, "1h": 60, "1d": 1800, "7d": 21_600, "900w": 9_072_000}
