"""The collector's own metrics: names, formats, ports, and that the numbers add up (O3)."""

import asyncio
import http.client
import socket

import msgspec
import pytest

from collector.config import PrometheusReader, load
from collector.errors import Denied, Permanent, Retryable, StartFailed
from collector.model import OnRequest
from collector.self_metrics.exposition import render
from collector.self_metrics.own_metrics import OwnMetrics
from collector.sending_queue.config import SendingQueue
from collector.service.service import Service
from collector.stats import Stats
from tests.collector.connectors.parts import Sink, logs
from tests.collector.connectors.parts import __name__ as parts

pytestmark = pytest.mark.anyio

READER = "readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: 0}}}}]"
YAML = """
receivers: {{"{module}:Source": }}
processors: {{filter: {{log_conditions: ['body == "unwanted"']}}}}
exporters: {{"{here}:Picky": {{sending_queue: {queue}}}}}
extensions: {{file_storage: {{directory: {folder}/queue, reserve_bytes: 0}}}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{{metrics}}}}}
  pipelines:
    logs: {{receivers: ["{module}:Source"], processors: [filter], exporters: ["{here}:Picky"]}}
"""


def service(tmp_path, metrics=READER, queue="{storage: file_storage}", **more):
    file = tmp_path / "c.yaml"
    file.write_text(
        YAML.format(module=parts, here=__name__, folder=tmp_path, metrics=metrics, queue=queue)
    )
    return Service(load([str(file)], [], {}), **more)


class PickyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sending_queue: OnRequest[SendingQueue] = None


class Picky(Sink):
    """Refuses "poison" for good; while it is `down` or `denies`, everything for now or for good."""

    Config = PickyConfig

    def __init__(self, config, host):
        super().__init__(config, host)
        self.down = self.denies = False

    async def __call__(self, batch):
        self.calls += 1
        if self.denies:
            raise Denied("answered 401")
        if self.down:
            raise Retryable("down", 0.01)
        for group in batch.message.resource_logs:
            for scope in group.scope_logs:
                if any(record.body.string_value == "poison" for record in scope.log_records):
                    raise Permanent("poison")
        self.batches.append(batch)


async def page(running):
    """The page of the first reader, as name -> value, and its text."""

    def fetch():
        (address,) = running.own_metrics.endpoints.values()
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    text = await asyncio.to_thread(fetch)
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}, text


async def until(running, condition):
    """Scrape until the numbers are as wanted; those numbers."""
    async with asyncio.timeout(60):
        while not condition((found := await page(running))[0]):  # noqa: ASYNC110 - numbers announce nothing
            await asyncio.sleep(0.02)
    return found


async def test_the_numbers_add_up(tmp_path):
    """Received = delivered + dropped by reason + dead letters + repeats + what waits."""
    picky = f"{__name__}:Picky"
    async with service(tmp_path) as running:
        send, sink = running.component(f"{parts}:Source"), running.component(picky)
        again = logs(("a", {}), ("b", {}))
        received = 0
        for batch in (
            again,
            again,
            logs(("unwanted", {}), ("c", {})),
            logs(("d", {}), ("poison", {}), ("e", {})),
        ):
            received += len(batch.message.resource_logs[0].scope_logs[0].log_records)
            await send(batch)
        label = f'exporter="{picky}"'
        letters = f'otelier_exporter_dead_letters_total{{{label},reason="refused"}}'
        lag = f"otelier_exporter_lag_items{{{label}}}"
        await until(running, lambda all_: all_.get(letters) == 1 and all_[lag] == 0)
        sink.down = True
        await send(logs(("f", {}), ("g", {})))
        received += 2
        numbers, text = await until(running, lambda all_: all_[lag] == 2)
        sink.down = False
        sent = f"otelcol_exporter_sent_log_records_total{{{label}}}"
        failed = f"otelcol_exporter_send_failed_log_records_total{{{label}}}"
        filtered = 'otelier_processor_dropped_items_total{processor="filter",reason="filter"}'
        repeats = 'otelier_wal_deduplicated_items_total{signal="logs",storage="file_storage"}'
        parts_ = {name: numbers[name] for name in (sent, failed, filtered, repeats, lag)}
        assert parts_ == {sent: 5, failed: 1, filtered: 1, repeats: 2, lag: 2}
        assert sum(parts_.values()) == received
        assert numbers[f"otelier_exporter_oldest_unsent_seconds{{{label}}}"] >= 0
        times = {name: value for name, value in numbers.items() if "commit_seconds" in name}
        storage = 'storage="file_storage"'
        assert times[f"otelier_wal_commit_seconds_count{{{storage}}}"] == 4
        assert times[f'otelier_wal_commit_seconds_bucket{{{storage},le="+Inf"}}'] == 4
        assert times[f"otelier_wal_commit_seconds_sum{{{storage}}}"] > 0
        assert "# TYPE otelier_wal_commit_seconds histogram" in text
        assert "# TYPE otelier_exporter_lag_items gauge" in text
        assert numbers["otelcol_process_memory_rss_bytes"] > 1 << 20
        assert numbers["otelcol_process_cpu_seconds_total"] > 0


async def test_a_queue_in_memory_says_what_waits(tmp_path):
    """Items that wait, and for how long, also without a durable log; both fall to 0 again."""
    picky = f"{__name__}:Picky"
    queue = "{num_consumers: 1}"
    async with service(tmp_path, queue=queue) as running:
        send, sink = running.component(f"{parts}:Source"), running.component(picky)
        sink.down = True
        old = logs(("a", {}), ("b", {}))
        old.request = type(old.request)(1_000_000_000, old.request.key)
        await send(old)
        await send(logs(("c", {})))
        lag = f'otelier_exporter_lag_items{{exporter="{picky}"}}'
        age = f'otelier_exporter_oldest_unsent_seconds{{exporter="{picky}"}}'
        numbers, _ = await page(running)
        assert (numbers[lag], numbers[age] > 1_000_000_000) == (3, True)
        sink.down = False
    assert running.stats.snapshot()[lag] == 0


async def test_names_without_suffixes(tmp_path):
    """The switches of a reader: bare names, as the OpenTelemetry Collector has them by default."""
    bare = "{host: 127.0.0.1, port: 0, without_units: true, without_type_suffix: true, without_scope_info: true}"
    metrics = f"readers: [{{pull: {{exporter: {{prometheus: {bare}}}}}}}]"
    async with service(tmp_path, metrics) as running:
        numbers, _ = await page(running)
    assert {name for name in numbers if name.startswith("otelcol_process")} == {
        "otelcol_process_cpu_seconds",
        "otelcol_process_memory_rss",
        "otelcol_process_runtime_total_sys_memory_bytes",
        "otelcol_process_uptime",
    }


@pytest.mark.parametrize("metrics", ["level: none", f"level: none, {READER}", "readers: []", ""])
async def test_no_metrics(tmp_path, metrics):
    """`level: none` and an empty list switch them off; inside another program they are off anyway."""
    async with service(tmp_path, metrics) as running:
        assert running.own_metrics.endpoints == {}


async def test_a_port_in_use_that_was_asked_for(tmp_path):
    """The start fails in one line that names the section and the fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = (
            f"readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]"
        )
        with pytest.raises(StartFailed) as caught:
            async with service(tmp_path, metrics):
                pass
    assert str(caught.value) == (
        f'service::telemetry::metrics: cannot listen on "127.0.0.1:{port}": the address is in use; '
        "stop the other process or choose another endpoint"
    )


async def test_the_default_port_is_a_courtesy(tmp_path, caplog):
    """`collector run` shows them on 8888; when that is taken, the log says so and all else goes on."""
    other = tmp_path / "other"
    other.mkdir()
    async with (
        service(tmp_path, "", show=True) as one,
        service(other, "", show=True) as two,
    ):
        found = [*one.own_metrics.endpoints, *two.own_metrics.endpoints]
        assert two.health.state == "ready"
    assert found in (["localhost:8888"], [])
    text = (
        'no own metrics: cannot listen on "localhost:8888": the address is in use; stop the other'
    )
    assert len([line for line in caplog.messages if line.startswith(text)]) == 2 - len(found)


async def test_a_reload_moves_them(tmp_path):
    """New readers listen, old ones go; a reader that cannot listen changes nothing."""
    async with service(tmp_path) as running:
        before = dict(running.own_metrics.endpoints)
        same = running.config.telemetry
        await running.own_metrics.apply(same)
        assert running.own_metrics.endpoints == before
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            metrics = f"readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]"
            with pytest.raises(StartFailed):
                await running.reload(service(tmp_path, metrics).config)
        assert (await page(running))[0]["otelcol_process_uptime_seconds_total"] > 0
        await running.reload(service(tmp_path, "level: none").config)
        assert running.own_metrics.endpoints == {}


async def test_readers_that_push_are_named_in_the_log(caplog):
    """A periodic reader loads, and the log says that it has no effect."""
    stats = Stats()
    own = OwnMetrics(stats)
    text = (
        "yaml:{receivers: {otlp: {protocols: {http: }}}, exporters: {debug: }, service: {pipelines: "
        "{logs: {receivers: [otlp], exporters: [debug]}}, telemetry: {metrics: {readers: "
        "[{periodic: {exporter: {otlp: {}}}}]}}}}"
    )
    config = load([text])
    await own.apply(config.telemetry)
    assert own.endpoints == {}
    (line,) = caplog.messages
    assert line.startswith("service::telemetry::metrics::readers[0] has no effect: only pull")


def test_hostile_label_values():
    """What a configuration calls its components cannot break the page."""
    stats = Stats()
    stats.add("otelcol_exporter_sent_spans", 1, exporter='a"b\\c\nd')
    families = {family.name: family for family in OwnMetrics(stats).families(PrometheusReader())}
    text = render([families["otelcol_exporter_sent_spans_total"]]).decode()
    assert text.splitlines()[-1] == (
        'otelcol_exporter_sent_spans_total{exporter="a\\"b\\\\c\\nd"} 1'
    )


async def test_a_refusal_of_us_is_not_cut(tmp_path):
    """A wrong credential: the request becomes one dead letter, not as many attempts as it has items."""
    picky = f"{__name__}:Picky"
    async with service(tmp_path) as running:
        send, sink = running.component(f"{parts}:Source"), running.component(picky)
        sink.denies = True
        await send(logs(*((str(each), {}) for each in range(100))))
        letters = f'otelier_exporter_dead_letters_total{{exporter="{picky}",reason="refused"}}'
        await until(running, lambda all_: all_.get(letters) == 100)
    assert sink.calls == 1
