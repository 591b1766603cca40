"""A durable queue that lost something says so until somebody has seen it (D3, R3, O4)."""

import shutil
import uuid

import pytest

from collector.extensions.health_check import HealthCheck
from collector.model import Health, Host
from collector.stats import Stats
from collector.wal.storage import FileStorage
from tests.collector.cli.test_queue import FOLDER, ask
from tests.durability import config, drain, host, logs, until

pytestmark = pytest.mark.anyio

SIZE = 20_000


async def filled(folder, *, requests=12):
    """A queue of several segments, of which nothing is delivered; the ids in it."""
    ids = [f"{number:03} {uuid.uuid4()}" + "x" * SIZE for number in range(requests)]
    async with storage(folder)[0] as wal:
        await wal.reader("sink", ["logs"])
        for each in ids:
            await wal.append(logs(each), "logs", 1)
    return ids


def storage(folder):
    """A queue with small segments, its counters and its health."""
    stats, health = Stats(), Health(state="ready")
    made = Host("file_storage", stats, host().log, health)
    return FileStorage(config(folder, segment_bytes=1 << 16), made), stats, health


async def delivered(folder):
    """What is delivered after a start: ids, problems of the health, records counted as missing."""
    wal, stats, health = storage(folder)
    async with wal:
        problems = dict(health.problems)
        found = await drain(await wal.reader("sink", ["logs"]), wal)
        missing = stats.snapshot().get('otelier_wal_gap_records{storage="file_storage"}', 0)
    assert health.problems == {}  # of a storage that is closed
    return found, problems.get("file_storage", []), missing


def segments(folder):
    return sorted(folder.glob("*.wal"))


def first_number(path):
    return int(path.stem)


@pytest.mark.parametrize("place", [0, 1, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("damage", ["delete", "empty"])
async def test_a_segment_that_is_gone(tmp_path, place, damage):
    """The others are delivered; how many are missing is said, counted and kept in the health."""
    ids = await filled(tmp_path)
    found = segments(tmp_path)
    numbers = [*map(first_number, found), len(ids) + 1]
    at = place % len(found)
    lost = range(numbers[at], numbers[at + 1])
    if damage == "delete":
        found[place].unlink()
    else:
        found[place].write_bytes(b"")
    text = f"requests {lost.start} to {lost.stop - 1} are missing in {tmp_path}"
    expected = [each for number, each in enumerate(ids, 1) if number not in lost]
    assert await delivered(tmp_path) == (expected, [text], len(lost))


async def test_a_segment_that_is_cut_in_its_middle(tmp_path):
    """What stands behind the cut is missing, though the file still begins well."""
    ids = await filled(tmp_path)
    second = segments(tmp_path)[1]
    stop = first_number(segments(tmp_path)[2])
    with second.open("r+b") as file:
        file.truncate(second.stat().st_size // 2)
    found, problems, missing = await delivered(tmp_path)
    assert 0 < missing == len(ids) - len(found)
    assert problems == [f"requests {stop - missing} to {stop - 1} are missing in {tmp_path}"]


@pytest.mark.parametrize("gone", ["folder", "file"])
async def test_a_cursor_that_is_gone(tmp_path, gone):
    """All that is in the queue is delivered, not only what comes from now on."""
    ids = await filled(tmp_path)
    if gone == "folder":
        shutil.rmtree(tmp_path / "cursors")
    else:
        (tmp_path / "cursors" / "sink.json").unlink()
        async with storage(tmp_path)[0] as wal:
            await wal.reader("other", ["traces"])  # another cursor is there
    wal, _, health = storage(tmp_path)
    async with wal:
        found = await drain(await wal.reader("sink", ["logs"]), wal)
        await until(lambda: health.problems)
    assert found == ids


async def test_a_new_exporter_begins_now(tmp_path):
    """One that never had a cursor is new, and nothing is lost."""
    await filled(tmp_path)
    wal, _, health = storage(tmp_path)
    async with wal:
        assert await drain(await wal.reader("other", ["logs"]), wal) == []
        assert health.problems == {}


async def test_an_ordinary_life_loses_nothing(tmp_path):
    """Delivery, deletion of segments, dropped exporters and restarts are no losses."""
    for _ in range(3):
        ids = await filled(tmp_path)
        assert await delivered(tmp_path) == (ids, [], 0)
    assert ask("drop", "sink", FOLDER, tmp_path, "--yes")[0] == 0
    wal, _, health = storage(tmp_path)
    async with wal:
        await drain(await wal.reader("sink", ["logs"]), wal)
        assert health.problems == {}


async def test_it_stays_until_it_is_acknowledged(tmp_path):
    """Restarts and delivered segments do not make it well; the command does, also beside a running one."""
    ids = await filled(tmp_path)
    segments(tmp_path)[1].unlink()
    _, problems, missing = await delivered(tmp_path)
    assert (await delivered(tmp_path))[1:] == (problems, 0)  # counted once
    wal, _, health = storage(tmp_path)
    async with wal, HealthCheck(HealthCheck.Config(endpoint="localhost:0"), wal._host) as checked:
        status, _, body = checked._answer("GET", "/")
        assert (status, b'"status": "Server degraded"' in body, problems[0].encode() in body) == (
            200,
            True,
            True,
        )
        assert f"lost: {problems[0]}\n" in ask("ls", FOLDER, tmp_path)[1]
        assert ask("acknowledge", FOLDER, tmp_path) == (0, f"{problems[0]}\n")
        await until(lambda: not health.problems)
        assert b'"status": "Server available"' in checked._answer("GET", "/")[2]
    assert (await delivered(tmp_path))[1:] == ([], 0)
    assert 0 < missing < len(ids)
