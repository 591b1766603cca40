"""Files that are put aside: by size, by day, compressed, deleted, and across crashes."""

import asyncio
import fcntl
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import zstandard

from collector.exporters.file.config import CompressionParams, GroupBy, Match, Rotation, Route
from collector.stats import Stats
from tests.collector.exporters.batches import (
    Clock,
    exporter,
    log,
    logs,
    texts,
    tree,
    until,
)

pytestmark = pytest.mark.anyio

MIB = 1 << 20
DAY = 86_400
NOON = 1_751_803_200.0  # 2025-07-06T12:00:00Z
LARGE = "x" * (600 << 10)
"""Two of them do not fit into one MiB."""
STAMPED = r"out-2025-07-06T12-00-0\d\.\d{3}\.log"


def plain(path):
    """The bytes of a file, unpacked by the ordinary readers."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data))
        return reader.read()
    return data


def heads(path):
    """The first characters of each message in a file, packed or not."""
    return [json.loads(line)["message"][:8] for line in plain(path).splitlines()]


def names(folder):
    return sorted(
        path.name for path in folder.iterdir() if path.suffix not in (".lock", ".journal")
    )


def large(number):
    return logs(f"{number:08}{LARGE}")


async def test_a_full_file_is_put_aside(tmp_path):
    """C9: a file never grows beyond the limit; it gets the time into its name and a new one begins."""
    stats, clock = Stats(), Clock(NOON)
    path = tmp_path / "out.log"
    async with exporter(stats, clock, path=str(path), rotation=Rotation(max_megabytes=1)) as file:
        for number in range(4):
            await file(large(number))
            clock.now += 1.125
    assert names(tmp_path) == [
        "out-2025-07-06T12-00-01.125.log",
        "out-2025-07-06T12-00-02.250.log",
        "out-2025-07-06T12-00-03.375.log",
        "out.log",
    ]
    assert [heads(tmp_path / name) for name in names(tmp_path)] == [
        [f"{number:08}"] for number in range(4)
    ]
    assert stats.snapshot() == {'otelier_file_rotated{exporter="file"}': 3}


async def test_files_put_aside_in_the_same_millisecond_are_all_kept(tmp_path):
    """A name that is taken, packed or not, is never written over."""
    clock = Clock(NOON)
    (tmp_path / "out-2025-07-06T12-00-00.000.log.gz").write_bytes(gzip.compress(b"{}\n"))
    rotation = Rotation(max_megabytes=1)
    async with exporter(None, clock, path=str(tmp_path / "out.log"), rotation=rotation) as file:
        for number in range(4):
            await file(large(number))
    assert names(tmp_path) == [
        "out-2025-07-06T12-00-00.000.log.gz",
        "out-2025-07-06T12-00-00.001.log",
        "out-2025-07-06T12-00-00.002.log",
        "out-2025-07-06T12-00-00.003.log",
        "out.log",
    ]


async def test_a_batch_larger_than_the_limit_stays_whole(tmp_path):
    """A batch is in one file even when that makes it larger than the limit."""
    rotation = Rotation(max_megabytes=1)
    async with exporter(path=str(tmp_path / "out.log"), rotation=rotation) as file:
        await file(logs("first"))
        await file(logs(LARGE, LARGE, LARGE))
        await file(logs("last"))
    sizes = sorted(len(texts(path)) for path in tmp_path.iterdir())
    assert sizes == [1, 1, 3]
    assert texts(tmp_path / "out.log") == ["last"]


async def test_only_the_newest_backups_are_kept(tmp_path):
    """C9: so many files put aside are kept, as the backup count of the seed; strangers are not touched."""
    stats, clock = Stats(), Clock(NOON)
    strangers = ["out-2025-07-06.txt", "out-old.log", "outer-2025-07-01.log", "out-2025-02-31.log"]
    for name in strangers:
        (tmp_path / name).write_text("mine\n")
    rotation = Rotation(max_megabytes=1, max_backups=2)
    path = tmp_path / "out.log"
    async with exporter(stats, clock, path=str(path), rotation=rotation) as file:
        for number in range(6):
            await file(large(number))
            clock.now += 1
        await until(lambda: len(names(tmp_path)) == 3 + len(strangers))
    kept = [name for name in names(tmp_path) if name not in strangers]
    assert [heads(tmp_path / name) for name in kept] == [["00000003"], ["00000004"], ["00000005"]]
    assert stats.snapshot()['otelier_file_backups_deleted{exporter="file"}'] == 3


@pytest.mark.parametrize("localtime", [False, True])
async def test_a_day_has_a_file(tmp_path, localtime):
    """L6: `daily` puts the day into the name; a day's end is another file, and nothing is renamed."""
    clock = Clock(NOON)
    if localtime:
        day = time.localtime(NOON)
        clock.now = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 23, 59, 59, 0, 0, -1))
    else:
        clock.now = NOON + DAY / 2 - 1
    rotation = Rotation(daily=True, localtime=localtime)
    async with exporter(None, clock, path=str(tmp_path / "out.log"), rotation=rotation) as file:
        await file(logs("before"))
        clock.now += 2
        await file(logs("behind", "midnight"))
    assert tree(tmp_path) == {
        "out-2025-07-06.log": ["before"],
        "out-2025-07-07.log": ["behind", "midnight"],
    }


async def test_a_day_that_goes_wrong_is_cut_into_parts(tmp_path):
    """The size limit holds within a day as well."""
    clock = Clock(NOON)
    rotation = Rotation(daily=True, max_megabytes=1)
    async with exporter(None, clock, path=str(tmp_path / "out.log"), rotation=rotation) as file:
        await file(large(0))
        await file(large(1))
    assert {name: heads(tmp_path / name) for name in names(tmp_path)} == {
        "out-2025-07-06.log": ["00000001"],
        "out-2025-07-06T12-00-00.000.log": ["00000000"],
    }


@pytest.mark.parametrize(("method", "ending"), [("gzip", ".gz"), ("zstd", ".zst")])
async def test_old_days_are_compressed_and_the_oldest_deleted(tmp_path, method, ending):
    """L6: daily rotation with compression: past days are packed, old ones go, today's is written to."""
    stats, clock = Stats(), Clock(NOON)
    settings = {
        "path": str(tmp_path / "out.log"),
        "rotation": Rotation(daily=True, max_days=3),
        "compression": method,
    }
    async with exporter(stats, clock, **settings) as file:
        for day in range(6):
            await file(logs(f"day {day}"))
            clock.now += DAY
        clock.now -= DAY
        expected = [f"out-2025-07-{number:02}.log{ending}" for number in (8, 9, 10)]
        expected.append("out-2025-07-11.log")
        await until(lambda: names(tmp_path) == expected)
    assert [heads(tmp_path / name) for name in expected] == [
        ["day 2"],
        ["day 3"],
        ["day 4"],
        ["day 5"],
    ]
    assert (tmp_path / expected[0]).stat().st_mode & 0o777 == 0o640
    tool = shutil.which({"gzip": "gzip", "zstd": "zstd"}[method])
    if tool:
        process = await asyncio.create_subprocess_exec(tool, "-t", "-q", tmp_path / expected[0])
        assert await process.wait() == 0


async def test_a_day_ends_without_data(tmp_path):
    """L6: the file of a day that is over is packed although nothing more is written."""
    clock = Clock(NOON)
    settings = {"rotation": Rotation(daily=True), "compression": "zstd", "turn_s": 0.01}
    async with exporter(None, clock, path=str(tmp_path / "out.log"), **settings) as file:
        await file(logs("last of the day"))
        clock.now += DAY
        await until(lambda: names(tmp_path) == ["out-2025-07-06.log.zst"])
    assert heads(tmp_path / "out-2025-07-06.log.zst") == ["last of "]


@pytest.mark.parametrize("method", ["gzip", "zstd"])
async def test_the_level_of_compression_is_a_setting(tmp_path, method):
    """`compression_params: level` makes smaller files."""
    text = "".join(f"{number * 7919 % 104729}-" for number in range(40_000)) + "\n"
    sizes = {}
    for level in (1, 9):
        folder = tmp_path / str(level)
        folder.mkdir()
        (folder / "out-2025-07-05.log").write_text(text)
        settings = {"compression": method, "compression_params": CompressionParams(level=level)}
        rotation = Rotation(daily=True)
        path = str(folder / "out.log")
        async with exporter(None, Clock(NOON), path=path, rotation=rotation, **settings):
            await until(lambda folder=folder: not (folder / "out-2025-07-05.log").exists())
        (packed,) = folder.glob("out-2025-07-05.log.*")
        assert plain(packed) == text.encode()
        sizes[level] = packed.stat().st_size
    assert sizes[9] < sizes[1] < len(text)


async def test_what_an_earlier_run_left_is_tidied_at_start(tmp_path):
    """A cut-off attempt is replaced, a finished one is not repeated, an empty day leaves nothing."""
    clock = Clock(NOON)
    (tmp_path / "out-2025-07-01.log").write_text("one\n")
    (tmp_path / "out-2025-07-01.log.gz.tmp").write_bytes(b"\x1f\x8b half")
    (tmp_path / "out-2025-07-02.log").write_text("two\n")  # killed between rename and delete
    (tmp_path / "out-2025-07-02.log.gz").write_bytes(gzip.compress(b"two\n"))
    (tmp_path / "out-2025-07-03.log").write_text("three\n")  # the clock was set back: a day twice
    (tmp_path / "out-2025-07-03.log.gz").write_bytes(gzip.compress(b"other three\n"))
    (tmp_path / "out-2025-07-04.log").touch()
    settings = {"rotation": Rotation(daily=True), "compression": "gzip"}
    async with exporter(None, clock, path=str(tmp_path / "out.log"), **settings):
        await until(lambda: not (tmp_path / "out-2025-07-04.log").exists())
    assert {name: plain(tmp_path / name) for name in names(tmp_path)} == {
        "out-2025-07-01.log.gz": b"one\n",
        "out-2025-07-02.log.gz": b"two\n",
        "out-2025-07-03.log.gz": b"other three\n",
        "out-2025-07-03.1.log.gz": b"three\n",
        "out-2025-07-06.log": b"",
    }


async def test_a_file_that_somebody_writes_to_is_left_alone(tmp_path):
    """A file under another exporter's lock is neither packed nor deleted, whatever its name."""
    theirs = tmp_path / "out-2025-07-01.log"
    theirs.write_text("theirs\n")
    (tmp_path / "out-2025-07-02.log").write_text("ours\n")
    settings = {"rotation": Rotation(daily=True, max_backups=1), "compression": "gzip"}
    with theirs.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with exporter(None, Clock(NOON), path=str(tmp_path / "out.log"), **settings):
            await until((tmp_path / "out-2025-07-02.log.gz").exists)
            await until(lambda: not (tmp_path / "out-2025-07-02.log").exists())
    assert theirs.read_text() == "theirs\n"


async def test_links_are_not_followed_when_tidying(tmp_path):
    """A link with the name of a file put aside leads to nothing being packed or deleted elsewhere."""
    folder, elsewhere = tmp_path / "logs", tmp_path / "precious"
    folder.mkdir()
    elsewhere.write_text("precious\n")
    (folder / "out-2025-07-01.log").symlink_to(elsewhere)
    (folder / "out-2025-07-02.log").write_text("ours\n")
    settings = {"rotation": Rotation(daily=True, max_days=1), "compression": "zstd"}
    async with exporter(None, Clock(NOON), path=str(folder / "out.log"), **settings):
        await until(lambda: not (folder / "out-2025-07-02.log").exists())
    assert elsewhere.read_text() == "precious\n"
    assert names(tmp_path) == ["logs", "precious"]


async def test_groups_and_routes_have_backups_of_their_own(tmp_path):
    """C9: each service's file is rotated by itself, a route by its own rules, and neither counts the other."""
    clock = Clock(NOON)
    kept = Route(
        path=str(tmp_path / "kept.log"),
        match=[Match(level="error")],
        rotation=Rotation(max_megabytes=1, max_backups=3),
    )
    settings = {
        "path": str(tmp_path / "*.log"),
        "group_by": GroupBy(enabled=True, resource_attribute="service.name"),
        "rotation": Rotation(max_megabytes=1, max_backups=1),
        "routes": [kept],
    }
    async with exporter(None, clock, **settings) as file:
        for number in range(4):
            for service in ("a", "b"):
                await file(logs(log(f"{number:08}{LARGE}", service=service)))
            await file(logs(log(f"{number:08}{LARGE}", level="ERROR")))
            clock.now += 1
        await until(lambda: len(names(tmp_path)) == 8)
    found = {name: heads(tmp_path / name) for name in names(tmp_path)}
    assert found == {
        "a.log": ["00000003"],
        "a-2025-07-06T12-00-03.000.log": ["00000002"],
        "b.log": ["00000003"],
        "b-2025-07-06T12-00-03.000.log": ["00000002"],
        "kept.log": ["00000003"],
        "kept-2025-07-06T12-00-01.000.log": ["00000000"],
        "kept-2025-07-06T12-00-02.000.log": ["00000001"],
        "kept-2025-07-06T12-00-03.000.log": ["00000002"],
    }


async def test_groups_in_folders_are_tidied(tmp_path):
    """A `*` in a folder: the days of each folder are packed."""
    for group in ("s1", "s2"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "out-2025-07-01.log").write_text(f"{group}\n")
    settings = {
        "path": f"{tmp_path}/s*/out.log",
        "group_by": GroupBy(enabled=True),
        "rotation": Rotation(daily=True),
        "compression": "gzip",
    }
    async with exporter(None, Clock(NOON), **settings):
        await until(
            lambda: all(names(tmp_path / g) == ["out-2025-07-01.log.gz"] for g in ("s1", "s2"))
        )
    assert plain(tmp_path / "s1" / "out-2025-07-01.log.gz") == b"s1\n"


async def test_compression_that_fails_is_told_and_costs_nothing(tmp_path, caplog):
    """When the packed form cannot be written, the plain one stays, and it is counted and said."""
    stats = Stats()
    (tmp_path / "out-2025-07-01.log").write_text("one\n")
    (tmp_path / "out-2025-07-01.log.gz.tmp").mkdir()
    settings = {"rotation": Rotation(daily=True), "compression": "gzip"}
    failed = 'otelier_file_tidying_failed{exporter="file"}'
    async with exporter(stats, Clock(NOON), path=str(tmp_path / "out.log"), **settings) as file:
        await until(lambda: failed in stats.snapshot())
        await file(logs("goes on"))
    assert stats.snapshot()[failed] == 1
    assert (tmp_path / "out-2025-07-01.log").read_text() == "one\n"
    assert "cannot compress or delete what was put aside of" in caplog.text


async def test_compression_without_rotation_is_said(tmp_path, caplog):
    """A setting that has no effect is a warning that names the one that is missing."""
    async with exporter(path=str(tmp_path / "out.log"), compression="zstd"):
        pass
    assert "only files that rotation puts aside are compressed; add rotation" in caplog.text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Rotation(max_megabytes=-1), "max_megabytes must be 0 or more"),
        (lambda: Rotation(max_days=-1), "max_days must be 0 or more"),
        (lambda: Rotation(max_backups=-1), "max_backups must be 0 or more"),
        (lambda: Rotation(max_megabytes=0), "nothing would ever rotate"),
        (
            lambda: exporter(path="x", compression="gzip", compression_params=CompressionParams(level=10)),
            "level must be 0 to 9, found 10",
        ),
    ],
)  # fmt: skip
def test_rules_that_cannot_work_are_refused(make, text):
    """A rule that means nothing is an error with its fix."""
    with pytest.raises(ValueError, match=text):
        make()


WRITER = """
import asyncio, sys
from collector.exporters.file.config import Rotation
from tests.collector.exporters.batches import exporter, logs

async def main():
    settings = {"rotation": Rotation(max_megabytes=1, max_backups=0), "compression": sys.argv[2]}
    async with exporter(path=sys.argv[1], **settings) as file:
        for number in range(int(sys.argv[3]), 1_000_000):
            await file(logs(f"{number:08}" + "x" * 200_000))
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["gzip", "zstd"])
def test_kill_9_while_writing_rotating_and_compressing(tmp_path, method):
    """R19, F: after kill -9 at any moment every answered line is there once, in files that unpack."""
    path = tmp_path / "out.log"
    answered = -1
    for life in range(2):
        command = [sys.executable, "-c", WRITER, path, method, str(answered + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            for _ in range(10 + 7 * life):
                answered = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().splitlines()
            answered = int(rest[-1]) if rest else answered

    async def tidy():
        settings = {"rotation": Rotation(max_megabytes=1, max_backups=0), "compression": method}
        async with exporter(path=str(path), **settings):
            await until(lambda: not list(tmp_path.glob("out-*.log")))

    asyncio.run(tidy())
    ending = {"gzip": "gz", "zstd": "zst"}[method]
    shape = re.compile(rf"out-[-0-9T.]+\.log\.{ending}|out\.log|out\.log\.torn")
    assert [name for name in names(tmp_path) if not shape.fullmatch(name)] == []
    order = [*sorted(tmp_path.glob(f"out-*.{ending}")), path]
    found = [int(head) for each in order for head in heads(each)]
    # What was written and not answered before a kill stands there, and once more from the next life.
    once = sorted(set(found))
    assert once in (list(range(answered + 1)), list(range(answered + 2)))
    assert len(found) - len(once) <= 2
    assert found == sorted(found)


async def test_a_stop_does_not_wait_for_compression(tmp_path):
    """Closing leaves a file that is being packed as it was; the next start packs it."""
    old = tmp_path / "out-2025-07-01.log"
    with old.open("wb") as raw:
        for _ in range(24):
            raw.write(os.urandom(MIB // 2).hex().encode() + b"\n")
    whole = old.read_bytes()
    settings = {
        "path": str(tmp_path / "out.log"),
        "rotation": Rotation(daily=True),
        "compression": "gzip",
        "compression_params": CompressionParams(level=9),
    }
    async with exporter(None, Clock(NOON), **settings):
        pass
    assert names(tmp_path) == ["out-2025-07-01.log", "out-2025-07-06.log"]
    assert old.read_bytes() == whole
    settings |= {"compression": "zstd", "compression_params": None}
    async with exporter(None, Clock(NOON), **settings):
        await until(lambda: not old.exists())
    assert plain(tmp_path / "out-2025-07-01.log.zst") == whole
