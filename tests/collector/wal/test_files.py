"""The calls that make the log durable reach the system (R2): the tests of the log itself simulate a disk."""

import os
from pathlib import Path

import pytest

from collector.wal.files import Files

OPEN = Path("/proc/self/fd")


@pytest.fixture
def forced(monkeypatch):
    """What was forced to disk, by path."""
    seen = []

    def spy(name):
        call = getattr(os, name)

        def forcing(fd):
            seen.append((name, Path(f"/proc/self/fd/{fd}").readlink()))
            call(fd)

        monkeypatch.setattr(os, name, forcing)

    spy("fdatasync")
    spy("fsync")
    return seen


def test_data_is_forced_to_disk(tmp_path, forced):
    """A segment by its descriptor."""
    files = Files()
    fd = files.create(tmp_path / "segment")
    files.write_all(fd, b"data")
    files.sync(fd)
    files.close(fd)
    assert forced == [("fdatasync", tmp_path / "segment")]


def test_names_are_forced_to_disk(tmp_path, forced):
    """A new segment or cursor: its folder, whose descriptor is closed again."""
    before = len(list(OPEN.iterdir()))
    Files().sync_folder(tmp_path)
    assert forced == [("fsync", tmp_path)]
    assert len(list(OPEN.iterdir())) == before
