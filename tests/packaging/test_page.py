"""The files of the page in the wheel."""

import zipfile

import pytest

from collector.query.page.files import read
from tests.matrix import cells

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_the_wheel_has_every_file_of_the_page(tmp_path):
    """What the port serves from the source tree is in the wheel, byte for byte (A9)."""
    built = cells.build_wheel(tmp_path)
    with zipfile.ZipFile(built) as archive:
        served = {name: archive.read(f"collector/query/page/static/{name}") for name in read()}
    assert served == {name: file.body for name, file in read().items()}
