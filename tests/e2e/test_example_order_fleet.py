"""examples/order_fleet as a reader would run it: nine processes, a Redis, a collector, one question."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.test_run import READY, Collector

pytestmark = pytest.mark.e2e

MAIN = Path(__file__).parents[2] / "examples" / "order_fleet" / "main.py"
ORDERS = 12


def ask(endpoint, *words):
    """What the collector's CLI prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", *words, "--json", "--endpoint", endpoint],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, redis_url):
    """What the example printed, the answers for three orders, and everything that was stored."""
    folder = tmp_path_factory.mktemp("fleet")
    with Collector(folder) as collector:
        collector.wait_for(READY)
        done = subprocess.run(
            [sys.executable, str(MAIN), "--orders", str(ORDERS)],
            env={
                "PATH": os.environ["PATH"],
                "REDIS_URL": redis_url,
                # contrib's spans of redis commands are here for other tests
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://"
                + collector.address("receivers::otlp", "http"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
        endpoint = "http://" + collector.address("extensions::query", "http")
        answers = {
            number: json.loads(ask(endpoint, "trace", f"ORDER-{number}"))
            for number in (12345, 12346, 12347)
        }
        correlation_id = spans(answers[12345])[0]["context"]["correlation_id"]
        answers["correlation"] = json.loads(ask(endpoint, "trace", correlation_id))
        assert collector.stop() == 0
    lines = (folder / "data" / "telemetry.jsonl").read_text().splitlines()
    return done.stdout, answers, [json.loads(line) for line in lines]


def spans(answer):
    return [row["span"] for trace in answer["traces"] for row in trace["rows"]]


def logs(answer):
    return [
        log for trace in answer["traces"] for row in trace["rows"] for log in row.get("logs", [])
    ]


def test_it_prints_what_to_ask(fleet):
    """Ten of twelve orders go their way, two have an unknown instrument; the question comes last."""
    printed, _, _ = fleet
    assert printed == (
        "12 orders through 9 roles: 10 done, 2 failed\ncollector trace ORDER-12345\n"
    )


def test_an_order_is_followed_across_its_roles(fleet):
    """O4: one answer has the spans and records of four processes, in one trace, in their order."""
    _, answers, _ = fleet
    answer = answers[12345]
    assert len(answer["traces"]) == 1
    by_id = {span["span_id"]: span for span in spans(answer)}
    way = [
        (span["service"], span["name"], by_id.get(span.get("parent_span_id"), {}).get("service"))
        for span in by_id.values()
    ]
    assert way == [
        ("dispatcher", "process dispatcher", None),
        ("orders_calculated", "process orders_calculated", "dispatcher"),
        ("orders_calculated", "margin_calculation", "orders_calculated"),
        ("worker_open", "process worker_open", "orders_calculated"),
        ("worker_close", "process worker_close", "worker_open"),
    ]
    told = [(log["service"], log["event"], log["context"]["order_id"]) for log in logs(answer)]
    assert told == [
        ("dispatcher", "order.dispatched", "ORDER-12345"),
        ("orders_calculated", "order.calculated", "ORDER-12345"),
        ("worker_open", "order.opened", "ORDER-12345"),
        ("worker_close", "order.closed", "ORDER-12345"),
    ]


def test_the_correlation_id_leads_to_the_same_story(fleet):
    """O4: asking by correlation id gives what asking by order id gives."""
    _, answers, _ = fleet
    assert answers["correlation"]["traces"] == answers[12345]["traces"]


def test_a_failed_order_has_its_exception_and_its_mark(fleet):
    """O1, O2: the failure is stored once with its stack, marked for the shared error file."""
    _, answers, _ = fleet
    failed = [log for log in logs(answers[12346]) if "exception" in log]
    (log,) = failed
    assert (log["level"], log["event"]) == ("ERROR", "order.process.exception")
    assert (log["exception"]["type"], log["exception"]["message"]) == ("KeyError", "'NOSUCH'")
    assert "roles.py" in log["exception"]["stacktrace"]
    assert log["attributes"]["order.worker.errors"] == "provider_errors"
    assert log["attributes"]["order.worker.role"] == "orders_calculated"
    assert [log["event"] for log in logs(answers[12346])][-1] == "order.failed"


def test_retries_and_fallbacks_are_events_of_the_order(fleet):
    """O5: what was repeated is a WARNING in the order's story."""
    _, answers, stored = fleet
    (retry,) = [log for log in logs(answers[12347]) if log["event"] == "order.process.retry"]
    assert (retry["level"], retry["service"]) == ("WARNING", "worker_open")
    assert retry["attributes"]["order.reason"] == "provider_timeout"
    fallbacks = [d for d in stored if d.get("event") == "order.process.fallback"]
    assert {d["attributes"]["order.reason"] for d in fallbacks} == {"database"}


def test_every_process_writes_its_last_statistics(fleet):
    """O3: each role tells its numbers when it is stopped, and the counts agree with the metrics."""
    _, _, stored = fleet
    processed = {
        document["service"]: document["attributes"]["worker.report.total"]["processed_count"]
        for document in stored
        if document.get("event") == "worker.statistics"
        and document["attributes"]["worker.report.reason"] == "shutdown"
    }
    expected = {
        "dispatcher": 12,
        "orders_calculated": 8,
        "worker_open": 6,
        "worker_close": 3,
        "worker_stoploss": 1,
        "worker_takeprofit": 2,
        "worker_pending": 2,
        "worker_cancel": 2,
        "worker_reject": 2,
    }
    assert processed == expected
    counted = Counter()
    for document in stored:
        if document.get("name") == "order.process.outcomes":
            labels = document["attributes"]
            key = (labels["order.worker.role"], labels["order.outcome"])
            counted[key] = max(counted[key], document["value"])
    totals = Counter()
    for (role, _), value in counted.items():
        totals[role] += value
    assert totals == expected


def test_the_audit_stream_has_no_gaps(fleet):
    """O6: each worker numbers its life-cycle records from 1 without a hole."""
    _, _, stored = fleet
    streams = {}
    for document in stored:
        attributes = document.get("attributes", {})
        if "order.sequence" in attributes:
            streams.setdefault(attributes["order.worker.instance"], []).append(
                attributes["order.sequence"]
            )
    assert len(streams) == 9
    for numbers in streams.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
