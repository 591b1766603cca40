"""Every way out of the process passes the policy: all signals, all sinks (R7, B63, B64, trap 24)."""

import json
import logging
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Status, StatusCode

import telemetry
from telemetry import Redaction
from telemetry._logs import format as formats
from telemetry.testing import capture
from tests.canaries import EMAIL, SECRETS, WALLET

ROOT = str(Path(__file__).parents[3])
PREAMBLE = """
import logging, sys
import telemetry
from opentelemetry import trace, metrics, baggage, propagate
from opentelemetry._logs import LogRecord, get_logger
from opentelemetry.trace import Link, Status, StatusCode
from tests.canaries import SECRETS, EMAIL, WALLET
"""

# Everything that OTLP can carry, filled with secrets.
EMIT = """
telemetry.configure(
    service_name="shop", log_format=FORMAT, resource_attributes={"db.password": "resource9secret"}
)
first = trace.SpanContext(1, 2, is_remote=True)
meter = metrics.get_meter("meter password=scope9secret", attributes={"token": "scope9token"})
counter = meter.create_counter("calls." + WALLET, description="password=metric9text")
for number, (secret, name, value) in enumerate(SECRETS):
    text = value if name is None else f"{name}={value!r}"
    attributes = {name or "text": value}
    links = [Link(first, attributes)]
    with trace.get_tracer("app").start_as_current_span(text, attributes=attributes, links=links) as span:
        span.add_event(text, attributes)
        span.set_status(Status(StatusCode.ERROR, text))
        counter.add(1, attributes)
        telemetry.get_logger("app").info(text, **{"extra": attributes})
        get_logger("app").emit(LogRecord(body={"inner": [text, attributes]}, attributes=attributes))
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("app").exception("failed %s", text)
telemetry.track("order.opened", wallet=WALLET, mail=EMAIL)
assert telemetry.flush(30)
print(telemetry.report())
"""


def sent(receiver):
    """All that arrived, as text."""
    return "".join(
        message.SerializeToString().decode("utf-8", "replace") for _, message in receiver.requests
    )


def leaked(text):
    return [secret for secret, _, _ in SECRETS if secret in text]


def test_nothing_secret_is_sent_or_printed(run, receiver):
    """B63: a hundred secrets in each part of each signal, over a real socket and on stderr."""
    done = run(
        PREAMBLE + EMIT.replace("FORMAT", '"json"'),
        endpoint=receiver.url,
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="50",
        OTEL_METRICS_EXEMPLAR_FILTER="always_on",
        PYTHONPATH=ROOT,
    )
    assert {path for path, _ in receiver.requests} == {"/v1/traces", "/v1/logs", "/v1/metrics"}
    everything = sent(receiver)
    for text in (everything, done.stderr):
        assert leaked(text) == []
        for given in (WALLET, EMAIL, "9secret", "9token", "9text"):
            assert given not in text
    assert f"{WALLET[:10]}..." in everything
    assert len(receiver.spans) == 100
    assert len(receiver.logs) == 301
    assert len(done.stderr.splitlines()) == 200
    assert [json.loads(line)["level"] for line in done.stderr.splitlines()][:2] == ["INFO", "ERROR"]
    ledger = eval(done.stdout)
    assert {signal: row["exported"] for signal, row in ledger.items() if signal != "metrics"} == {
        "traces": 100,
        "logs": 301,
    }
    for signal in ("traces", "logs", "metrics"):
        assert ledger[signal]["dropped"] == {}
        assert {"secret", "jwt", "card"} <= set(ledger[signal]["redacted"])
        assert "failed" not in ledger[signal]["redacted"]


@pytest.mark.parametrize("style", ["text", "logfmt"])
def test_nothing_secret_is_in_other_lines(run, refused, style):
    """The text and logfmt lines of stderr, tracebacks included."""
    code = (
        PREAMBLE
        + f"""
telemetry.configure(log_format={style!r}, traces_exporter="none", logs_exporter="none")
for secret, name, value in SECRETS:
    text = value if name is None else f"{{name}}={{value!r}}"
    try:
        raise ValueError(text)
    except ValueError:
        telemetry.get_logger("app").exception(text, **{{"extra": {{name or "text": value}}}})
"""
    )
    lines = run(code, endpoint=refused, OTEL_METRICS_EXPORTER="none", PYTHONPATH=ROOT).stderr
    assert lines.count("Traceback") == 100
    assert leaked(lines) == []


@pytest.mark.parametrize("style", sorted(formats.FORMATS))
def test_formatters_of_an_applications_own_handler_redact(style):
    """Also without configure(): a file handler of the application with one of our formats."""
    record = logging.LogRecord("app", 20, "a.py", 1, "password=%s", ("hunter2",), None)
    record.__dict__.update(token="hunter3", wallet=WALLET)
    line = formats.FORMATS[style]().format(record)
    assert "hunter" not in line
    assert line.count("[REDACTED]") == 2
    assert f"{WALLET[:10]}..." in line
    assert WALLET not in line


def test_the_console_exporter_and_exporters_added_by_hand_see_redacted_records(run, receiver):
    """Trap 24: stock exporters, processors and readers of others, added before or after ours."""
    code = (
        PREAMBLE
        + """
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry._logs import get_logger_provider
telemetry.configure(
    log_format="none", traces_exporter="otlp,console", logs_exporter="otlp,console", metrics_exporter="console"
)
spans, logs, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
get_logger_provider().add_log_record_processor(SimpleLogRecordProcessor(logs))
metrics.get_meter_provider().add_metric_reader(reader)
for secret, name, value in SECRETS:
    attributes = {name or "text": value}
    with trace.get_tracer("app").start_as_current_span("a", attributes=attributes):
        logging.getLogger("app").warning("x %s", value if name is None else "", extra=attributes)
        metrics.get_meter("app").create_counter("calls").add(1, attributes)
assert telemetry.flush(30)
finished = spans.get_finished_spans(), logs.get_finished_logs()
assert [len(found) for found in finished] == [100, 100], finished
print([span.to_json() for span in finished[0]], [log.to_json() for log in finished[1]])
print(reader.get_metrics_data().to_json())
"""
    )
    done = run(code, endpoint=receiver.url, PYTHONPATH=ROOT)
    assert done.stdout.count('"name": "a"') >= 200
    assert leaked(done.stdout) == []
    assert leaked(sent(receiver)) == []


def test_a_log_processor_of_others_still_changes_records():
    """A redactor or enricher of the application works on a copy, and the record follows it."""
    from opentelemetry._logs import get_logger_provider
    from opentelemetry.sdk._logs import LogRecordProcessor

    class Enricher(LogRecordProcessor):
        given = None

        def on_emit(self, log_record):
            record = log_record.log_record
            if record.body != "enriched":
                return
            self.given = dict(record.attributes)
            record.attributes["added"] = "password=hunter3"
            record.attributes["changed"] = "new"
            del record.attributes["removed"]

        def shutdown(self):
            pass

        def force_flush(self, timeout_millis=30000):
            return True

    enricher = Enricher()
    with capture() as captured:
        get_logger_provider().add_log_record_processor(enricher)
        telemetry.get_logger("app").info("enriched", changed="old", removed="x", token="hunter2")
    assert {enricher.given[name] for name in ("changed", "removed", "token")} == {
        "old",
        "x",
        "[REDACTED]",
    }
    assert captured.logs[0]["attributes"] == {
        "changed": "new",
        "token": "[REDACTED]",
        "added": "password=[REDACTED]",
    }


def test_a_capture_shows_what_leaves():
    """The test kit sees names, attributes, events, links, status, bodies, exceptions and points."""
    link = Link(trace.SpanContext(1, 2, is_remote=True), {"token": "hunter1"})
    with capture() as captured:
        tracer = trace.get_tracer("app")
        with tracer.start_as_current_span(f"pay {WALLET}", links=[link]) as span:
            span.set_attributes({"url.query": "page=1&code=hunter2", "items": 3})
            span.add_event("login password=hunter3", {"user.email": EMAIL})
            span.set_status(Status(StatusCode.ERROR, "token=hunter4"))
            telemetry.get_logger("app").info("mail to %s", EMAIL, order_id="o-1")
        counter = metrics.get_meter("app").create_counter("payments")
        counter.add(1, {"wallet": WALLET})
        counter.add(2, {"wallet": WALLET[:-1] + "0"})
    short = f"{WALLET[:10]}..."
    assert captured.spans == [
        {
            "name": f"pay {short}",
            "trace_id": 1,
            "span_id": 1,
            "parent_id": None,
            "start": 1,
            "end": 4,
            "kind": "INTERNAL",
            "status": "ERROR",
            "status_message": "token=[REDACTED]",
            "attributes": {"url.query": "page=1&code=[REDACTED]", "items": 3},
            "events": [
                {
                    "name": "login password=[REDACTED]",
                    "time": 3,
                    "attributes": {"user.email": "a...@example.com"},
                }
            ],
            "links": [{"trace_id": 1, "span_id": 2, "attributes": {"token": "[REDACTED]"}}],
        }
    ]
    (record,) = captured.logs
    assert record["message"] == "mail to a...@example.com"
    assert record["attributes"] == {"order.id": "o-1"}
    assert captured.metrics == [
        {
            "name": "payments",
            "kind": "sum",
            "unit": "",
            "attributes": {"wallet": short},
            "value": 3,
        }
    ]


def test_histograms_that_become_one_are_added():
    """Two series that differ in a secret only: counts, sums and buckets of both."""
    with capture() as captured:
        histogram = metrics.get_meter("app").create_histogram(
            "took", explicit_bucket_boundaries_advisory=[1, 10]
        )
        histogram.record(0.5, {"token": "hunter2"})
        histogram.record(20, {"token": "hunter3"})
        histogram.record(5, {"token": "hunter4"})
    (point,) = captured.metrics
    assert (point["attributes"], point["count"], point["sum"]) == ({"token": "[REDACTED]"}, 3, 25.5)


def test_a_capture_can_try_a_policy():
    """Own rules are tested as they will run; afterwards the process's policy is back."""
    redaction = Redaction(keys=["iban"], modes={"wallet": "mask"})
    with capture(redaction=redaction) as captured:
        telemetry.get_logger("app").info("paid", iban="DE1", wallet=WALLET)
    assert captured.logs[0]["attributes"] == {"iban": "[REDACTED]", "wallet": "[REDACTED]"}
    with capture() as captured:
        telemetry.get_logger("app").info("paid", iban="DE1")
    assert captured.logs[0]["attributes"] == {"iban": "DE1"}
    with (
        pytest.raises(telemetry.ConfigError, match="blur"),
        capture(redaction=Redaction(modes={"email": "blur"})),
    ):
        pass


def test_a_raising_rule_drops_the_value_and_says_so_once(run, receiver):
    """B64: at each sink; the record arrives, the value does not, and the report counts it."""
    code = """
    import telemetry
    def strict_rule(text):
        if "hunter" in text:
            raise RuntimeError(text)
        return text
    telemetry.configure(redaction=telemetry.Redaction(rules=[strict_rule]), log_format="text")
    for number in range(3):
        with telemetry.span("work", note=f"hunter{number}"):
            telemetry.get_logger("app").info(f"hunter{number}", step=number)
    assert telemetry.flush(30)
    print(telemetry.report()["logs"]["redacted"], telemetry.report()["traces"]["redacted"])
    """
    done = run(code, endpoint=receiver.url)
    assert done.stdout == "{'failed': 3} {'failed': 3}\n"
    assert receiver.messages == ["[REDACTION FAILED]"] * 3
    assert [span["attributes"]["note"] for span in receiver.spans] == ["[REDACTION FAILED]"] * 3
    assert [record["attributes"]["step"] for record in receiver.logs] == [0, 1, 2]
    assert "hunter" not in done.stderr + sent(receiver)
    said = [line for line in done.stderr.splitlines() if line.startswith("otelier:")]
    assert said == [
        "otelier: redaction failed, so a value is not sent: strict_rule raised RuntimeError"
    ]


def test_baggage_leaves_redacted():
    """What others have put into baggage goes out with our headers, but not its secrets."""
    from opentelemetry import baggage, propagate
    from opentelemetry.context import attach, detach

    with capture():
        context = baggage.set_baggage("user_email", EMAIL)
        context = baggage.set_baggage("api_key", "hunter2", context)
        context = baggage.set_baggage("shop", "berlin", context)
        token = attach(context)
        headers = {}
        with telemetry.log_context(correlation_id="c-1"):
            propagate.inject(headers)
        detach(token)
    assert sorted(headers["baggage"].split(",")) == [
        "api_key=%5BREDACTED%5D",
        "correlation.id=c-1",
        "shop=berlin",
        "user_email=a...%40example.com",
    ]


def test_own_messages_are_redacted(run):
    """What we say about ourselves may quote an exporter, and that its endpoint."""
    code = """
    import telemetry
    from telemetry import _diagnostics
    telemetry.configure(log_format="none", endpoint="http://shop:hunter2@127.0.0.1:9")
    telemetry.get_logger("app").info("hello")
    telemetry.flush(5)
    """
    stderr = run(code, OTEL_METRICS_EXPORTER="none").stderr
    assert "logs do not reach http://shop:[REDACTED]@127.0.0.1:9" in stderr
    assert "hunter2" not in stderr


def test_a_bad_rule_under_the_wrapper_makes_redaction_strict(run, receiver):
    """Nobody gets less redaction than was asked for because of a typing error; said on stderr."""
    code = """
    import telemetry
    telemetry.get_logger("app").info("hello", note="Ann", items=3)
    telemetry.flush(30)
    """
    done = run(
        code,
        endpoint=receiver.url,
        wrapped=True,
        LOG_FORMAT="none",
        TELEMETRY_REDACTION_PATTERNS='{"ann": "(A+n)+"}',
    )
    assert "TELEMETRY_REDACTION_PATTERNS: redaction pattern 'ann': a repeat within" in done.stderr
    assert "redaction is strict until its settings are corrected" in done.stderr
    (record,) = receiver.logs
    assert (record["attributes"]["note"], record["attributes"]["items"]) == ("[REDACTED]", 3)


def test_a_configuration_file_of_the_sdk_is_named(run, receiver):
    """OTEL_CONFIG_FILE would go round our processors; our configurator does not read it and says so."""
    code = """
    import telemetry
    telemetry.get_logger("app").info("password=hunter2")
    telemetry.flush(30)
    """
    done = run(code, endpoint=receiver.url, wrapped=True, OTEL_CONFIG_FILE="otel.yaml")
    assert "OTEL_CONFIG_FILE is not read" in done.stderr
    assert receiver.messages == ["password=[REDACTED]"]


def test_off_is_off(run, receiver):
    """Who switches it off gets everything, and an empty column in the report."""
    code = """
    import telemetry
    telemetry.configure(redaction="off", log_format="json")
    telemetry.get_logger("app").info("password=hunter2")
    assert telemetry.flush(30)
    assert "redacted" not in telemetry.report()["logs"]
    """
    done = run(code, endpoint=receiver.url)
    assert receiver.messages == ["password=hunter2"]
    assert "hunter2" in done.stderr


def test_without_redaction_all_of_it_would_leave(run, receiver):
    """The hundred secrets do reach each signal: what the first test finds masked was there."""
    code = PREAMBLE + EMIT.replace("FORMAT", '"json", redaction="off"')
    done = run(code, endpoint=receiver.url, PYTHONPATH=ROOT)
    everything = sent(receiver)
    assert len(leaked(everything)) == len(SECRETS)
    assert all(given in everything for given in (WALLET, EMAIL, "9secret", "9token", "9text"))
    assert len(leaked(done.stderr)) > 90  # others are there with their line breaks escaped


def test_exporters_of_a_provider_that_was_there_before_are_named(run, receiver):
    """What we do not cover is said: exporters that were added to a provider before ours."""
    code = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)
    import telemetry
    telemetry.configure(log_format="none")
    with telemetry.span("a", token="hunter2"):
        pass
    """
    done = run(code, endpoint=receiver.url)
    assert "exporters that were set up for traces before telemetry.configure()" in done.stderr
    assert receiver.spans[0]["attributes"] == {"token": "[REDACTED]"}


def test_what_is_spooled_is_redacted(run, refused, tmp_path):
    """Files that outlive the process hold what the exporter would have got."""
    code = """
    import telemetry
    telemetry.configure(log_format="none")
    telemetry.get_logger("app").info("password=hunter2", token="hunter3")
    with telemetry.span("a", wallet="0x52908400098527886E0F7030069857D2E4169EE7"):
        pass
    """
    folder = tmp_path / "spool"
    run(code, endpoint=refused, TELEMETRY_SPOOL_DIR=str(folder), TELEMETRY_EXIT_TIMEOUT="1")
    spooled = b"".join(path.read_bytes() for path in folder.rglob("*.spool"))
    assert b"[REDACTED]" in spooled
    assert b"0x52908400..." in spooled
    assert b"hunter" not in spooled
    assert b"4169EE7" not in spooled
