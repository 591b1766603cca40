"""
What the file exporter recognises after a kill.

A kill leaves the journal as it is then. A stop in good order deletes it, so putting it back is what
a kill would have left; without its last entry, it is what a kill before that entry would have.
"""

import asyncio
import sys

import pytest

from collector.exporters.file.config import GroupBy, Match, Rotation, Route
from collector.exporters.file.journal import Journal, boot_id
from collector.stats import Stats
from tests.collector.exporters.batches import exporter, log, logs, texts, tree

pytestmark = pytest.mark.anyio
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc says since when it runs")

NAMES = ["a", "b", "c", "d"]


def request(*records):
    """A batch with a key of its own."""
    batch = logs(*records)
    names = [each if isinstance(each, str) else each["body"] for each in records]
    key = "-".join(names).encode().ljust(16, b".")[:16]
    batch.request = type(batch.request)(batch.request.received_at_unix_nano, key)
    return batch


def recognised(stats):
    return stats.snapshot().get('otelier_file_recognised_requests{exporter="file"}', 0)


def journal_of(folder):
    (found,) = folder.glob(".*.journal")
    return found


async def killed(folder, batches, *, without=0, **settings):
    """Write batches and leave what a kill would, `without` the last entries of the journal."""
    async with exporter(**settings) as file:
        for each in batches:
            await file(each)
        journal = journal_of(folder)
        entries = journal.read_bytes().split(b"\n")
    assert not journal.exists()
    journal.write_bytes(b"\n".join(entries[: len(entries) - without]))


@pytest.mark.parametrize("without", [0, 1], ids=["done", "not noted as done"])
@pytest.mark.parametrize("style", ["json", "text", "logfmt", "otlp_json", "otlp_proto"])
async def test_what_was_written_before_a_kill_is_not_written_again(tmp_path, style, without):
    """R1: requests that come again after a kill stand in the file once; new ones are written."""
    path, stats = tmp_path / "out.log", Stats()
    settings = {"path": str(path), "format": style}
    await killed(tmp_path, [request(each) for each in NAMES], without=without, **settings)
    before = path.read_bytes()
    async with exporter(stats, **settings) as file:
        for each in NAMES[1:]:
            await file(request(each))
        assert path.read_bytes() == before
        await file(request("new"))
        assert path.read_bytes() > before
    assert recognised(stats) == 3


async def test_a_kill_between_two_files_of_a_request_writes_the_other_one(tmp_path):
    """A request that was in one of its files is written to the others, and once to each."""
    routes = [Route(path=str(tmp_path / name), match=[Match(service=[name])]) for name in NAMES]
    batch = request(*(log(name, service=name) for name in NAMES))
    async with exporter(routes=routes) as file:
        await file(batch)
        journal = journal_of(tmp_path)
        left = journal.read_bytes()
    *begun, _ = left.split(b"\n")
    journal.write_bytes(b"\n".join(begun))
    for name in NAMES[2:]:
        (tmp_path / name).write_bytes(b"")
    async with exporter(routes=routes) as file:
        await file(batch)
    assert tree(tmp_path) == {name: [name] for name in NAMES}


async def test_groups_and_files_put_aside_are_recognised(tmp_path):
    """It does not matter what a file is called, nor that another one has begun since."""
    group_by = GroupBy(enabled=True, resource_attribute="service.name")
    settings = {
        "path": str(tmp_path / "*.log"),
        "group_by": group_by,
        "rotation": Rotation(max_megabytes=1),
    }
    large = [request(log(f"{number}" + "x" * 700_000, service="s")) for number in range(3)]
    await killed(tmp_path, large, without=1, **settings)
    async with exporter(**settings) as file:
        for each in large:
            await file(each)
    found = [text[0] for each in tmp_path.glob("*.log") for text in texts(each)]
    assert sorted(found) == ["0", "1", "2"]


@linux
@pytest.mark.parametrize("style", ["json", "text", "otlp_proto"])
@pytest.mark.parametrize("left", [1, 0.3, 0.6, 0.99])
async def test_a_kill_in_the_middle_of_a_write_is_written_anew(tmp_path, style, left):
    """R1: of a piece of which a part stands in the file, that part is moved aside: no line twice."""
    path, stats = tmp_path / "out.log", Stats()
    settings = {"path": str(path), "format": style}
    await killed(tmp_path, [request("first")], **settings)
    begins = path.stat().st_size
    await killed(tmp_path, [request(*NAMES)], without=1, **settings)
    whole = path.read_bytes()
    part = whole[begins : begins + max(1, int((len(whole) - begins) * left))] if left < 1 else b""
    path.write_bytes(whole[:begins] + part)
    async with exporter(stats, **settings) as file:
        assert path.read_bytes() == whole[:begins]
        await file(request("first"))
        await file(request(*NAMES))
    assert path.read_bytes() == whole
    aside = path.with_name("out.log.torn")
    moved = aside.read_bytes() if aside.exists() else b""
    assert sorted(moved.split()) == sorted(part.split())


def restart_the_machine(path, journal):
    boot = boot_id()
    assert boot.encode() in journal.read_bytes()
    journal.write_bytes(journal.read_bytes().replace(boot.encode(), b"another"))
    path.write_bytes(path.read_bytes()[:-5])


def change_a_byte(path, _):
    data = path.read_bytes()
    path.write_bytes(data[:-10] + b"#" + data[-9:])


def move_away(path, _):
    path.rename(path.with_suffix(".1"))


def delete_the_journal(_, journal):
    journal.unlink()


def garbage(_, journal):
    journal.write_bytes(b'\0\xff garbage\n[1, 2]\n{}\n"not base64"')


def link(_, journal):
    journal.rename(journal.with_name("elsewhere"))
    journal.symlink_to(journal.with_name("elsewhere"))


@pytest.mark.parametrize(
    "doubt",
    [
        pytest.param(restart_the_machine, marks=linux),
        change_a_byte,
        move_away,
        delete_the_journal,
        garbage,
        link,
    ],
)
async def test_a_doubt_means_to_write_again(tmp_path, doubt):
    """R1: whatever happened to the file or the journal, nothing is lost."""
    path, stats = tmp_path / "out.log", Stats()
    await killed(tmp_path, [request("a", "b")], without=1, path=str(path))
    doubt(path, tmp_path / ".out.log.journal")
    async with exporter(stats, path=str(path)) as file:
        await file(request("a", "b"))
    assert texts(path)[-2:] == ["a", "b"]
    assert recognised(stats) == 0
    assert not (tmp_path / ".out.log.journal").exists()


async def test_what_nobody_waited_for_is_recognised_at_the_next_start(tmp_path):
    """A stop that is cut short: requests whose callers left are written, or come again, once."""
    path = tmp_path / "out.log"
    async with exporter(path=str(path)) as file:
        calls = [asyncio.create_task(file(request(each))) for each in NAMES]
        await asyncio.sleep(0)  # the first of them is being written, the others wait
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert journal_of(tmp_path).exists()
    async with exporter(path=str(path)) as file:
        for each in NAMES:
            await file(request(each))
    assert sorted(texts(path)) == NAMES


async def test_without_a_kill_equal_requests_are_written_each_time(tmp_path):
    """What is recognised is what a process that was killed had written, and nothing else."""
    path, stats = tmp_path / "out.log", Stats()
    for _ in range(2):
        async with exporter(stats, path=str(path)) as file:
            await file(request("a"))
            await file(request("a"))
    assert (texts(path), recognised(stats)) == (["a"] * 4, 0)


@pytest.mark.parametrize("fsync", ["interval", "never"])
async def test_without_fsync_nothing_is_recognised(tmp_path, fsync):
    """What is not on disk for sure is written again."""
    async with exporter(path=str(tmp_path / "out.log"), fsync=fsync) as file:
        await file(request("a"))
        assert list(tmp_path.glob(".*")) == []


async def test_a_folder_that_takes_no_journal_is_no_obstacle(tmp_path, caplog):
    """Something else in the place of the journal is left alone, told about, and nothing else changes."""
    path = tmp_path / "out.log"
    journal = tmp_path / ".out.log.journal"
    journal.mkdir()
    async with exporter(path=str(path)) as file:
        await file(request("a"))
    assert texts(path) == ["a"]
    assert sorted(each.name for each in tmp_path.iterdir()) == [journal.name, path.name]
    assert [each.getMessage() for each in caplog.records] == [
        f"cannot write {journal}: Is a directory; after a kill a request may be written twice"
    ]


def test_the_journal_stays_small_and_knows_the_last_requests(tmp_path):
    """It is written anew when it is large; so many requests are known as may come again."""
    path = tmp_path / "journal"
    requests = [bytes([number]) * 16 for number in range(40)]
    journal = Journal(path, lambda *_: None, known=3, largest=500)
    journal.open()
    for each in requests:
        journal.done(each)
        assert path.stat().st_size < 600
    journal.close(keep=True)
    after = Journal(path, lambda *_: None, known=3)
    after.open()
    assert [each for each in requests if after.knows(each)] == requests[-3:]
    after.close(keep=False)
    assert list(tmp_path.iterdir()) == []
