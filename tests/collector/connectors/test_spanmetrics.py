"""The connector spanmetrics: rates, errors and durations from spans (O3, B20)."""

import pytest

from collector.config import InvalidConfig
from collector.errors import Permanent, Retryable
from tests.collector.connectors.parts import (
    BEGIN,
    CLIENT,
    ERROR,
    INTERNAL,
    MILLISECOND,
    Connected,
    numbers,
    span,
    traces,
)

pytestmark = pytest.mark.anyio

BUCKETS = "histogram: {explicit: {buckets: [10ms, 100ms]}}"
QUIET = "metrics_flush_interval: 1h"  # the stop flushes


async def made(tmp_path, settings, *batches):
    """The last batch that the connector emits for some batches."""
    async with Connected(tmp_path, "spanmetrics", f"{{{QUIET}, {settings}}}") as running:
        for each in batches:
            await running.send(each)
    return running.sink.batches[-1] if running.sink.batches else None


def labels(name="GET /", kind="SERVER", status="UNSET", service="shop"):
    return {
        "service.name": service,
        "span.name": name,
        "span.kind": f"SPAN_KIND_{kind}",
        "status.code": f"STATUS_CODE_{status}",
    }


async def test_calls_and_durations(tmp_path):
    """Each span counts once in calls and once in duration, by service, name, kind and status."""
    batch = await made(
        tmp_path,
        BUCKETS,
        traces(span(ms=5), span(ms=10), span(ms=50), service__name="shop", zone="a"),
        traces(
            span(ms=500, status=ERROR),
            span("SELECT", CLIENT, ms=1),
            span("work", INTERNAL, ms=-3),
            service__name="shop",
            zone="a",
        ),
    )
    assert numbers(batch) == [
        ("traces.span.metrics.calls", labels(), 3),
        ("traces.span.metrics.calls", labels(status="ERROR"), 1),
        ("traces.span.metrics.calls", labels("SELECT", "CLIENT"), 1),
        ("traces.span.metrics.calls", labels("work", "INTERNAL"), 1),
        ("traces.span.metrics.duration", labels(), (3, 65.0, [2, 1, 0])),
        ("traces.span.metrics.duration", labels(status="ERROR"), (1, 500.0, [0, 0, 1])),
        ("traces.span.metrics.duration", labels("SELECT", "CLIENT"), (1, 1.0, [1, 0, 0])),
        ("traces.span.metrics.duration", labels("work", "INTERNAL"), (1, 0.0, [1, 0, 0])),
    ]
    group = batch.message.resource_metrics[0]
    assert {pair.key: pair.value.string_value for pair in group.resource.attributes} == {
        "service.name": "shop",
        "zone": "a",
    }
    scope = group.scope_metrics[0]
    assert scope.scope.name == "spanmetricsconnector"
    calls, duration = scope.metrics
    assert (calls.sum.is_monotonic, calls.sum.aggregation_temporality) == (True, 2)
    assert (duration.unit, list(duration.histogram.data_points[0].explicit_bounds)) == (
        "ms",
        [10.0, 100.0],
    )
    point = calls.sum.data_points[0]
    assert 0 < point.start_time_unix_nano <= point.time_unix_nano


async def test_resources_stay_apart(tmp_path):
    """Services, and processes of one service, have series of their own by default."""
    batches = [traces(span(), service__name="shop", pod=pod) for pod in ("1", "2")]
    batch = await made(tmp_path, BUCKETS, *batches)
    assert [len(group.scope_metrics) for group in batch.message.resource_metrics] == [1, 1]
    settings = f"{BUCKETS}, resource_metrics_key_attributes: [service.name]"
    joined = await made(tmp_path, settings, *batches)
    assert numbers(joined)[0][2] == 2


async def test_dimensions(tmp_path):
    """Attributes of span or resource split series; one that is missing has its default or is left out."""
    settings = (
        f"{BUCKETS[:-1]}, dimensions: [{{name: only.duration}}]}}, namespace: red, "
        "dimensions: [{name: http.method, default: GET}, {name: zone}, {name: none}], "
        "calls_dimensions: [{name: only.calls}], exclude_dimensions: [span.kind, status.code]"
    )
    attributes = {"only.calls": 1, "only.duration": True}
    batch = await made(
        tmp_path, settings, traces(span(attributes=attributes), service__name="shop", zone="a")
    )
    common = {"service.name": "shop", "span.name": "GET /", "http.method": "GET", "zone": "a"}
    assert numbers(batch) == [
        ("red.calls", {**common, "only.calls": 1}, 1),
        ("red.duration", {**common, "only.duration": True}, (1, 5.0, [1, 0, 0])),
    ]


async def test_seconds_and_no_durations(tmp_path):
    """`unit: s` measures in seconds; `disable` leaves the durations out."""
    settings = "histogram: {unit: s, explicit: {buckets: [10ms]}}"
    batch = await made(tmp_path, settings, traces(span(ms=20)))
    assert numbers(batch)[1][2] == (1, 0.02, [0, 1])
    assert batch.message.resource_metrics[0].scope_metrics[0].metrics[1].unit == "s"
    batch = await made(tmp_path, "histogram: {disable: true}", traces(span()))
    assert [name for name, _, _ in numbers(batch)] == ["traces.span.metrics.calls"]


async def test_exemplars(tmp_path):
    """The latest spans of a series are its exemplars."""
    settings = f"{BUCKETS}, exemplars: {{enabled: true, max_per_data_point: 2}}"
    batch = await made(
        tmp_path, settings, traces(*(span(ms=each, id=bytes([each]) * 8) for each in (1, 2, 3)))
    )
    metrics = batch.message.resource_metrics[0].scope_metrics[0].metrics
    found = [
        (each.as_double, each.time_unix_nano, each.trace_id, each.span_id)
        for each in metrics[1].histogram.data_points[0].exemplars
    ]
    assert found == [
        (float(ms), BEGIN + ms * MILLISECOND, b"t" * 16, bytes([ms]) * 8) for ms in (2, 3)
    ]


async def test_a_request_that_comes_again_is_not_counted_again(tmp_path):
    """The sender did not hear the answer: the same bytes count once (reliability, duplicates)."""
    again = traces(span())
    batch = await made(tmp_path, BUCKETS, again, again, traces(span()))
    assert numbers(batch)[0][2] == 2


async def test_cumulative_sums_go_on(tmp_path):
    """Each flush has the total since the start, under one start time."""
    settings = f"{{metrics_flush_interval: 50ms, {BUCKETS}}}"
    async with Connected(tmp_path, "spanmetrics", settings) as running:
        await running.send(traces(span()))
        await running.until(lambda: running.sink.batches)
        await running.send(traces(span()))
        await running.until(lambda: numbers(running.sink.batches[-1])[0][2] == 2)
    points = [
        batch.message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
        for batch in running.sink.batches
    ]
    assert len({point.start_time_unix_nano for point in points}) == 1


DELTAS = "aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA"


async def test_differences_survive_a_pipeline_that_is_down(tmp_path):
    """What could not be handed on comes again, the same bytes; what came meanwhile follows."""
    settings = f"{{metrics_flush_interval: 20ms, {DELTAS}, {BUCKETS}}}"
    async with Connected(tmp_path, "spanmetrics", settings) as running:
        running.sink.failure = Retryable("down")
        await running.send(traces(span()))
        await running.until(lambda: running.sink.calls >= 3)
        await running.send(traces(span(), span()))
        running.sink.failure = None
        await running.until(lambda: len(running.sink.batches) >= 2)
    assert [numbers(batch)[0][2] for batch in running.sink.batches] == [1, 2]


async def test_metrics_that_are_refused_for_good_are_counted(tmp_path):
    """They are dropped with a counter, and the next flush goes on."""
    settings = f"{{metrics_flush_interval: 20ms, {DELTAS}, {BUCKETS}}}"
    async with Connected(tmp_path, "spanmetrics", settings) as running:
        running.sink.failure = Permanent("no")
        await running.send(traces(span()))
        await running.until(lambda: running.sink.calls)
        running.sink.failure = None
        await running.send(traces(span(), span()))
    assert [numbers(batch)[0][2] for batch in running.sink.batches] == [2]
    name = 'otelier_connector_dropped_points{connector="spanmetrics"}'
    assert running.service.stats.snapshot()[name] == 2


async def test_b20_series_are_bounded(tmp_path):
    """B20: names without end are counted together beyond the limit, so that totals stay right."""
    settings = f"aggregation_cardinality_limit: 2, {BUCKETS}"
    async with Connected(tmp_path, "spanmetrics", f"{{{QUIET}, {settings}}}") as running:
        await running.send(traces(*(span(f"/{each}") for each in range(5)), service__name="shop"))
    assert numbers(running.sink.batches[0])[:3] == [
        ("traces.span.metrics.calls", labels("/0"), 1),
        ("traces.span.metrics.calls", labels("/1"), 1),
        ("traces.span.metrics.calls", {"otel.metric.overflow": True}, 3),
    ]
    name = 'otelier_connector_overflow{connector="spanmetrics"}'
    assert running.service.stats.snapshot()[name] == 3


async def test_b20_resources_are_bounded(tmp_path):
    """B20: of more resources than the limit, the one without spans for longest is forgotten."""
    settings = f"resource_metrics_cache_size: 2, {BUCKETS}"
    batch = await made(
        tmp_path, settings, *(traces(span(), service__name=name) for name in ("a", "b", "a", "c"))
    )
    found = [found["service.name"] for name, found, _ in numbers(batch) if name.endswith("calls")]
    assert found == ["a", "c"]


@pytest.mark.parametrize(
    ("settings", "source", "expected"),
    [
        ("{histogram: {explicit: {buckets: [2s, 1s]}}}", "traces", "buckets must be growing"),
        ("{metrics_flush_interval: 0s}", "traces", "metrics_flush_interval must be greater than 0"),
        ("{exclude_dimensions: [x]}", "traces", "exclude_dimensions: x is none of service.name"),
        ("{dimensions: [{name: a}, {name: a}]}", "traces", "duplicate dimension name a"),
        ("{dimensions: [{name: span.name}]}", "traces", "duplicate dimension name span.name"),
        (
            "{}",
            "logs",
            "used as exporter in [logs] pipeline but not used in any supported receiver pipeline\n",
        ),
    ],
)
def test_mistakes_in_the_configuration(tmp_path, settings, source, expected):
    """Each is found before anything starts; a connector joins only the signals that it knows."""
    with pytest.raises(InvalidConfig) as caught:
        Connected(tmp_path, "spanmetrics", settings, source)
    assert expected in caught.value.report()


async def test_no_spans_no_metrics(tmp_path):
    """A connector that has seen nothing emits nothing."""
    assert await made(tmp_path, BUCKETS) is None
