"""Grafana as code: the committed files are those that are made, whole, and fit each other."""

import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy/grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (GRAFANA / "json").glob("*.json")}
SOURCES = yaml.safe_load((GRAFANA / "provisioning/datasources/otelier.yaml").read_text())
UIDS = {source["uid"]: source["type"] for source in SOURCES["datasources"]}
PANELS = [
    pytest.param(panel, id=f"{uid}-{panel['title']}")
    for uid, board in sorted(DASHBOARDS.items())
    for panel in board["panels"]
]


def test_the_committed_dashboards_are_those_that_are_made(tmp_path):
    """Running make.py changes nothing: nobody edits the JSON, and nobody forgets to make it."""
    done = subprocess.run(
        [sys.executable, GRAFANA / "make.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (GRAFANA / "json").iterdir()}
    assert len(made) == 10


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel):
    """Each panel has a unit, a question, a query and a link to its traces, its logs or its numbers."""
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"].rstrip().endswith((".", "ls", "doctor"))
    assert [
        target for target in panel["targets"] if not (target.get("expr") or "query" in target)
    ] == []
    assert panel["links"]
    for link in panel["links"]:
        where = urllib.parse.urlsplit(link["url"])
        if where.path == "/explore":
            pane = json.loads(urllib.parse.parse_qs(where.query)["panes"][0])["a"]
            assert UIDS[pane["datasource"]] == pane["queries"][0]["datasource"]["type"]
            assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
        else:
            assert where.path.removeprefix("/d/") in DASHBOARDS


@pytest.mark.parametrize("uid", sorted(DASHBOARDS))
def test_a_dashboard_fits_together(uid):
    """Its uid is its file, no two panels overlap, and each variable that a query has is declared."""
    board = DASHBOARDS[uid]
    assert (board["uid"], board["schemaVersion"]) == (uid, 39)
    cells = [
        (x, y)
        for panel in board["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    declared = {variable["name"] for variable in board["templating"]["list"]}
    text = urllib.parse.unquote(json.dumps(board["panels"]))
    used = {a or b for a, b in re.findall(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))", text)}
    assert {name for name in used if not name.startswith("__")} - declared == set()
    chosen = {v["name"]: v["current"]["value"] for v in board["templating"]["list"][:3]}
    assert {UIDS[where] for where in chosen.values()} == {"prometheus", "tempo", "loki"}


def test_links_of_data_sources_lead_to_data_sources():
    """Span to logs and metrics, log line to trace, exemplar to trace, service map: all lead somewhere."""
    text = json.dumps(SOURCES)
    named = re.findall(r'"datasourceUid": "([^"]+)"', text)
    assert sorted(set(named)) == ["otelier-logs", "otelier-traces", "prometheus"]
    assert set(named) <= set(UIDS)
    assert len(UIDS) == len(SOURCES["datasources"])


def test_compose_gives_grafana_what_the_files_ask_for():
    """Each variable of the provisioning files is one of the service, and each folder is mounted."""
    service = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]["grafana"]
    files = [path.read_text() for path in (GRAFANA / "provisioning").rglob("*.yaml")]
    lines = [line for text in files for line in text.splitlines() if not line.startswith("#")]
    asked = set(re.findall(r"(?<!\$)\$([A-Z_]+)", "\n".join(lines)))
    assert asked == {"OTELIER_URL", "PROMETHEUS_URL", "OTELIER_QUERY_TOKEN", "OTELIER_DASHBOARDS"}
    assert asked <= set(service["environment"])
    mounts = {mount.split(":")[1]: mount.split(":")[0] for mount in service["volumes"]}
    boards = mounts[service["environment"]["OTELIER_DASHBOARDS"]]
    assert (ROOT / boards).resolve() == GRAFANA / "json"
    given = mounts[service["environment"]["GF_PATHS_PROVISIONING"]]
    assert (ROOT / given).resolve() == GRAFANA / "provisioning"
    assert service["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert service["ports"] == ["127.0.0.1:3000:3000"]
