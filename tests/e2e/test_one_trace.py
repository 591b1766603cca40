"""One trace, end to end, on both stores: the wrapper, the collector, and every way to ask."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import READY, Collector

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Scene:
    """A collector on one store that has taken in the quickstart's trace."""

    def __init__(self, folder, collector, store):
        self.folder = folder
        self.collector = collector
        self.store = store
        self.endpoint = f"http://{collector.address('extensions::query', 'http')}"
        otlp = f"http://{collector.address('receivers::otlp', 'http')}"
        wrapper = str(BIN / "opentelemetry-instrument")
        example = str(ROOT / "examples" / "quickstart.py")
        ran = subprocess.run(
            [wrapper, "--service_name", "quickstart", sys.executable, example],
            env={
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            },
            capture_output=True,
            text=True,
            check=True,
        )
        self.trace_id = re.fullmatch(r"trace_id=([0-9a-f]{32})\n", ran.stdout)[1]
        self.console = ran.stderr

    def ask(self, *words, source=None):
        """One `collector` command against the running collector, or another source."""
        return subprocess.run(
            [str(BIN / "collector"), *words, *(source or ("--endpoint", self.endpoint))],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )

    def json(self, *words):
        answer = self.ask(*words, "--json")
        assert answer.returncode == 0, answer.stderr
        return answer.stdout


@pytest.fixture(scope="module", params=["sqlite", "mongodb"])
def scene(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    environ = {"TELEMETRY_STORE": request.param}
    store = "sqlite:///data/telemetry.db"
    if request.param == "mongodb":
        uri = request.getfixturevalue("mongodb_uri")
        environ |= {"MONGODB_URI": uri, "MONGODB_DATABASE": f"t_{folder.name}"}
        head, _, options = uri.partition("/?")
        store = f"{head.rstrip('/')}/t_{folder.name}?{options}"
    with Collector(folder, **environ) as collector:
        collector.wait_for(READY)
        yield Scene(folder, collector, store)
        assert collector.stop() == 0


def test_the_trace_is_a_waterfall_with_its_log_lines(scene):
    """D1, D2, D4: unchanged FastAPI code under the wrapper, asked for by its trace id."""
    answer = scene.ask("trace", scene.trace_id)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == f"trace {scene.trace_id}"

    def row(text):
        return next(number for number, line in enumerate(lines) if text in line)

    order = [
        "GET /orders/{order_id}/risk SERVER",
        "INFO    risk check started",
        "load order",
        "INFO    order loaded",
        "score risk",
        "ERROR   model did not answer, rules decide",
        "WARNING score is close to the limit",
    ]
    assert all(row(text) for text in order)
    assert row("load order") < row("INFO    order loaded") < row("score risk")
    assert row("score risk") < row("ERROR   model did not answer")
    assert "TimeoutError" in answer.stdout


def test_each_id_leads_to_the_same_trace(scene):
    """D1, D4: the correlation id and the order id find what the trace id finds."""
    by_trace = json.loads(scene.json("trace", scene.trace_id))
    (trace,) = by_trace["traces"]
    contexts = [row["span"].get("context", {}) for row in trace["rows"] if row.get("span")]
    ids = {context["correlation_id"] for context in contexts if "correlation_id" in context}
    assert len(ids) == 1
    by_correlation = json.loads(scene.json("trace", ids.pop()))
    assert by_correlation["traces"] == by_trace["traces"]
    assert json.loads(scene.json("trace", "o-1001"))["traces"] == by_trace["traces"]


def test_the_store_answers_as_the_collector_does(scene):
    """The same output over HTTP and straight from the store, as text and as JSON."""
    direct = ("--store", scene.store)
    for words in (
        ("trace", scene.trace_id),
        ("trace", scene.trace_id, "--json"),
        ("logs", "--trace-id", scene.trace_id),
        ("logs", "--trace-id", scene.trace_id, "--level", "warning", "--json"),
    ):
        over_http, from_store = scene.ask(*words), scene.ask(*words, source=direct)
        assert (over_http.returncode, over_http.stdout) == (0, from_store.stdout), from_store.stderr
        assert over_http.stdout


def test_logs_are_filtered(scene):
    """D4: level, service and attribute filters, each record as the document that is stored."""
    records = scene.json("logs", "--level", "warning", "--service", "quickstart").splitlines()
    assert [json.loads(record)["level"] for record in records] == ["ERROR", "WARNING"]
    (loaded,) = scene.json("logs", "--where", "items=3").splitlines()
    document = json.loads(loaded)
    assert document["message"] == "order loaded"
    assert document["trace"]["trace_id"] == scene.trace_id
    assert document["context"]["tenant_id"] == "shop-1"
    assert scene.ask("logs", "--text", "nobody said this").stdout == ""


def test_an_unknown_id_says_what_was_searched(scene):
    """D4: nothing found is exit 1, with the store and the kinds of ids that were looked at."""
    for source in (None, ("--store", scene.store)):
        answer = scene.ask("trace", "no-such-id", source=source)
        assert (answer.returncode, answer.stdout) == (1, "")
        assert answer.stderr.startswith("Not found: no-such-id\n")
        assert "correlation" in answer.stderr
        assert ("SQLite" in answer.stderr) or ("MongoDB" in answer.stderr)


def test_metrics_arrive_too(scene):
    """D1: the counter of the example is stored with its attributes, whatever the store."""
    with (scene.folder / "data" / "telemetry.jsonl").open() as lines:
        points = [json.loads(line) for line in lines if '"orders.scored"' in line]
    # Cumulative: each export repeats the sum, and the series stays one.
    assert points
    assert all(point["value"] == 1 for point in points)
    assert all(point["attributes"] == {"order.decision": "accept"} for point in points)
