"""SECURITY.md is true: every attack of the list has a row, and every test in a row exists."""

import re
from pathlib import Path

import pytest

from collector import cli
from tests.collector.receivers.otlp.catalogue import CASES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| (B\d\d) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)


def test_every_attack_has_one_row():
    """The table has each number once, in order, and nothing else."""
    assert [number for number, _, _ in ROWS] == [f"B{number:02}" for number in range(1, 82)]


@pytest.mark.parametrize(("number", "attack", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_every_named_test_exists(number, attack, tests):
    """Each row names a test that exists, cases of the catalogue that do, or why there is none."""
    named = re.findall(r"`([a-z0-9_/]+\.py)(?:::(\w+))?`", tests)
    catalogue = "catalogue" in re.sub(r"`.*?`", "", tests)
    assert named or catalogue or tests.startswith("none: "), attack
    for file, name in named:
        text = (ROOT / "tests" / file).read_text()
        if name:
            assert re.search(rf"def {name}\(", text), f"{file}::{name}"
        else:
            assert number in text, f"{file} says nothing about {number}"
    if catalogue:
        assert any(name.startswith(f"{number}-") for name in CASES), number


def test_the_configuration_in_it_is_valid(tmp_path):
    """The example of an exposed receiver passes `collector validate`."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "config.yaml"
    file.write_text(block)
    assert cli.main(["validate", "--config", str(file)]) == 0
