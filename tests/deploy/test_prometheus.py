"""Alert rules: valid, tested by promtool, each with a page that says how to find the cause."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.servers import missing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("promtool", ["check", "rules", "rules.yml"]),
        ("promtool", ["test", "rules", "rules.test.yml"]),
        ("promtool", ["check", "config", "--syntax-only", "prometheus.yml"]),
        ("amtool", ["check-config", "../alertmanager/alertmanager.yml"]),
    ],
    ids=lambda given: given if isinstance(given, str) else given[1],
)
def test_prometheus_and_alertmanager_take_the_files(tool, words):
    """Prometheus' own tools find no mistake, and the rules fire and rest as their tests say (R8)."""
    if shutil.which(tool) is None:
        missing(f"{tool} is not on PATH (Debian: prometheus, prometheus-alertmanager)")
    done = subprocess.run([tool, *words], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_says_what_to_do(alert):
    """Each alert has a severity, a sentence, the command that shows the cause, and a section of the runbook."""
    notes = alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert "Ask: " in notes["description"]
    page, _, anchor = notes["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
