"""`make demo` as one runs it, and every query of the dashboards asked of what it started."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.servers import die_with_parent, missing, mongod_binary, redis_binary

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/grafana/json"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
END = "Ctrl-C ends all of it."

EMPTY = {
    ("otelier-fleet", "Operations: what got worse", "C"): "nothing ran an hour ago",
    ("otelier-fleet", "Operations: what got worse", "D"): "nothing ran an hour ago",
    ("otelier-risk", "Scores 7 days ago", "A"): "nothing ran a week ago",
    ("otelier-celery", "Redelivered and overlapping", "A"): "no worker lost its connection",
    ("otelier-celery", "Redelivered and overlapping", "B"): "no task ran twice at once",
    ("otelier-orders", "Retries, fallbacks and pool errors by reason", "C"): "no pool was empty",
}
"""Queries that find nothing in a healthy demo, and why."""


class Demo:
    """The program in a session of its own, so that what it leaves behind can be found."""

    def __init__(self, folder):
        self.folder = folder
        self.lines = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, ROOT / "examples/demo.py", "--free-ports"),
                *("--folder", folder),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no lock of ours
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self):
        return "\n".join(self.lines)

    def wait(self):
        """Until it says where to look."""
        end = time.monotonic() + 200
        while END not in self.lines:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.2)

    def url(self, what):
        """An address of the lines that say where to look."""
        return re.search(rf"(http://127\.0\.0\.1:\d+)\S* +{what}", self.text)[1]

    def running(self):
        """What runs in its session or in its folder, by id."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                after = (place / "stat").read_text().rpartition(") ")[2].split()
                here = (place / "cwd").readlink().is_relative_to(self.folder)
                words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if after[0] != "Z" and (int(after[3]) == self.process.pid or here):
                found[int(place.name)] = words
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo with one round of each example behind it; ended here, should no test have ended it."""
    if shutil.which("prometheus") is None:
        missing("there is no prometheus: no panel was asked (Debian: apt-get install prometheus)")
    if mongod_binary() is None or redis_binary() is None:
        missing("there is no mongod or no redis-server: no panel was asked")
    found = Demo(tmp_path_factory.mktemp("demo"))
    try:
        found.wait()
        yield found
    finally:
        if found.process.poll() is None:
            found.process.send_signal(signal.SIGTERM)
            found.process.wait(60)
        found.reader.join(10)
        found.process.stdout.close()


def ask(url, **parameters):
    """The JSON of an answer; what was wrong with it is raised with its text."""
    named = {name.replace("match", "match[]"): value for name, value in parameters.items()}
    try:
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(named)}", timeout=60) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{error.code}: {error.read().decode()[:500]}") from None
    assert found.get("warnings", []) == []
    return found


VALUES = {
    "__rate_interval": "1m",
    "__range": "5m",
    "__auto": "15s",
    "exporter": "mongodb",
    "text": "",
    "tenant": "tenant-2",
    "id": "demo-1",
}


def filled(query):
    """A query with values for its variables, all of them where one can choose."""
    return re.sub(
        r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))", lambda m: VALUES.get(m[1] or m[2], ".+"), query
    )


class Asked:
    """Answers of Prometheus and of the collector to queries as Grafana sends them."""

    def __init__(self, demo):
        self.prometheus = demo.url("Prometheus") + "/api/v1"
        self.collector = demo.url("answers")
        self.end = time.time()

    def target(self, target):
        """The values that a query of a panel finds; lines and traces count as one each."""
        kind = target["datasource"]["type"]
        if kind == "prometheus":
            return self.promql(filled(target["expr"]), once=target.get("instant", False))
        if kind == "loki":
            return self.logql(filled(target["expr"]), once=target["queryType"] == "instant")
        if target["queryType"] == "serviceMap":
            return self.promql("traces_service_graph_request_total", once=True)
        return self.traceql(filled(target["query"]))

    def promql(self, query, *, once):
        if once:
            found = ask(f"{self.prometheus}/query", query=query)
        else:
            between = {"start": self.end - 60, "end": self.end, "step": 5}
            found = ask(f"{self.prometheus}/query_range", query=query, **between)
        return numbers(found)

    def logql(self, query, *, once):
        if once:
            return numbers(ask(f"{self.collector}/loki/api/v1/query", query=query, time=self.end))
        between = {"start": self.end - 300, "end": self.end, "step": "15s", "limit": 100}
        found = ask(f"{self.collector}/loki/api/v1/query_range", query=query, **between)
        if found["data"]["resultType"] == "streams":
            return [1.0 for stream in found["data"]["result"] for _ in stream["values"]]
        return numbers(found)

    def traceql(self, query):
        between = {"start": int(self.end - 300), "end": int(self.end) + 1}
        if "|" in query.replace("||", ""):
            found = ask(f"{self.collector}/api/metrics/query_range", q=query, step="15s", **between)
            return [
                sample["value"]
                for series in found["series"]
                for sample in series["samples"]
                if "value" in sample
            ]
        return [1.0 for _ in ask(f"{self.collector}/api/search", q=query, **between)["traces"]]


def numbers(found):
    """All values of a vector or matrix that are numbers."""
    pairs = [
        pair
        for series in found["data"]["result"]
        for pair in (series["values"] if "values" in series else [series["value"]])
    ]
    return [float(text) for _, text in pairs if not math.isnan(float(text))]


@pytest.fixture(scope="module")
def asked(demo):
    """When every example has been scraped twice with work in between, and nothing waits for the store."""
    found = Asked(demo)
    ready = (
        'sum(rate(celery_task_outcomes_total{celery_task_state="FAILURE"}[1m])) > 0',
        'sum(rate(celery_task_outcomes_total{celery_task_state="RETRY"}[1m])) > 0',
        "sum(rate(risk_evaluation_duration_seconds_count[1m])) > 0",
        'sum(rate(traces_spanmetrics_calls_total{http_response_status_code="500"}[1m])) > 0',
        "sum(rate(order_process_outcomes_total[5m])) > 0",
        "sum(rate(batch_items_total[5m])) > 0",
        "risk_band_transitions_total > 0",
    )
    end = time.monotonic() + 100
    while late := [query for query in ready if not found.promql(query, once=True)]:
        assert demo.process.poll() is None, demo.text
        assert time.monotonic() < end, f"still nothing for {late}"
        time.sleep(1)
    found.end = time.time()
    return found


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_no_panel_is_wrong_or_empty(asked, uid):
    """D5, A9, R8: each query of each panel is answered, and finds what the examples sent."""
    wrong = []
    for panel in DASHBOARDS[uid]["panels"]:
        for target in panel["targets"]:
            place = (uid, panel["title"], target["refId"])
            query = target.get("expr") or target.get("query", "")
            try:
                values = asked.target(target)
            except AssertionError as error:
                wrong.append((*place, query, str(error)))
                continue
            if not values and place not in EMPTY:
                wrong.append((*place, query, "empty"))
    assert wrong == []


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_links_and_variables_lead_somewhere(asked, uid):
    """Each query behind a link is answered; each variable has values to choose from."""
    wrong = []
    links = {link["url"] for panel in DASHBOARDS[uid]["panels"] for link in panel["links"]}
    for url in sorted(links):
        given = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
        if "panes" not in given:
            continue
        (query,) = json.loads(given["panes"][0])["a"]["queries"]
        try:
            asked.target({"queryType": "range", **query})
        except AssertionError as error:
            wrong.append((query, str(error)))
    for variable in DASHBOARDS[uid]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        if variable["datasource"]["type"] == "loki":
            label = variable["query"]["label"]
            found = ask(f"{asked.collector}/loki/api/v1/label/{label}/values")
        else:
            metric, label = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", variable["query"]
            ).groups()
            found = ask(f"{asked.prometheus}/label/{label}/values", match=metric)
        if not found["data"]:
            wrong.append((variable["name"], "no values"))
    assert wrong == []


def test_rules_are_evaluated_without_an_error(asked):
    """R8: Prometheus computes every rule with what a running collector and programs really send."""
    groups = ask(f"{asked.prometheus}/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 15
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule.get("lastError")] == []
    targets = ask(f"{asked.prometheus}/targets")["data"]["activeTargets"]
    assert [(each["scrapeUrl"], each["lastError"]) for each in targets if each["lastError"]] == []
    assert len(targets) == 2


def test_ctrl_c_ends_everything(demo):
    """L10: Ctrl-C ends each process that the demo started, and the demo with 0."""
    before = demo.running()
    programs = ("collector", "prometheus", "redis-server", "celery", "uvicorn", "risk_worker")
    assert [name for name in programs if not any(name in words for words in before.values())] == []
    os.kill(demo.process.pid, signal.SIGINT)
    assert demo.process.wait(90) == 0, demo.text
    demo.reader.join(10)
    assert demo.lines[-1].startswith("everything is stopped")
    assert demo.running() == {}
