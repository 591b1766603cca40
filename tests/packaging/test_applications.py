"""Beside applications that exist: their pins resolve with ours, and they answer as before."""

import sys
from pathlib import Path

import pytest

from tests.matrix import cells, frameworks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SETS = sorted(Path(__file__).with_name("applications").glob("*.txt"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree."""
    return cells.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.parametrize("pins", SETS, ids=lambda path: path.stem)
def test_the_pins_of_a_public_application_resolve(pins, wheel, tmp_path):
    """With every version that the application pins, pip finds versions for the library."""
    wanted = tmp_path / "wanted.in"
    wanted.write_text(f"otelier @ {wheel.as_uri()}\n")
    resolved = cells.uv(
        *("pip", "compile", "--no-annotate", "--no-header", "--python-version", "3.11"),
        *(str(wanted), str(pins)),
    )
    lines = set(resolved.splitlines())
    ours = {name for name in lines if name.startswith(("opentelemetry-sdk", "otelier"))}
    assert len(ours) == 2
    kept = {line.partition("[")[0].split("==")[0] for line in pins.read_text().split()}
    assert kept <= {line.split("==")[0].partition("[")[0] for line in lines}


@pytest.mark.parametrize("year", ["2023", "today"])
def test_an_application_answers_as_before(year, wheel):
    """FastAPI, Celery and Django of that time keep their versions and answer the same beside it."""
    assert frameworks.problems(sys.executable, year, wheel) == []


def test_nothing_of_the_sets_is_forgotten():
    """Ten applications, each with pins only."""
    assert len(SETS) == 10
    for pins in SETS:
        assert all("==" in line for line in pins.read_text().split()), pins
