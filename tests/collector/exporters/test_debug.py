"""The debug exporter: what it shows, and that data cannot steer a terminal."""

import logging
import re

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.exporters.debug import Debug, Sampling
from collector.model import Batch, Host, Request, Signal
from collector.stats import Stats

pytestmark = pytest.mark.anyio

BEGIN = 1_700_000_000_000_000_000


def traces(count=2):
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add().scope_spans.add()
    for number in range(1, count + 1):
        span = group.spans.add(
            trace_id=bytes(15) + b"\1",
            span_id=number.to_bytes(8, "big"),
            name=f"GET /{number}",
            start_time_unix_nano=BEGIN,
            end_time_unix_nano=BEGIN + 1_500_000,
        )
        span.attributes.add(key="http.route").value.string_value = "/{id}"
    return Batch(Signal.TRACES, message, Request(BEGIN, b"k" * 16))


def logs(body="hello"):
    message = ExportLogsServiceRequest()
    group = message.resource_logs.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    record = group.scope_logs.add().log_records.add(time_unix_nano=BEGIN, severity_number=17)
    record.body.string_value = body
    record.attributes.add(key="n").value.int_value = 5
    return Batch(Signal.LOGS, message, Request(BEGIN, b"k" * 16))


def metrics():
    message = ExportMetricsServiceRequest()
    group = message.resource_metrics.add().scope_metrics.add()
    for name in ("queue", "orders"):
        points = group.metrics.add(name=name).gauge.data_points
        for value in (1, 2):
            points.add(time_unix_nano=BEGIN, as_int=value)
    group.metrics.add(name="empty")
    return Batch(Signal.METRICS, message, Request(BEGIN, b"k" * 16))


def exporter(**settings):
    host = Host("debug", Stats(), logging.getLogger("collector.component.debug"))
    return Debug(Debug.Config(**settings), host)


async def shown(caplog, debug, *batches):
    with caplog.at_level(logging.INFO):
        for batch in batches:
            await debug(batch)
    return [record.getMessage() for record in caplog.records]


async def test_basic_is_one_line_of_counts_per_batch(caplog):
    """Titles and count names are the OpenTelemetry Collector's."""
    assert await shown(caplog, exporter(), traces(), metrics(), logs()) == [
        'Traces {"resource spans": 1, "spans": 2}',
        'Metrics {"resource metrics": 1, "metrics": 3, "data points": 4}',
        'Logs {"resource logs": 1, "log records": 1}',
    ]


async def test_normal_adds_one_line_per_item(caplog):
    """Each item shows what people look for first, then its attributes."""
    debug = exporter(verbosity="normal", sampling_initial=100)
    trace_id = "0" * 31 + "1"
    assert await shown(caplog, debug, traces(), logs(), metrics()) == [
        (
            'Traces {"resource spans": 1, "spans": 2}\n'
            f"Span GET /1 {trace_id} 0000000000000001 1.500ms UNSET"
            " service=unknown_service http.route=/{id}\n"
            f"Span GET /2 {trace_id} 0000000000000002 1.500ms UNSET"
            " service=unknown_service http.route=/{id}"
        ),
        'Logs {"resource logs": 1, "log records": 1}\nLog record ERROR hello service=shop n=5',
        (
            'Metrics {"resource metrics": 1, "metrics": 3, "data points": 4}\n'
            "Metric point queue gauge 1 service=unknown_service\n"
            "Metric point queue gauge 2 service=unknown_service\n"
            "Metric point orders gauge 1 service=unknown_service\n"
            "Metric point orders gauge 2 service=unknown_service"
        ),
    ]


async def test_detailed_shows_the_whole_document(caplog):
    """Nested values are indented under their key."""
    (text,) = await shown(caplog, exporter(verbosity="detailed"), logs())
    title, item, *rest = text.split("\n")
    assert (title, item) == ('Logs {"resource logs": 1, "log records": 1}', "Log record #0")
    blocks = re.split(r"\n(?=    \S)", "\n".join(rest))
    assert sorted(blocks) == [
        "    _id: 6553f1006b6b6b6b6b6b6b6b",
        "    attributes:\n        n: 5",
        "    level: ERROR",
        "    message: hello",
        "    received_at: 2023-11-14T22:13:20Z",
        "    resource:\n        service.name: shop",
        "    service: shop",
        "    severity_number: 17",
        "    time_unix_nano: 1700000000000000000",
        "    timestamp: 2023-11-14T22:13:20Z",
    ]


@pytest.mark.parametrize("verbosity", ["normal", "detailed"])
async def test_control_characters_are_escaped(caplog, verbosity):
    """Escape sequences, line breaks and direction marks in data arrive as harmless text."""
    hostile = "a\x1b[2Jb\nc\rd\u202ee\x9bf\u2028g"
    (text,) = await shown(caplog, exporter(verbosity=verbosity), logs(hostile))
    assert "a\\x1b[2Jb\\nc\\rd\\u202ee\\x9bf\\u2028g" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_sampling_shows_the_first_and_then_each_nth():
    """Within one second, two batches and then every third are shown."""
    sampling = Sampling(initial=2, thereafter=3)
    assert [number for number in range(1, 12) if sampling.shows(7)] == [1, 2, 5, 8, 11]


def test_sampling_begins_again_with_each_second():
    """A quiet program is always shown, however much it sent before."""
    sampling = Sampling(initial=1, thereafter=0)
    shown = [sampling.shows(second) for second in (1, 1, 1, 2, 2)]
    assert shown == [True, False, False, True, False]


async def test_output_paths_write_to_the_terminal(capfd):
    """Without the internal logger the text goes to the named streams, and nowhere else."""
    debug = exporter(use_internal_logger=False, output_paths=["stdout", "stderr"])
    await debug(logs())
    line = 'Logs {"resource logs": 1, "log records": 1}\n'
    assert capfd.readouterr() == (line, line)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"output_paths": ["x.log"]}, "use the file exporter to write files"),
        ({"sampling_initial": -1}, "must not be negative"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, text):
    """A setting out of range is an error with its fix."""
    with pytest.raises(ValueError, match=text):
        Debug.Config(**settings)
