"""Beside other telemetry packages: one owner of the providers, and nothing arrives twice."""

import pytest

WORK = """
import logging
from opentelemetry import trace
with trace.get_tracer("t").start_as_current_span("work"):
    with telemetry.log_context(correlation_id="c-1"):
        logging.getLogger("shop").warning("one")
        telemetry.get_logger("shop").warning("two")
"""
SENTRY = """
import sentry_sdk, telemetry
sentry_sdk.init(dsn=None, traces_sample_rate=1.0, enable_logs=True)
"""
LOGFIRE_FIRST = """
import logfire
logfire.configure(send_to_logfire=False, console=False)
import telemetry
telemetry.configure()
"""
LOGFIRE_LAST = """
import telemetry
telemetry.configure()
import logfire
logfire.configure(send_to_logfire=False, console=False)
"""


@pytest.mark.parametrize(
    ("package", "code", "wrapped"),
    [
        ("sentry_sdk", SENTRY, True),
        ("sentry_sdk", SENTRY + "telemetry.configure()\n", False),
        ("logfire", LOGFIRE_FIRST, False),
        ("logfire", LOGFIRE_LAST, False),
        ("logfire", LOGFIRE_LAST, True),
    ],
    ids=["sentry wrapped", "sentry", "logfire first", "logfire last", "logfire wrapped"],
)
def test_everything_arrives_once_with_its_ids(run, receiver, package, code, wrapped):
    """One span and two records, each once, with the ids of the scope, whoever was first."""
    pytest.importorskip(package)
    run(
        code + WORK + "telemetry.shutdown()\n",
        wrapped=wrapped,
        endpoint=receiver.url,
        PYTHONWARNINGS="default",
        OTEL_METRICS_EXPORTER="none",
        LOGFIRE_IGNORE_NO_CONFIG="1",
    )
    assert [span["name"] for span in receiver.spans] == ["work"]
    records = [log for log in receiver.logs if log["logger"] == "shop"]
    assert [log["message"] for log in records] == ["one", "two"]
    assert {log["attributes"].get("correlation.id") for log in records} == {"c-1"}
    assert {log["trace_id"] for log in records} == {receiver.spans[0]["trace_id"]}
