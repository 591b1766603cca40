"""Full disks: a batch stops in order, and finished work is not lost."""

import contextlib
import json
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of that size; needs root."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_journal_that_reaches_a_file_limit(batch):
    """L3: when the journal cannot grow, the run stops with 75; later the rest is worked on."""
    assert batch.run(200, pad=500, file_size=20_000, concurrency=4, progress=None) == 75
    assert "the journal cannot be written" in batch.stderr
    lines = batch.journal.read_bytes()
    assert lines.endswith(b"\n")
    recorded = batch.terminal()
    assert recorded
    assert set(recorded.values()) == {1}
    # Finished and not recorded is at most what ran at that moment.
    assert len(batch.noted("start")) - len(recorded) <= 4
    assert batch.run(200) == 0
    assert batch.terminal() == {f"lead-{number}": 1 for number in range(200)}
    starts = batch.noted("start")
    assert {key: starts[key] for key in recorded} == dict.fromkeys(recorded, 1)


def test_a_full_disk_loses_no_finished_item(batch, tmp_path):
    """L3: the reserve takes what runs when the disk is full; nothing is paid for twice."""
    with small_disk(tmp_path / "disk", "512k") as disk:
        batch.journal = disk / "leads.jsonl"
        batch.progress = disk / "progress.json"
        assert batch.run(3000, sleep=0.0005, pad=400, concurrency=8) == 75
        told = batch.report
        assert (told["result"], told["stopped_by"]) == ("partial", "journal")
        assert told["unrecorded"] == []
        assert batch.terminal() == dict.fromkeys(batch.noted("start"), 1)
        assert sum(told["counts"].values()) + told["not_started"] == 3000
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        before = batch.noted("start")
        assert batch.run(3000, sleep=0.0, pad=400) == 0
        starts = batch.noted("start")
        assert {key: starts[key] for key in before} == before
        assert len(batch.terminal()) == 3000


def test_a_progress_file_on_a_full_disk(batch, tmp_path):
    """L4: a progress file without room keeps its last whole content; the run is not hurt."""
    with small_disk(tmp_path / "disk", "8k") as disk:
        (disk / "filler").write_bytes(b"")
        batch.progress = disk / "progress.json"
        with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        assert batch.run(20) == 0
        assert "progress cannot be written" in batch.stderr
        assert [path.name for path in disk.iterdir()] == ["filler"]
        (disk / "filler").unlink()
        assert batch.run(20) == 0
        assert json.loads(batch.progress.read_text())["resumed"] == 20


def test_results_to_a_full_device(batch):
    """L5: results that nobody can take cost a line on stderr; the items are done."""
    assert batch.run(20, results="/dev/full") == 0
    assert "results cannot be written" in batch.stderr
    assert len(batch.terminal()) == 20
