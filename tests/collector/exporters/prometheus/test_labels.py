"""Labels and names that a sender chooses: the page stays valid, no series hides another (O3, F5)."""

import asyncio
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from collector.exporters.prometheus.exporter import ResourceToTelemetry
from collector.self_metrics.exposition import render
from tests import servers
from tests.collector.exporters.prometheus.test_exporter import (
    SECOND,
    batch,
    exporter,
    histogram,
    level,
    total,
)

pytestmark = pytest.mark.anyio

LEFT_OUT = 'otelier_prometheus_points_left_out{exporter="prometheus",reason="same_series"}'


def with_labels(fill, **labels):
    """The metric of `fill`; each of its points gets further attributes."""

    def filled(metric):
        fill(metric)
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            for key, text in labels.items():
                point.attributes.add(key=key.replace("__", ".")).value.string_value = text

    return filled


def summary(name, **labels):
    """A summary of one point with two quantiles."""

    def fill(metric):
        metric.name = name
        point = metric.summary.data_points.add(time_unix_nano=SECOND, count=4, sum=8.0)
        point.quantile_values.add(quantile=0.5, value=1.0)
        point.quantile_values.add(quantile=0.99, value=3.0)

    return with_labels(fill, **labels)


def page(running, *, openmetrics=False):
    return render(running.families(), openmetrics=openmetrics).decode()


async def test_le_and_quantile_as_attributes():
    """The label that a type needs for itself is renamed in attributes; other types keep it."""
    running = exporter()
    sizes = with_labels(histogram("size", [1], [3, 0], 3.0), le="x", exported_le="y")
    await running(batch(sizes, summary("wait", quantile="x"), level("a", 1.0, le="x")))
    assert page(running) == (
        "# TYPE size_seconds histogram\n"
        'size_seconds_bucket{exported_le="y",exported_exported_le="x",le="1"} 3\n'
        'size_seconds_bucket{exported_le="y",exported_exported_le="x",le="+Inf"} 3\n'
        'size_seconds_sum{exported_le="y",exported_exported_le="x"} 3\n'
        'size_seconds_count{exported_le="y",exported_exported_le="x"} 3\n'
        "# TYPE wait summary\n"
        'wait{exported_quantile="x",quantile="0.5"} 1\n'
        'wait{exported_quantile="x",quantile="0.99"} 3\n'
        'wait_sum{exported_quantile="x"} 8\n'
        'wait_count{exported_quantile="x"} 4\n'
        "# TYPE a gauge\n"
        'a{le="x"} 1\n'
    )


async def test_attributes_do_not_hide_the_target_the_scope_or_constants():
    """`job`, `instance`, scope labels and `const_labels` keep their names; attributes are renamed."""
    running = exporter(const_labels={"env": "prod", "le": "all"})
    metrics = [
        total("runs", 3, job="import", instance="i", env="dev", otel_scope_name="mine"),
        total("runs", 5, job="export"),
        with_labels(histogram("size", [], [1], 1.0)),
    ]
    await running(batch(*metrics, scope="lib", service__name="shop", service__instance__id="7"))
    own = 'instance="7",otel_scope_name="lib",env="prod"'
    assert page(running) == (
        "# TYPE runs_total counter\n"
        'runs_total{exported_env="dev",exported_instance="i",exported_job="import",'
        f'exported_otel_scope_name="mine",job="shop",{own},le="all"}} 3\n'
        f'runs_total{{exported_job="export",job="shop",{own},le="all"}} 5\n'
        "# TYPE size_seconds histogram\n"
        f'size_seconds_bucket{{job="shop",{own},exported_le="all",le="+Inf"}} 1\n'
        f'size_seconds_sum{{job="shop",{own},exported_le="all"}} 1\n'
        f'size_seconds_count{{job="shop",{own},exported_le="all"}} 1\n'
    )


async def test_what_would_be_one_series_is_counted(caplog):
    """Names and attributes that become equal are left out after the first, with one line."""
    running = exporter()
    metrics = [
        total("norm", 1, user__id="7"),
        total("norm", 2, user_id="7"),
        total("norm", 3, user_id=7),
        total("two.names", 1),
        total("two_names", 2),
        level("empty", 1.0),
        level("empty", 2.0, k=""),
    ]
    await running(batch(*metrics))
    await running(batch(total("norm", 9, time=2, user__id="7"), total("norm", 8, user_id="7")))
    assert page(running) == (
        '# TYPE norm_total counter\nnorm_total{user_id="7"} 9\n'
        "# TYPE two_names_total counter\ntwo_names_total 1\n"
        "# TYPE empty gauge\nempty 1\n"
    )
    assert running.host.stats.snapshot() == {LEFT_OUT: 5}
    text = "norm_total{'user_id': '7'} is already the series of another metric or sender"
    assert caplog.messages == [f"points are left out: {text}"]


async def test_two_processes_without_an_instance_id():
    """The first one is shown and the other counted; a process that began later replaces one that ended."""
    running = exporter()

    async def send(value, begin, end, pid):
        def fill(metric):
            total("runs", value, time=end)(metric)
            metric.sum.data_points[0].start_time_unix_nano = begin * SECOND

        await running(batch(fill, service__name="shop", process__pid=pid))

    await send(10, 1, 20, "1")
    await send(3, 2, 21, "2")  # both are alive
    assert 'runs_total{job="shop"} 10' in page(running)
    await send(1, 30, 40, "3")  # a restart
    assert 'runs_total{job="shop"} 1\n' in page(running)
    await send(4, 2, 41, "2")
    running._clock.now += 200  # the seam for time; more than half of metric_expiration
    await send(5, 2, 42, "2")
    assert 'runs_total{job="shop"} 5' in page(running)
    assert running.host.stats.snapshot() == {LEFT_OUT: 2}


async def test_a_metric_called_target_info():
    """The name of our own family is taken: a metric with it is left out and counted."""
    running = exporter()
    await running(batch(level("target.info", 1.0), service__name="a", host__name="h"))
    assert page(running).count("# TYPE target_info") == 1
    name = 'otelier_prometheus_points_left_out{exporter="prometheus",reason="type"}'
    assert running.host.stats.snapshot() == {name: 1}


async def test_differences_whose_buckets_do_not_match_their_bounds():
    """A histogram with fewer buckets than the last one begins anew; nothing raises."""
    running = exporter()
    await running(batch(histogram("d", [1], [1, 1], 2.0, temporality=1)))
    await running(batch(histogram("d", [1], [2], 1.0, temporality=1, time=2)))
    assert 'd_seconds_bucket{le="1"} 2\nd_seconds_bucket{le="+Inf"} 2\n' in page(running)


NAMES = st.sampled_from(
    ["le", "quantile", "job", "instance", "user.id", "user_id", "__name__", "a.b", "a_b", "a", "_",
     "exported_job", "exported_le", "otel_scope_name", "target_info", "target", "9", "", "ü", "a b"]
) | st.text(max_size=6)  # fmt: skip
TEXTS = st.sampled_from(["", "x", "7", '"', "\\", "\n", "\r", "\0", "\u2028", "}", "1"]) | st.text(
    max_size=6
)
LABELS = st.dictionaries(NAMES, TEXTS, max_size=4)
KINDS = st.sampled_from(["gauge", "sum", "histogram", "summary"])
RESOURCES = st.dictionaries(
    st.sampled_from(["service.name", "service.instance.id", "job", "le", "a.b", "a_b"]),
    TEXTS,
    max_size=4,
)


def chosen(kind, name, labels):
    """A metric with these labels as they are."""

    def fill(metric):
        {
            "gauge": level(name, 1.0),
            "sum": total(name, 1),
            "histogram": histogram(name, [1], [1, 0], 1.0),
            "summary": summary(name),
        }[kind](metric)
        point = getattr(metric, metric.WhichOneof("data")).data_points[0]
        for key, text in labels.items():
            point.attributes.add(key=key).value.string_value = text

    return fill


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(KINDS, NAMES, LABELS), min_size=1, max_size=6),
    RESOURCES,
    st.booleans(),
    st.booleans(),
)
def test_any_names_keep_the_page_valid_and_nothing_merges_uncounted(
    metrics, resource, converted, openmetrics
):
    """A foreign parser reads the page, no label and no series is there twice, and the sum is right."""
    running = exporter(
        enable_open_metrics=openmetrics,
        resource_to_telemetry_conversion=ResourceToTelemetry(enabled=converted),
    )
    made = batch(*(chosen(*each) for each in metrics))
    for key, text in resource.items():
        made.message.resource_metrics[0].resource.attributes.add(key=key).value.string_value = text
    asyncio.run(running(made))
    text = page(running, openmetrics=openmetrics)
    families = list((parse_openmetrics if openmetrics else parse)(text))
    samples = [each for family in families for each in family.samples]
    shown = {(each.name, frozenset(each.labels.items())) for each in samples}
    assert len(shown) == len(samples) == sum(line[:1] != "#" for line in text.split("\n")[:-1])
    points = sum(len(each.series) for each in running._families.values())
    left_out = sum(running.host.stats.snapshot().values())
    sent = {(kind, name, frozenset(labels.items())) for kind, name, labels in metrics}
    assert points + left_out >= len(sent)
    assert points <= len(sent)


HOSTILE = [
    *(
        chosen(kind, f"{kind}.x", {name: "x", "user.id": "7", "user_id": text})
        for kind in ("gauge", "sum", "histogram", "summary")
        for name in ("le", "quantile", "job", "instance", "__name__", "exported_job", "ü", "", "9")
        for text in ('"', "\\", "\n", "\0", "\u2028", "", "x" * 300)
    ),
    chosen("gauge", "a.b", {}),
    chosen("sum", "a_b", {}),
    chosen("histogram", "target.info", {}),
    chosen("gauge", "good", {}),
]


async def test_a_real_prometheus_scrapes_it(tmp_path):
    """Prometheus is up and has the samples, whatever names and labels are there."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip(
            "no prometheus on PATH (Debian: apt-get install prometheus); see the test above"
        )
    async with exporter(enable_open_metrics=True) as running:
        await running(batch(*HOSTILE, service__name="shop", service__instance__id="1", le="x"))
        shown = len({line for line in page(running).split("\n") if line and line[0] != "#"})
        target = running.endpoints["http"]
        (tmp_path / "p.yml").write_text(
            f"scrape_configs: [{{job_name: otelier, scrape_interval: 1s, scrape_timeout: 1s, "
            f"static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        port = servers.free_port()
        command = [binary, f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/d"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - a server
            try:
                assert await asyncio.to_thread(query, port, "up", "1") == "1"
                taken = "scrape_samples_post_metric_relabeling"
                assert await asyncio.to_thread(query, port, taken, str(shown)) == str(shown)
                assert await asyncio.to_thread(query, port, "good", "1") == "1"
            finally:
                process.terminate()
                process.wait(20)
        assert "Error on ingesting" not in (tmp_path / "log").read_text()


def query(port, expression, wanted):
    """The value of an expression, asked until it is the wanted one or half a minute is over."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    found = "nothing"
    for _ in range(120):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                result = msgspec.json.decode(answer.read())["data"]["result"]
        except OSError:
            result = []
        if result:
            found = result[0]["value"][1]
        if found == wanted:
            break
        time.sleep(0.25)
    return found
