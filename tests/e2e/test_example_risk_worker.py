"""examples/risk_worker as a reader would run it: the wrapper, a collector, and the printed question."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_run import READY, Collector

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WALLET = re.compile(r"0x[0-9a-f]{40}")


def work(endpoint):
    """Run the example; its results as {shortened wallet and score: correlation id}."""
    done = subprocess.run(
        [
            BIN / "opentelemetry-instrument",
            *("--service_name", "risk-worker"),
            *(sys.executable, ROOT / "examples" / "risk_worker" / "main.py"),
        ],
        env={"PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert WALLET.search(done.stdout + done.stderr) is None
    results = {}
    for line in done.stdout.splitlines():
        found, command, correlation_id = line.rpartition("collector trace ")
        assert command, line
        results[tuple(found.split())] = correlation_id
    return results


def ask(endpoint, question):
    """What `collector trace ID --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "trace", question, "--json", "--endpoint", endpoint],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The example's results, and the collector's answer for each."""
    folder = tmp_path_factory.mktemp("risk")
    with Collector(folder) as collector:
        collector.wait_for(READY)
        results = work("http://" + collector.address("receivers::otlp", "http"))
        endpoint = "http://" + collector.address("extensions::query", "http")
        texts = {key: ask(endpoint, correlation_id) for key, correlation_id in results.items()}
        assert collector.stop() == 0
    stored = (folder / "data" / "telemetry.jsonl").read_text()
    return texts, stored


def told(answers, wallet_and_score):
    """Spans, log lines and events of one analysis."""
    (trace,) = json.loads(answers[0][wallet_and_score])["traces"]
    spans = {row["span"]["name"]: row["span"] for row in trace["rows"]}
    logs = [log for row in trace["rows"] for log in row.get("logs", [])]
    logs.sort(key=lambda log: log["time_unix_nano"])
    return spans, logs, {log["event"]: log for log in logs if "event" in log}


MEDIUM = ("0xd474dc40...", "4500", "MEDIUM")
WITHOUT_MODEL = ("0x792ee5f0...", "1500", "LOW")


def test_one_id_leads_to_the_whole_analysis(answers):
    """R3, R4: spans of handler, ensemble, inference and stages, with the steps as log lines."""
    spans, logs, events = told(answers, MEDIUM)
    parents = {span["span_id"]: name for name, span in spans.items()}
    found = {(name, parents.get(span.get("parent_span_id"))) for name, span in spans.items()}
    assert found == {
        ("risk.analysis", None),
        ("evaluate risk.score", "risk.analysis"),
        ("infer wallet-risk", "evaluate risk.score"),
        ("features wallet-risk", "infer wallet-risk"),
        ("predict wallet-risk", "infer wallet-risk"),
        ("post wallet-risk", "infer wallet-risk"),
    }
    assert [log["message"] for log in logs if "event" not in log] == [
        "processing risk analysis",
        "blockchain data fetched",
        "risk score ensemble",
        "risk analysis completed",
        "risk.analysis completed",
    ]
    assert set(events) == {"risk.inference.finished", "risk.score.evaluated"}


def test_the_score_is_stored_with_all_its_parts(answers):
    """R3: numbers are numbers, and event and span say the same."""
    spans, _, events = told(answers, MEDIUM)
    span = spans["evaluate risk.score"]
    event = events["risk.score.evaluated"]["attributes"]
    shared = {key: value for key, value in event.items() if key.startswith("risk.")}
    assert shared == {
        key: value for key, value in span["attributes"].items() if key.startswith("risk.")
    }
    rules, model = shared["risk.score.rule_based"], shared["risk.score.ml"]
    assert shared["risk.score.ensemble"] == pytest.approx(0.6 * rules + 0.4 * model)
    kept = ("risk.score.final", "risk.band", "risk.adjustments", "risk.rules.fired")
    assert [shared[key] for key in kept] == [
        4500.0,
        "MEDIUM",
        ["no DeFi engagement -> 4500"],
        ["no_defi"],
    ]


def test_a_model_that_is_down_is_a_fallback(answers):
    """R3, R4: the rules decide, the fallback says why, the exception is stored once."""
    _, logs, events = told(answers, WITHOUT_MODEL)
    assert events["risk.score.evaluated"]["attributes"]["risk.fallback"] == "ml_timeout"
    assert [log["event"] for log in logs if "exception" in log] == ["risk.inference.exception"]
    assert events["risk.inference.exception"]["exception"]["type"] == "TimeoutError"
    finished = events["risk.inference.finished"]["attributes"]
    assert (finished["error.type"], finished["risk.inference.stage.name"]) == (
        "TimeoutError",
        "predict",
    )


def test_no_wallet_address_is_stored(answers):
    """R7: the file that holds everything has shortened addresses and hashes only."""
    texts, stored = answers
    assert len(texts) == 5
    assert stored.count('"risk.score.evaluated"') >= 5
    assert WALLET.search(stored) is None
