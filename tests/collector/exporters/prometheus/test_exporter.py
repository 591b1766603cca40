"""The prometheus exporter: OTLP metrics in, Prometheus' text formats out (O3, B20)."""

import asyncio
import gzip
import http.client
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from collector.config import InvalidConfig, load
from collector.errors import StartFailed
from collector.exporters.prometheus.exporter import Prometheus, ResourceToTelemetry
from collector.model import Batch, Request, Signal
from collector.otlp import request_key
from collector.self_metrics.exposition import render
from tests.collector.exporters.batches import put
from tests.collector.exporters.peers import host
from tests.strategies import requests

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000
DELTA, CUMULATIVE = 1, 2


class Clock:
    """A clock that stands still until it is told."""

    now = 100.0

    def __call__(self):
        return self.now


def exporter(**settings):
    return Prometheus(
        Prometheus.Config(endpoint="127.0.0.1:0", **settings), host("prometheus"), Clock()
    )


def batch(*metrics, scope="", version="", **resource):
    """A batch from metrics that are functions of a Metric message."""
    message = ExportMetricsServiceRequest()
    group = message.resource_metrics.add()
    put(group.resource.attributes, {key.replace("__", "."): text for key, text in resource.items()})
    inner = group.scope_metrics.add()
    inner.scope.name, inner.scope.version = scope, version
    for fill in metrics:
        fill(inner.metrics.add())
    wire = message.SerializeToString()
    return Batch(Signal.METRICS, message, Request(1, request_key("", Signal.METRICS, wire)), wire)


def total(name, value, *, unit="", time=1, temporality=CUMULATIVE, monotonic=True, help="", **attributes):  # fmt: skip  # noqa: A002
    def fill(metric):
        metric.name, metric.unit, metric.description = name, unit, help
        metric.sum.aggregation_temporality = temporality
        metric.sum.is_monotonic = monotonic
        point = metric.sum.data_points.add(time_unix_nano=time * SECOND)
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
        put(point.attributes, {key.replace("__", "."): text for key, text in attributes.items()})

    return fill


def level(name, value, *, unit="", time=1, flags=0, **attributes):
    def fill(metric):
        metric.name, metric.unit = name, unit
        point = metric.gauge.data_points.add(
            time_unix_nano=time * SECOND, as_double=value, flags=flags
        )
        put(point.attributes, attributes)

    return fill


def histogram(name, bounds, counts, sum_, *, temporality=CUMULATIVE, time=1, exemplars=()):
    def fill(metric):
        metric.name, metric.unit = name, "s"
        metric.histogram.aggregation_temporality = temporality
        point = metric.histogram.data_points.add(
            time_unix_nano=time * SECOND,
            explicit_bounds=bounds,
            bucket_counts=counts,
            count=sum(counts),
            sum=sum_,
        )
        for value, trace in exemplars:
            point.exemplars.add(
                as_double=value, time_unix_nano=2 * SECOND, trace_id=trace * 16, span_id=trace * 8
            )

    return fill


def exponential(name, *, scale, offset, counts, zero=0, negative=(), temporality=CUMULATIVE):
    def fill(metric):
        metric.name = name
        metric.exponential_histogram.aggregation_temporality = temporality
        point = metric.exponential_histogram.data_points.add(
            time_unix_nano=SECOND,
            scale=scale,
            zero_count=zero,
            count=sum(counts) + zero + sum(negative),
            sum=10.0,
        )
        point.positive.offset = offset
        point.positive.bucket_counts.extend(counts)
        point.negative.offset = offset
        point.negative.bucket_counts.extend(negative)

    return fill


async def fetch(running, path="/metrics", method="GET", **headers):
    """Status, headers and text of an answer."""

    def work():
        connection = http.client.HTTPConnection(running.endpoints["http"], timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    status, found, body = await asyncio.to_thread(work)
    if found.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return status, found, body.decode()


async def shown(*batches, **settings):
    """The page after some batches."""
    async with exporter(**settings) as running:
        for each in batches:
            await running(each)
        return (await fetch(running))[2]


async def test_sums_and_gauges():
    """A sum that only grows is a counter with `_total`; others are gauges; units end the name."""
    text = await shown(
        batch(
            total("http.requests", 5, help='How\nmany "x"', method='G"E\\T\n', code=200),
            total("queue.length", 3, unit="{items}", monotonic=False),
            level("load", 0.5, unit="1"),
            level("cpu.time", 1.5, unit="ms"),
            level("disk.io", 2.0, unit="By/s"),
        )
    )
    assert text == (
        '# HELP http_requests_total How\\nmany "x"\n'
        "# TYPE http_requests_total counter\n"
        'http_requests_total{code="200",method="G\\"E\\\\T\\n"} 5\n'
        "# TYPE queue_length gauge\nqueue_length 3\n"
        "# TYPE load_ratio gauge\nload_ratio 0.5\n"
        "# TYPE cpu_time_milliseconds gauge\ncpu_time_milliseconds 1.5\n"
        "# TYPE disk_io_bytes_per_second gauge\ndisk_io_bytes_per_second 2\n"
    )


async def test_histograms():
    """Buckets are sums from below, and end with +Inf, sum and count."""
    text = await shown(batch(histogram("took", [0.1, 1], [1, 2, 3], 4.5)))
    assert text == (
        "# TYPE took_seconds histogram\n"
        'took_seconds_bucket{le="0.1"} 1\n'
        'took_seconds_bucket{le="1"} 3\n'
        'took_seconds_bucket{le="+Inf"} 6\n'
        "took_seconds_sum 4.5\n"
        "took_seconds_count 6\n"
    )


async def test_bounds_that_do_not_grow():
    """Hostile bounds make no line twice; their values are in the next bucket that there is."""
    bounds = [1, 1, 0.5, float("inf"), float("nan")]
    text = await shown(batch(histogram("took", bounds, [1, 2, 3, 4, 5, 6], 1.0)))
    assert [line for line in text.split("\n") if "bucket" in line] == [
        'took_seconds_bucket{le="1"} 1',
        'took_seconds_bucket{le="+Inf"} 21',
    ]


async def test_exponential_histograms_become_classic_ones():
    """Scale 0: bounds are powers of two; negative values and zeros stand below."""
    text = await shown(
        batch(exponential("e", scale=0, offset=0, counts=[1, 0, 2], zero=4, negative=[1, 3]))
    )
    assert text == (
        "# TYPE e histogram\n"
        'e_bucket{le="-2"} 3\n'
        'e_bucket{le="-1"} 4\n'
        'e_bucket{le="0"} 8\n'
        'e_bucket{le="2"} 9\n'
        'e_bucket{le="8"} 11\n'
        'e_bucket{le="+Inf"} 11\n'
        "e_sum 10\n"
        "e_count 11\n"
    )


async def test_exponential_differences_of_two_scales_are_added():
    """The finer one is made coarser: (1, 2] and (2, 4] at scale 0 are two buckets each at scale 1."""
    text = await shown(
        batch(exponential("e", scale=1, offset=0, counts=[1, 2, 4, 8], temporality=DELTA)),
        batch(exponential("e", scale=0, offset=0, counts=[10, 20], temporality=DELTA)),
    )
    assert [line for line in text.split("\n") if "bucket" in line] == [
        'e_bucket{le="2"} 13',
        'e_bucket{le="4"} 45',
        'e_bucket{le="+Inf"} 45',
    ]


async def test_a_wide_exponential_histogram_is_made_coarser():
    """1,000 buckets at scale 4 become at most 160, and no value is lost."""
    text = await shown(batch(exponential("e", scale=4, offset=-500, counts=[1] * 1000)))
    buckets = [line for line in text.split("\n") if line.startswith("e_bucket")]
    assert 80 <= len(buckets) <= 161
    assert buckets[-1] == 'e_bucket{le="+Inf"} 1000'
    assert buckets[-2].endswith(" 1000")


async def test_summaries():
    """Quantiles, sum and count."""

    def fill(metric):
        metric.name = "s"
        point = metric.summary.data_points.add(time_unix_nano=SECOND, count=3, sum=6.0)
        point.quantile_values.add(quantile=0.5, value=2.0)
        point.quantile_values.add(quantile=1.0, value=3.0)

    assert await shown(batch(fill)) == (
        '# TYPE s summary\ns{quantile="0.5"} 2\ns{quantile="1"} 3\ns_sum 6\ns_count 3\n'
    )


async def test_differences_are_added_up():
    """Prometheus knows totals only; the same request again is not added again."""
    again = batch(
        total("n", 2, temporality=DELTA), histogram("h", [1], [1, 1], 3.0, temporality=DELTA)
    )
    more = batch(
        total("n", 3, time=2, temporality=DELTA),
        histogram("h", [1], [0, 5], 10.0, temporality=DELTA),
    )
    text = await shown(again, again, more)
    assert [line for line in text.split("\n") if not line.startswith("#")] == [
        "n_total 5",
        'h_seconds_bucket{le="1"} 1',
        'h_seconds_bucket{le="+Inf"} 7',
        "h_seconds_sum 13",
        "h_seconds_count 7",
        "",
    ]


async def test_the_latest_total_counts():
    """A total that is older than what is shown changes nothing."""
    text = await shown(
        batch(total("n", 7, time=5)), batch(total("n", 6, time=4)), batch(total("n", 1, time=9))
    )
    assert text.endswith("\nn_total 1\n")


async def test_openmetrics_has_exemplars():
    """Whoever asks for OpenMetrics gets it: exemplars in their buckets, `# EOF` at the end."""
    took = histogram("took", [0.1, 1], [1, 1, 0], 1.0, exemplars=[(0.05, b"\x01"), (0.5, b"\x02")])
    async with exporter(enable_open_metrics=True) as running:
        await running(batch(took, total("n", 2)))
        kind = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        _, headers, text = await fetch(running, accept=kind)
        plain = await fetch(running, accept="text/plain")
    assert headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    one, two = "01" * 16, "02" * 16
    assert text == (
        "# TYPE took_seconds histogram\n"
        f'took_seconds_bucket{{le="0.1"}} 1 # {{trace_id="{one}",span_id="{one[:16]}"}} 0.05 2.000\n'
        f'took_seconds_bucket{{le="1.0"}} 2 # {{trace_id="{two}",span_id="{two[:16]}"}} 0.5 2.000\n'
        'took_seconds_bucket{le="+Inf"} 2\n'
        "took_seconds_sum 1\n"
        "took_seconds_count 2\n"
        "# TYPE n counter\nn_total 2\n# EOF\n"
    )
    assert plain[1]["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "EOF" not in plain[2]
    assert "trace_id" not in plain[2]


async def test_a_gauge_has_no_exemplar():
    """OpenMetrics knows exemplars of counters and buckets alone; one on a gauge fails a whole scrape."""

    def with_exemplar(fill, kind):
        def filled(metric):
            fill(metric)
            (point,) = getattr(metric, kind).data_points
            point.exemplars.add(as_double=3, time_unix_nano=2 * SECOND, trace_id=b"\x01" * 16)

        return filled

    async with exporter(enable_open_metrics=True) as running:
        await running(
            batch(
                with_exemplar(level("a", 1.0), "gauge"),
                with_exemplar(total("open", 4, monotonic=False), "sum"),
                with_exemplar(total("n", 2), "sum"),
            )
        )
        _, _, text = await fetch(running, accept="application/openmetrics-text;version=1.0.0")
    assert text == (
        "# TYPE a gauge\na 1\n"
        "# TYPE open gauge\nopen 4\n"
        f'# TYPE n counter\nn_total 2 # {{trace_id="{"01" * 16}"}} 3 2.000\n# EOF\n'
    )


async def test_services_are_jobs_and_resources_are_targets():
    """`job` and `instance` name the service; its other attributes are in `target_info`."""
    made = batch(
        level("a", 1.0),
        scope="lib",
        version="2",
        service__name="shop",
        service__namespace="eu",
        service__instance__id="7",
        host__name="h",
    )
    assert await shown(made) == (
        "# HELP target_info Target metadata\n# TYPE target_info gauge\n"
        'target_info{host_name="h",job="eu/shop",instance="7"} 1\n'
        "# TYPE a gauge\n"
        'a{job="eu/shop",instance="7",otel_scope_name="lib",otel_scope_version="2"} 1\n'
    )
    converted = ResourceToTelemetry(enabled=True)
    changed = {"resource_to_telemetry_conversion": converted, "without_scope_info": True}
    names = 'host_name="h",service_instance_id="7",service_name="shop",service_namespace="eu"'
    assert await shown(made, **changed) == (
        f'# TYPE a gauge\na{{{names},job="eu/shop",instance="7"}} 1\n'
    )


async def test_names_and_labels_are_made_valid():
    """Other characters become `_`; attributes that then collide share a label."""
    attributes = {"a.b": "1", "a_b": "2", "1x": "3", "_y": "4"}
    assert await shown(batch(total("9 lives/\u00f6", 1, **attributes))) == (
        '# TYPE _9_lives_total counter\n_9_lives_total{key_1x="3",key__y="4",a_b="1;2"} 1\n'
    )


async def test_settings_of_names():
    """`namespace` and `const_labels` are added; suffixes can be left out in two ways."""
    made = batch(total("n", 1, unit="s"))
    settings = {"namespace": "eu", "const_labels": {"zone": "a"}}
    assert 'eu_n_seconds_total{zone="a"} 1\n' in await shown(made, **settings)
    assert await shown(made, add_metric_suffixes=False) == "# TYPE n counter\nn 1\n"
    bare = {"translation_strategy": "UnderscoreEscapingWithoutSuffixes"}
    assert await shown(made, **bare) == "# TYPE n counter\nn 1\n"


async def test_timestamps_on_request():
    """`send_timestamps` writes when each value was measured, in milliseconds."""
    assert await shown(batch(level("a", 1.0, time=12)), send_timestamps=True) == (
        "# TYPE a gauge\na 1 12000\n"
    )


async def test_series_end():
    """A series without news expires, and one that says that it has ended goes at once."""
    async with exporter() as running:
        await running(
            batch(level("a", 1.0, k="1"), level("a", 1.0, k="2"), service__name="x", z="y")
        )
        await running(batch(level("a", 0.0, k="1", time=2, flags=1), service__name="x", z="y"))
        assert 'a{k="2",job="x"} 1' in (await fetch(running))[2]
        assert 'k="1"' not in (await fetch(running))[2]
        running._clock.now += 301  # the seam for time; 5 minutes is metric_expiration
        assert (await fetch(running))[2] == ""


async def test_b20_the_number_of_series_is_bounded(caplog):
    """B20: points of series beyond the limit are counted and left out; those that are there go on."""
    async with exporter(max_series=2) as running:
        await running(batch(*(level("a", 1.0, k=str(each)) for each in range(5))))
        await running(batch(level("a", 9.0, time=2, k="1")))
        text = (await fetch(running))[2]
    assert text == '# TYPE a gauge\na{k="0"} 1\na{k="1"} 9\n'
    name = 'otelier_prometheus_points_left_out{exporter="prometheus",reason="max_series"}'
    assert running.host.stats.snapshot() == {name: 3}
    assert caplog.messages == ["points are left out: there are 2 series already (max_series)"]


async def test_one_name_has_one_type():
    """A second type under the same name is left out and counted, as Prometheus would refuse it."""
    async with exporter() as running:
        await running(
            batch(level("a", 1.0), histogram("a", [1], [1, 0], 1.0), level("a_seconds", 2.0))
        )
        text = (await fetch(running))[2]
    assert [line for line in text.split("\n") if line.startswith("# TYPE")] == [
        "# TYPE a gauge",
        "# TYPE a_seconds histogram",
    ]
    name = 'otelier_prometheus_points_left_out{exporter="prometheus",reason="type"}'
    assert running.host.stats.snapshot() == {name: 1}


async def test_http():
    """Other paths are 404, other methods 405, HEAD has no body, long pages are compressed on request."""
    async with exporter() as running:
        await running(batch(*(level("a", 1.0, k=str(each)) for each in range(200))))
        assert (await fetch(running, "/"))[::2] == (404, "not found; metrics are at /metrics\n")
        status, headers, _ = await fetch(running, method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        whole = (await fetch(running))[2]
        status, headers, body = await fetch(running, method="HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(whole)), "")
        _, headers, text = await fetch(running, accept_encoding="gzip")
        assert (headers["content-encoding"], text) == ("gzip", whole)


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
NUMBER = r"(?:NaN|[+-]Inf|[+-]?\d+(?:\.\d+)?(?:e[+-]\d+)?)"
LINE = re.compile(
    rf"# HELP {NAME} .*|# TYPE {NAME} (?:counter|gauge|histogram|summary)"
    rf"|{NAME}(?:{{(?:{LABEL})(?:,{LABEL})*}})? {NUMBER}(?: -?\d+)?"
    rf"(?: # {{(?:{LABEL})?(?:,{LABEL})*}} {NUMBER}(?: {NUMBER})?)?"
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(requests(Signal.METRICS), min_size=1, max_size=2), st.booleans())
def test_whatever_comes_the_page_is_valid(messages, openmetrics):
    """Any OTLP metrics become lines of the format, no series stands there twice, and buckets grow."""
    running = exporter(enable_open_metrics=openmetrics)

    async def take():
        for message in messages:
            wire = message.SerializeToString()
            origin = Request(1, request_key("", Signal.METRICS, wire))
            await running(Batch(Signal.METRICS, message, origin, wire))

    asyncio.run(take())
    lines = render(running.families(), openmetrics=openmetrics).decode().split("\n")
    assert lines.pop() == ""
    if openmetrics:
        assert lines.pop() == "# EOF"
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    heads = [line.rpartition(" ")[0] for line in lines if not openmetrics or " # " not in line]
    assert len(heads) == len(set(heads))


async def test_a_port_in_use():
    """The start fails in one line that says what to do."""
    async with exporter() as running:
        taken = Prometheus(Prometheus.Config(endpoint=running.endpoints["http"]), host())
        with pytest.raises(StartFailed, match="the address is in use; stop the other process"):
            async with taken:
                pass


@pytest.mark.parametrize(
    ("settings", "signal", "expected"),
    [
        ("{}", "traces", 'failed to create "prometheus" exporter for data type "traces"'),
        ("{metric_expiration: 0s}", "metrics", "metric_expiration must be greater than 0"),
        ("{const_labels: {'a-b': x}}", "metrics", 'const_labels: "a-b" is no name of a label'),
        ("{namespace: '1'}", "metrics", 'namespace: "1" cannot begin a name'),
        ("{translation_strategy: NoTranslation}", "metrics", 'unknown value "NoTranslation"'),
    ],
)
def test_mistakes_in_the_configuration(tmp_path, settings, signal, expected):
    """Each is found before anything starts."""
    file = tmp_path / "c.yaml"
    file.write_text(
        f"receivers: {{otlp: {{protocols: {{http: }}}}}}\nexporters: {{prometheus: {settings}}}\n"
        f"service: {{pipelines: {{{signal}: {{receivers: [otlp], exporters: [prometheus]}}}}}}\n"
    )
    with pytest.raises(InvalidConfig) as caught:
        load([str(file)], [], {})
    assert expected in caught.value.report()
