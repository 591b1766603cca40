"""`collector run` as a real process: started, fed by stock exporters, stopped by signals."""

import contextlib
import json
import signal
import socket
import threading
import time
import urllib.request

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.programs import FREE_PORTS, READY, Collector

pytestmark = pytest.mark.e2e


def stored(folder):
    """The documents in the JSON lines file; every line must be whole."""
    text = (folder / "data" / "telemetry.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def emit(spans, logs, metrics):
    """One span with a log line inside, and one count, through the stock SDK."""
    resource = Resource({"service.name": "shop"})
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    logging = LoggerProvider(resource=resource, shutdown_on_exit=False)
    logging.add_log_record_processor(SimpleLogRecordProcessor(logs))
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=1e9)
    measuring = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    with tracing.get_tracer("shop").start_as_current_span("GET /orders") as span:
        logging.get_logger("shop").emit(body="order placed", severity_number=None)
        measuring.get_meter("shop").create_counter("orders").add(3)
    for provider in (tracing, logging, measuring):
        provider.shutdown()
    return f"{span.get_span_context().trace_id:032x}"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_stock_exporters_store_three_signals(tmp_path, protocol):
    """The shipped YAML takes spans, logs and metrics, and SIGTERM ends it with 0 and a report."""
    with Collector(tmp_path) as collector:
        collector.wait_for(READY)
        if protocol == "grpc":
            where = {"endpoint": collector.address("receivers::otlp", "grpc"), "insecure": True}
            trace_id = emit(GrpcSpans(**where), GrpcLogs(**where), GrpcMetrics(**where))
        else:
            where = "http://" + collector.address("receivers::otlp", "http") + "/v1/"
            trace_id = emit(
                HttpSpans(where + "traces"),
                HttpLogs(where + "logs"),
                HttpMetrics(where + "metrics"),
            )
        assert collector.stop() == 0
    by_kind = {
        next(key for key in ("message", "kind", "type") if key in d): d for d in stored(tmp_path)
    }
    assert {document["service"] for document in by_kind.values()} == {"shop"}
    assert by_kind["message"]["message"] == "order placed"
    assert by_kind["message"]["trace"]["trace_id"] == trace_id
    assert (by_kind["kind"]["name"], by_kind["kind"]["trace_id"]) == ("GET /orders", trace_id)
    assert (by_kind["type"]["name"], by_kind["type"]["value"]) == ("orders", 3)
    order = ["Starting GRPC server", "Starting HTTP server", READY, "Starting shutdown..."]
    order += ["received 1 log_records, 1 metric_points, 1 spans", "Shutdown complete."]
    places = [next(n for n, line in enumerate(collector.lines) if each in line) for each in order]
    assert places == sorted(places)


def test_health_and_durability_are_shown(tmp_path):
    """The banner names every listener and sink; health_check answers 200 at its address."""
    with Collector(tmp_path) as collector:
        collector.wait_for(READY)
        assert "telemetry.db" in collector.wait_for("exporters::sqlite: ")
        file = collector.wait_for("exporters::file: ")
        assert file.endswith("json lines in data/telemetry.jsonl (answered after fsync)")
        assert collector.address("extensions::query", "http")
        address = collector.address("extensions::health_check", "http")
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as response:
            assert response.status == 200
            assert json.load(response)["status"] == "Server available"
        assert collector.stop(signal.SIGINT) == 0


def request(identity):
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for number in range(10):
        records.add(time_unix_nano=1, severity_number=9).body.string_value = f"{identity}.{number}"
    return message.SerializeToString()


def send(url, worker, answered, stop):
    """Post batches until told to stop; remember those that were answered with 200."""
    for number in range(1_000_000):
        if stop.is_set():
            return
        identity = f"{worker}.{number}"
        post = urllib.request.Request(
            url, request(identity), {"Content-Type": "application/x-protobuf"}
        )
        try:
            with urllib.request.urlopen(post, timeout=10) as response:
                if response.status == 200:
                    answered.append(identity)
        except OSError:
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_everything_answered_is_stored(tmp_path, number):
    """R8, R1: senders go on while the collector is stopped or killed; nothing answered is lost."""
    answered, stop = [], threading.Event()
    with Collector(tmp_path) as collector:
        collector.wait_for(READY)
        url = f"http://{collector.address('receivers::otlp', 'http')}/v1/logs"
        senders = [
            threading.Thread(target=send, args=(url, worker, answered, stop)) for worker in range(4)
        ]
        for sender in senders:
            sender.start()
        while len(answered) < 100:
            time.sleep(0.01)
        code = collector.stop(number)
        stop.set()
        for sender in senders:
            sender.join()
    assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    if number is signal.SIGKILL:  # opening the file again cuts the line that the kill tore
        with Collector(tmp_path) as collector:
            collector.wait_for(READY)
            assert collector.stop() == 0
    found = [document["message"] for document in stored(tmp_path)]
    wanted = {f"{identity}.{part}" for identity in answered for part in range(10)}
    assert wanted - set(found) == set()
    assert len(found) == len(set(found))
    assert len(wanted) >= 1000


def test_port_in_use_is_one_line(tmp_path):
    """A taken port ends the start with 1, the component, the endpoint and the fix; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        sets = (*FREE_PORTS, f"receivers.otlp.protocols.http.endpoint={endpoint}")
        with Collector(tmp_path, sets=sets) as collector:
            assert collector.finish() == 1
    (error,) = [line for line in collector.lines if line.startswith("Error: ")]
    assert error.startswith("Error: cannot start receivers::otlp: ")
    assert endpoint in error
    assert "in use" in error
    assert "Traceback" not in collector.text
    assert READY not in collector.text


def test_unwritable_data_folder_is_one_line(tmp_path):
    """A data folder that cannot be made ends the start with 1, the path and the fix."""
    (tmp_path / "data").write_text("a file where the folder should be")
    with Collector(tmp_path) as collector:
        assert collector.finish() == 1
    (error,) = [line for line in collector.lines if line.startswith("Error: ")]
    assert "data" in error
    assert "Traceback" not in collector.text


GOOD = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}}
exporters: {debug: {}}
extensions: {health_check: {endpoint: "127.0.0.1:0"}}
service:
  extensions: [health_check]
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
"""
BROKEN = {
    "yaml": ("exporters: {debug: {}}", "exporters: {debug: {", ["failed to get config"]),
    "component": ("{debug: {}}", "{debug: {}, kafak: {}}", ['unknown type: "kafak"']),
    "key": ("{debug: {}}", "{debug: {verbosty: basic}}", ["invalid keys: verbosty", "verbosity"]),
    "dangling": (
        "exporters: [debug]",
        "exporters: [debg]",
        [
            'service::pipelines::traces: references exporter "debg" which is not configured',
            '"debug"',
        ],
    ),
    "several": (
        "{debug: {}}",
        "{debug: {verbosity: loud}, file: {}, health: {}}",
        ["verbosity", "path", 'unknown type: "health"'],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_configuration_is_refused_before_a_port_opens(tmp_path, case):
    """Every problem is named, the exit code is 1, and nothing listens at any time."""
    old, new, texts = BROKEN[case]
    assert old in GOOD
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        config = tmp_path / "collector.yaml"
        config.write_text((GOOD % port).replace(old, new))
        # The port is taken: a collector that opened it first would complain about that instead.
        with Collector(tmp_path, sets=(), config=config) as collector:
            assert collector.finish() == 1
    assert collector.lines[0].startswith("Error: ")
    assert [text for text in texts if text not in collector.text] == []
    assert collector.lines[-2] == "collector server run finished with error: invalid configuration"
    assert [word for word in ("Traceback", "in use", "Starting") if word in collector.text] == []


def test_default_configuration_is_in_the_working_folder(tmp_path):
    """`collector` alone runs otel-collector.yaml; its log level is obeyed, warnings are printed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "otel-collector.yaml").write_text(
        GOOD % port + "  telemetry: {logs: {level: WARN}, resource: {a: '${NOT_SET}'}}\n"
    )
    with Collector(tmp_path, sets=(), config=None) as collector:
        assert "\twarning\tcollector.service\t" in collector.wait_for("NOT_SET")
        while collector.process.poll() is None:  # without INFO no line says that it is ready
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
        assert collector.stop() == 0
    assert READY not in collector.text


def test_collector_alone_runs_in_any_folder(tmp_path):
    """Without a file it runs the built-in configuration, and says where the data is (issue 13: 5)."""
    folder = tmp_path / "empty"
    folder.mkdir()
    with Collector(folder, config=None, XDG_STATE_HOME=str(tmp_path / "state")) as collector:
        said = collector.wait_for("no otel-collector.yaml here")
        collector.wait_for(READY)
        assert collector.stop() == 0
    assert f"data in {tmp_path}/state/otelier (TELEMETRY_DATA); `collector init` writes" in said
    assert list(folder.iterdir()) == []
    assert (tmp_path / "state" / "otelier" / "telemetry.db").is_file()


def test_the_slower_core_is_said_at_the_start(tmp_path):
    """Where Python does the work of the native core, one warning says so and why."""
    with Collector(tmp_path, OTELIER_PURE_PYTHON="1") as collector:
        line = collector.wait_for("the pure-Python core runs, which is slower")
        assert "\twarning\t" in line
        assert line.endswith(": OTELIER_PURE_PYTHON=1 says so")
        collector.wait_for(READY)
        assert collector.stop() == 0


def test_hangup_reads_the_configuration_again(tmp_path):
    """SIGHUP does not stop the collector; the log says what became of it (more: test_reload.py)."""
    with Collector(tmp_path) as collector:
        collector.wait_for(READY)
        collector.process.send_signal(signal.SIGHUP)
        collector.wait_for("The configuration was read again: nothing else runs now")
        assert collector.stop() == 0


STUCK = """
import asyncio, pathlib, time
import msgspec

class Stuck:
    class Config(msgspec.Struct, frozen=True):
        pass
    def __init__(self, config, host, next=None):
        pass
    async def __aenter__(self):
        return self
    async def __aexit__(self, *exc):
        if pathlib.Path("in-thread").exists():
            await asyncio.to_thread(time.sleep, 3600)
        await asyncio.Event().wait()
"""
STUCK_YAML = """
receivers: {"stuck:Stuck": {}}
exporters: {debug: {}}
service: {pipelines: {traces: {receivers: ["stuck:Stuck"], exporters: [debug]}}}
"""


@pytest.fixture
def stuck(tmp_path):
    """A folder with a component that never stops, and its configuration."""
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "collector.yaml").write_text(STUCK_YAML)
    return tmp_path


def test_second_signal_stops_at_once(stuck):
    """A component that hangs does not hold the process when the operator asks twice."""
    with Collector(stuck, "--shutdown-timeout=1h", sets=(), config="collector.yaml") as collector:
        collector.wait_for(READY)
        collector.process.send_signal(signal.SIGTERM)
        collector.wait_for("Starting shutdown...")
        assert collector.stop(signal.SIGTERM) == -signal.SIGTERM


def test_shutdown_timeout_cuts_off_what_hangs(stuck):
    """The deadline ends the stop: exit 1, and the component that hung is named."""
    with Collector(stuck, "--shutdown-timeout=50ms", sets=(), config="collector.yaml") as collector:
        collector.wait_for(READY)
        assert collector.stop() == 1
    assert "receivers::stuck:Stuck did not stop in time and was cut off" in collector.text


def test_thread_that_hangs_does_not_hold_the_process(stuck):
    """A system call that never returns cannot be cancelled: the process ends all the same."""
    (stuck / "in-thread").touch()
    with Collector(stuck, "--shutdown-timeout=50ms", sets=(), config="collector.yaml") as collector:
        collector.wait_for(READY)
        assert collector.stop() == 1
    assert "stopping takes too long, giving up" in collector.text


@pytest.mark.parametrize("text", ["10", "1d", "-1s", "0s"])
def test_shutdown_timeout_must_be_a_duration(tmp_path, text):
    """A timeout that is none is wrong usage: exit 2 and the form to write."""
    with Collector(tmp_path, "--shutdown-timeout", text) as collector:
        assert collector.finish() == 2
    assert "--shutdown-timeout" in collector.text
