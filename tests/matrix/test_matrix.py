"""The short form of `make test-matrix`: what of it fits into two minutes of `make test`."""

import pytest

from tests.matrix import cells, pythons
from tests.matrix.trains import NEWEST, OLDEST, TRAINS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HAVE = pythons.found()
MAIN = next(iter(HAVE))
LAST = next(reversed(HAVE))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree."""
    return cells.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    """A collector: its address, and the file with what arrived."""
    with cells.receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


CELLS = dict.fromkeys([(MAIN, OLDEST), (MAIN, NEWEST), (LAST, NEWEST)])


@pytest.mark.parametrize(("python", "train"), CELLS)
def test_an_application_sends_all_signals(python, train, wheel, receiver):
    """In a fresh environment a request, a task, logs and measurements arrive, and nothing raises."""
    cell = cells.run_cell((python, HAVE[python]), TRAINS[train], wheel, *receiver)
    assert cell.problems == []
    assert cell.cores == {"telemetry._core": "native", "collector._core": "native"}
