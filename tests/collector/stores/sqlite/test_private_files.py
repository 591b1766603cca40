"""The files of a database belong to its owner, and are never reached through a link (R8, B71)."""

import os
import stat

import pytest

from collector.errors import StartFailed
from collector.stores.sqlite.store import SQLite
from tests.contracts import stores as contract

pytestmark = pytest.mark.anyio

FILES = ("", "-wal", "-shm", ".lock")


@pytest.fixture
def umask():
    """Set the umask of this process for one test."""
    before = os.umask(0o022)

    def change(mask):
        os.umask(mask)

    yield change
    os.umask(before)


def modes(folder):
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


def store(path):
    return SQLite(SQLite.Config(path=str(path)), contract.host(None))


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o002, 0o077])
async def test_modes_under_any_umask(tmp_path, umask, mask):
    """0640 at most, whatever the umask leaves."""
    umask(mask)
    async with store(tmp_path / "data" / "t.db"):
        found = modes(tmp_path / "data")
    assert set(found) == {f"t.db{ending}" for ending in FILES}
    assert set(found.values()) == {0o640 & ~mask}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o750 & ~mask


async def test_files_of_an_earlier_version_are_closed(tmp_path, umask):
    """What was readable for everybody no longer is after the next start."""
    umask(0)
    async with store(tmp_path / "t.db"):
        pass
    for each in tmp_path.iterdir():
        each.chmod(0o664)
    async with store(tmp_path / "t.db"):
        assert set(modes(tmp_path).values()) == {0o640}


@pytest.mark.parametrize("ending", [*FILES, "-journal"])
async def test_links_are_refused(tmp_path, ending):
    """The start fails in one line, and what the link leads to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_text("PRECIOUS")
    victim.chmod(0o600)
    (tmp_path / f"t.db{ending}").symlink_to(victim)
    with pytest.raises(StartFailed, match="is a symbolic link, which is not followed"):
        async with store(tmp_path / "t.db"):
            pass
    assert victim.read_text() == "PRECIOUS"
