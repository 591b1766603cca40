"""examples/lead_batch as a reader would run it: in the background, stopped, and run again."""

import collections
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.programs import READY, Collector

pytestmark = pytest.mark.e2e

MAIN = Path(__file__).parents[2] / "examples" / "lead_batch" / "main.py"
BIN = Path(sys.executable).parent
LEADS = 120
TERMINAL = ("success", "failure", "timeout", "skip")


class Place:
    """A folder in which the example runs, and the collector that it sends to."""

    def __init__(self, folder, collector):
        self.folder = folder
        self.files = folder / "lead-batch"
        self.query = "http://" + collector.address("extensions::query", "http")
        self.environ = {
            "PATH": os.environ["PATH"],
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + collector.address("receivers::otlp", "http"),
        }

    def start(self, *before, **options):
        """The documented command."""
        return subprocess.Popen(
            [
                *before,
                BIN / "opentelemetry-instrument",
                *("--service_name", "lead-batch"),
                *(sys.executable, MAIN, "--leads", str(LEADS)),
            ],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def items(self):
        """The lines of the journal that are about leads; the last one may not be whole yet."""
        journal = self.files / "journal.jsonl"
        whole = journal.read_bytes().rpartition(b"\n")[0] if journal.exists() else b""
        return [line for line in map(json.loads, whole.splitlines()) if line["type"] == "item"]

    def ask(self, *words):
        """What a command of the collector's prints, as JSON lines or one object."""
        done = subprocess.run(
            [sys.executable, "-m", "collector", *words, "--json", "--endpoint", self.query],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def progress(self, *words):
        """What `telemetry progress` prints about the run's file, and its exit code."""
        done = subprocess.run(
            [BIN / "telemetry", "progress", self.files / "progress.json", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What two runs left behind: the first in the background and stopped, the second to the end."""
    folder = tmp_path_factory.mktemp("leads")
    with Collector(folder) as collector:
        collector.wait_for(READY)
        place = Place(folder, collector)
        found = {}
        with (folder / "lead-batch.out").open("wb") as out:
            process = place.start("nohup", stdout=out, stderr=out, process_group=0)
        try:
            until = time.monotonic() + 60
            while len(place.items()) < LEADS // 4:
                assert process.poll() is None, (folder / "lead-batch.out").read_text()
                assert time.monotonic() < until
                time.sleep(0.01)
            found["running"] = place.progress("--json")
            process.send_signal(signal.SIGTERM)
            found["first code"] = process.wait(60)
        finally:
            process.kill()
            process.wait()
        found["first"] = (folder / "lead-batch.out").read_text()
        found["first progress"] = place.progress()
        process = place.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        found["second"], found["second errors"] = process.communicate(timeout=90)
        found["second code"] = process.returncode
        found["second progress"] = place.progress()
        found["runs"] = [run_id(found["first"]), run_id(found["second"])]
        found["traces"] = [json.loads(place.ask("trace", run)) for run in found["runs"]]
        found["logs"] = place.ask("logs", "--batch-run-id", found["runs"][1], "--level", "warning")
        assert collector.stop() == 0
    found["items"] = place.items()
    found["files"] = place.files
    lines = (folder / "data" / "telemetry.jsonl").read_text().splitlines()
    found["stored"] = [json.loads(line) for line in lines]
    return found


def run_id(printed):
    """The id in the question that the example prints."""
    (found,) = re.findall(r"^collector trace (\S+)$", printed, re.MULTILINE)
    return found


def spans(answer):
    return [row["span"] for trace in answer["traces"] for row in trace["rows"]]


def test_it_is_stopped_and_goes_on(told):
    """L2, L3: SIGTERM ends it in order; the same command does the rest; each lead has one result."""
    assert (told["first code"], told["second code"]) == (143, 0)
    results = collections.Counter(
        line["key"] for line in told["items"] if line["outcome"] in TERMINAL
    )
    assert results == {f"lead-{number:04}": 1 for number in range(1, LEADS + 1)}
    by_run = collections.Counter(
        line["run_id"] for line in told["items"] if line["outcome"] in TERMINAL
    )
    assert f"resumed {by_run[told['runs'][0]]}," in told["second"]
    assert "run the same command again" in told["first"]


def test_all_three_ways_of_classifying_are_taken(told):
    """L1: rule, sound and model; the second model is a fallback, and calls are paid for."""
    done = [line for line in told["items"] if line["outcome"] == "success"]
    assert {line["result"]["method"] for line in done} == {"rule", "sound", "model"}
    for line in done:
        assert (line["cost"] > 0) == (line["result"]["method"] == "model")
    assert re.search(r"^by model \d+, by rule \d+, by sound \d+$", told["second"], re.MULTILINE)
    assert re.search(r"^openai/gpt-4o-mini: \d+ calls, .* USD$", told["second"], re.MULTILINE)
    used = [each for each in told["stored"] if each.get("event") == "llm.fallback.used"]
    assert {each["attributes"]["llm.fallback.from"] for each in used} == {"openai/gpt-4o-mini"}


def test_progress_is_seen_from_outside(told):
    """L4: `telemetry progress` shows the run while it lasts, stopped, and finished."""
    code, text = told["running"]
    running = json.loads(text)
    assert (code, running["operation"], running["total"], running["resumed"]) == (
        0,
        "lead-classification",
        LEADS,
        0,
    )
    assert running["run_id"] == told["runs"][0]
    code, text = told["first progress"]
    assert code == 1
    assert "finished: cancellation" in text
    code, text = told["second progress"]
    assert code == 0
    assert f"{LEADS}/{LEADS} (100.0 %), finished: success" in text


def test_the_run_id_leads_to_the_whole_run(told):
    """L8: one id, one trace: the run, its leads, and the calls of the models below them."""
    for answer, code, result in zip(
        told["traces"], (143, 0), ("cancellation", "success"), strict=True
    ):
        (root,) = [span for span in spans(answer) if span["name"] == "batch lead-classification"]
        attributes = root["attributes"]
        assert (attributes["process.exit.code"], attributes["batch.run.result"]) == (code, result)
    by_id = {span["span_id"]: span for answer in told["traces"] for span in spans(answer)}
    pairs = collections.Counter(
        (span["name"], by_id[span["parent_span_id"]]["name"])
        for span in by_id.values()
        if span.get("parent_span_id") in by_id
    )
    assert set(pairs) == {
        ("process lead-classification", "batch lead-classification"),
        ("chain language", "process lead-classification"),
        ("chat gpt-4o-mini", "chain language"),
        ("chat claude-3-haiku", "chain language"),
    }
    below = pairs["process lead-classification", "batch lead-classification"]
    assert below == len(told["items"])  # a lead that the signal interrupted was begun twice
    keys = {
        span["attributes"]["batch.item.key"] for span in by_id.values() if "chat" in span["name"]
    }
    by_model = {
        line["key"]
        for line in told["items"]
        if line["outcome"] == "success" and line["result"]["method"] == "model"
    }
    assert by_model <= keys


def test_what_went_wrong_can_be_asked_for(told):
    """L8: failed leads and failed calls are records of the run, each with its exception."""
    events = collections.Counter(re.findall(r'"event": ?"([a-z_.]+)"', told["logs"]))
    failed = [line for line in told["items"] if line["outcome"] == "failure"]
    of_second = [line for line in failed if line["run_id"] == told["runs"][1]]
    assert events["batch.item.exception"] == len(of_second)
    assert events["gen_ai.client.operation.exception"] > 0
    finished = [each for each in told["stored"] if each.get("event") == "batch.run.finished"]
    assert [each["attributes"]["batch.run.result"] for each in finished] == [
        "cancellation",
        "success",
    ]
    business = [each for each in told["stored"] if each.get("event") == "leads.classified"]
    assert [each["context"]["batch_run_id"] for each in business] == told["runs"]


def test_outputs_are_apart(told):
    """L5, L6: results on stdout, progress on stderr, details in three folders of files."""
    logs = told["files"] / "logs"
    found = {path.relative_to(logs).as_posix() for path in logs.rglob("*.*")}
    names = {re.sub(r"-\d{4}-\d\d-\d\d", "", name) for name in found}
    assert names == {
        "debug/classification.log",
        "debug/api-calls.log",
        "debug/performance.log",
        "production/operations.log",
        "production/errors.log",
        "production/metrics.log",
        "progress/current-operation.log",
        "progress/batch-status.json",
    }
    (debug,) = logs.glob("debug/classification-*.log")
    (operations,) = logs.glob("production/operations-*.log")
    assert "DEBUG rule failed reason='not_on_a_list'" in debug.read_text()
    assert "rule failed" not in operations.read_text()
    assert "INFO batch started" in operations.read_text()
    assert "lead-classification: " in told["second errors"]
    assert "Traceback" not in told["second errors"] + told["second"]
