"""Our two processors beside processors of others: guarded, redacted once, and the order of things."""

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import telemetry
from telemetry import Redaction, _diagnostics
from telemetry._export.record_redactor import RecordRedactor
from telemetry._sdk.log_processor import LogPipeline
from telemetry._sdk.span_processor import SpanPipeline


class Bin:
    """A queue that keeps what it gets."""

    def __init__(self):
        self.got = []

    def put(self, item, size, *, important=False):
        self.got.append(item)

    def lose(self, reason):
        self.got.append(reason)


class Seen(LogRecordProcessor, SpanProcessor):
    """Keeps what it is shown, and does to a record what the test wants."""

    def __init__(self, change=lambda record: None):
        self.logs, self.spans, self.change = [], [], change

    def on_emit(self, log_record):
        record = log_record.log_record
        self.logs.append(
            (record.body, dict(record.attributes), dict(log_record.resource.attributes))
        )
        self.change(record)

    def on_end(self, span):
        self.spans.append((span.name, dict(span.attributes), dict(span.resource.attributes)))

    def shutdown(self):
        raise LookupError("no end")

    def force_flush(self, timeout_millis=0):
        raise LookupError("no flush")


SECRET = Resource({"service.name": "shop", "password": "hunter2"})


def log_pipeline(redaction=None, *others):
    queue, redactor = Bin(), RecordRedactor(redaction or Redaction())
    pipeline = LogPipeline(queue, redactor, flush=lambda _: True, as_facts=True)
    provider = LoggerProvider(
        resource=SECRET, shutdown_on_exit=False, multi_log_record_processor=pipeline
    )
    for other in others:
        provider.add_log_record_processor(other)

    def emit(body="sent to anna@example.org", **attributes):
        provider.get_logger("t").emit(
            LogRecord(body=body, severity_number=SeverityNumber.INFO, attributes=attributes)
        )
        (facts,) = redactor.logs(queue.got)
        queue.got.clear()
        return facts[4], facts[5], dict(facts[10].attributes)

    return emit, redactor


MASKED = {"service.name": "shop", "password": "[REDACTED]"}


def test_a_log_processor_of_somebody_else_sees_what_may_leave():
    """Body, attributes and resource are redacted before it, and sent as it has seen them."""
    seen = Seen()
    emit, redactor = log_pipeline(None, seen)
    sent = emit(password="hunter2", order="o-1")
    assert sent == seen.logs[0]
    assert sent == ("sent to a...@example.org", {"password": "[REDACTED]", "order": "o-1"}, MASKED)
    assert redactor.counts()["logs"]["email"] == 1


def test_hashes_are_made_once():
    """A value that is hashed before the others is not hashed again on its way out."""
    redaction = Redaction(keys={"customer": "hash"})
    alone, _ = log_pipeline(redaction)
    beside, _ = log_pipeline(redaction, Seen())
    assert alone(customer="c-1")[1] == beside(customer="c-1")[1] != {"customer": "c-1"}


def test_what_a_log_processor_puts_into_a_record_is_redacted_too():
    """Enrichers work: what they add, change and take away is what is sent, redacted."""

    def change(record):
        record.attributes["api_key"] = "sk-live-12345678"
        record.attributes["order"] = "o-2"
        del record.attributes["gone"]
        record.body = "for bob@example.org"

    emit, _ = log_pipeline(None, Seen(change))
    assert emit(order="o-1", gone=1) == (
        "for b...@example.org",
        {"order": "o-2", "api_key": "[REDACTED]"},
        MASKED,
    )


def test_a_log_processor_that_raises_is_said_and_passed_by(monkeypatch, capsys):
    """Nothing comes out of the call, and the record is sent."""
    monkeypatch.setattr(_diagnostics, "_said", {})

    def fail(record):
        raise LookupError("no room")

    emit, _ = log_pipeline(None, Seen(fail), Seen())
    assert emit("plain")[0] == "plain"
    assert "Seen raised LookupError: no room" in capsys.readouterr().err


def span_pipeline(*others):
    queue, redactor = Bin(), RecordRedactor(Redaction())
    pipeline = SpanPipeline(queue, redactor, flush=lambda _: True, ensure_handlers=lambda: None)
    provider = TracerProvider(
        resource=SECRET, shutdown_on_exit=False, active_span_processor=pipeline
    )
    for other in others:
        provider.add_span_processor(other)
    return provider, queue, redactor


def test_a_span_processor_of_somebody_else_sees_what_is_sent():
    """Redacted once: the object that it sees is the one that is delivered."""
    seen = Seen()
    provider, queue, redactor = span_pipeline(seen)
    provider.get_tracer("t").start_span("work", attributes={"password": "hunter2"}).end()
    (sent,) = redactor.spans(queue.got)
    assert seen.spans == [("work", {"password": "[REDACTED]"}, MASKED)]
    assert (sent.name, dict(sent.attributes), dict(sent.resource.attributes)) == seen.spans[0]
    assert redactor.counts() == {"traces": {"secret": 2}}


class Rude(SpanProcessor):
    """Raises wherever it is called."""

    def on_start(self, span, parent_context=None):
        raise LookupError("start")

    def _on_ending(self, span):
        raise LookupError("ending")

    def on_end(self, span):
        raise LookupError("end")

    def force_flush(self, timeout_millis=0):
        raise LookupError("flush")

    def shutdown(self):
        raise LookupError("shutdown")


def test_a_span_processor_that_raises_costs_nothing():
    """The block's own exception comes out of the block, and the span is delivered."""
    provider, queue, _ = span_pipeline(Rude())
    with (
        pytest.raises(ZeroDivisionError),
        provider.get_tracer("t").start_as_current_span("work"),
    ):
        raise ZeroDivisionError
    assert len(queue.got) == 1
    assert provider.force_flush() is False
    provider.shutdown()


def test_ids_of_the_scope_are_on_spans_and_records():
    """What is bound is on each span at its start, and on each record that does not have its own."""
    provider, queue, _ = span_pipeline()
    emit, _ = log_pipeline()
    with telemetry.log_context(order_id="o-1", user_id="u-1"):
        provider.get_tracer("t").start_span("work", kind=trace.SpanKind.SERVER).end()
        _, attributes, _ = emit("it", **{"user.id": "own"})
    assert dict(queue.got[0].attributes) == {"order.id": "o-1", "user.id": "u-1"}
    assert attributes == {"order.id": "o-1", "user.id": "own"}
