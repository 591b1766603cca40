"""The example of a third party's exporter: a distribution of its own, whose tests pass."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "custom_exporter"


def run(*command, **env):
    """The exit code of a command, and all that it printed."""
    environment = {**os.environ, **env}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_example_is_a_distribution_and_its_tests_pass(tmp_path):
    """It builds, installs beside the collector, and is found by its import string from there."""
    pip = ("pip", "install", "--no-deps", "--no-build-isolation", "--quiet", "--target")
    code, text = run(sys.executable, "-m", *pip, str(tmp_path), str(EXAMPLE))
    assert code == 0, text
    assert (tmp_path / "alert_webhook.py").exists()
    tests = str(EXAMPLE / "test_alert_webhook.py")
    code, text = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "--rootdir", str(EXAMPLE), tests,
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )  # fmt: skip
    assert code == 0, text
    assert "8 passed" in text


def test_the_page_quotes_the_example():
    """docs/how-to/write-an-exporter.md shows the file that is tested, line by line."""
    page = (ROOT / "docs" / "how-to" / "write-an-exporter.md").read_text()
    blocks = page.split("```")
    quoted = [block.partition("\n")[2] for block in blocks[1::2] if block.startswith("py\n")]
    source = (EXAMPLE / "alert_webhook.py").read_text()
    assert quoted
    lines = [each.strip() for each in source.splitlines() if each.strip()]
    for block in quoted:  # the formatter has its own blank lines and indents for the page
        found = [each.strip() for each in block.splitlines() if each.strip()]
        assert "\n".join(found) in "\n".join(lines)
    yaml = [block.partition("\n")[2] for block in blocks[1::2] if block.startswith("yml\n")]
    assert yaml == [(EXAMPLE / "collector.yaml").read_text()]
