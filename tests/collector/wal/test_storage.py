"""The durable log: what it keeps through crashes, damage, failing calls and full disks (D3)."""

import asyncio
import errno
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from collector.errors import Retryable, StartFailed
from collector.stats import Stats
from collector.wal.storage import Files, FileStorage
from tests.durability import (
    FailingFiles,
    ForgetfulFiles,
    append_until_refused,
    config,
    drain,
    host,
    ids_of,
    logs,
    stored,
    until,
)

pytestmark = pytest.mark.anyio

SMALL = {"segment_bytes": 64 << 10, "max_bytes": 1 << 20}


async def fill(folder, *names, **settings):
    """A closed log with one request for each name."""
    async with FileStorage(config(folder, **settings), host()) as wal:
        for name in names:
            await wal.append(logs(name), "logs", 1)


class Unsynced(Files):
    """For runs with hundreds of openings, where nothing is cut: the disk is not waited for."""

    def sync(self, fd):
        pass

    def sync_folder(self, path):
        pass


def segments(folder):
    return sorted(folder.glob("*.wal"))


# --- append and read ---


async def test_what_was_appended_is_read_in_order_with_its_origin(tmp_path):
    """A reader gives back bytes, signal, route, items and origin as they were appended."""
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink", ["logs"])
        sent = [logs("a", "b"), logs("c", tenant="other")]
        for batch in sent:
            await wal.append(batch, "logs", 2)
        records = await reader.read()
        assert [
            (each.number, each.signal, each.request, each.route, each.items, each.payload)
            for each in records
        ] == [
            (number, batch.signal, batch.request, "logs", 2, batch.wire)
            for number, batch in enumerate(sent, 1)
        ]
        assert reader.lag_items == 4
        reader.done([1, 2])
        assert (reader.lag_items, reader.oldest_unix_nano) == (0, None)


async def test_many_waiting_requests_share_a_commit(tmp_path):
    """Group commit: five hundred requests at once need a handful of fsyncs, and all are answered."""
    syncs = []

    class Counting(Files):
        def sync(self, fd):
            syncs.append(fd)
            super().sync(fd)

    async with FileStorage(config(tmp_path), host(), files=Counting()) as wal:
        numbers = await asyncio.gather(
            *(wal.append(logs(f"id-{each}"), "logs", 1) for each in range(500))
        )
    assert sorted(numbers) == list(range(1, 501))
    assert len(syncs) < 50


async def test_a_changed_message_is_encoded(tmp_path):
    """Without the bytes that it came from, a batch is stored as its message stands."""
    batch = logs("before")
    batch.message.resource_logs[0].scope_logs[0].log_records[0].body.string_value = "after"
    batch.wire = None
    async with FileStorage(config(tmp_path), host()) as wal:
        await wal.append(batch, "logs", 1)
    assert await stored(tmp_path) == ["after"]


async def test_reader_sees_only_its_routes(tmp_path):
    """An exporter is given the pipelines that name it, and what is addressed to it alone."""
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink", ["logs/a", "logs/b"])
        for route in ("logs/a", "logs/c", "@sink", "@other", "logs/b"):
            await wal.append(logs(route), route, 1)
        assert reader.lag_items == 3
        found = [each for record in await reader.read() for each in ids_of(record)]
    assert found == ["logs/a", "@sink", "logs/b"]


async def test_two_readers_do_not_wait_for_each_other(tmp_path):
    """One exporter drains the log while another has not delivered its first record."""
    async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
        slow = await wal.reader("slow", ["logs"])
        fast = await wal.reader("fast", ["logs"])
        names = [f"{each}-{'x' * 2000}" for each in range(100)]
        await asyncio.gather(*(wal.append(logs(name), "logs", 1) for name in names))
        held = await slow.read()
        assert await drain(fast, wal) == names
        await wal.checkpoint()
        assert slow.lag_items == 101
        slow.done([record.number for record in held])
        assert len(segments(tmp_path)) > 1
        rest = await drain(slow, wal)
        assert [each for record in held for each in ids_of(record)] + rest[
            : 100 - len(held)
        ] == names


# --- cursors ---


async def test_restart_resumes_where_deliveries_ended(tmp_path):
    """What is settled is never read again, what is not settled is, in any order of endings."""
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink", ["logs"])
        for each in range(6):
            await wal.append(logs(str(each)), "logs", 1)
        await reader.read()
        reader.done([1, 2, 4, 6])
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink", ["logs"])
        assert reader.lag_items == 2
        assert [each for record in await reader.read() for each in ids_of(record)] == ["2", "4"]


async def test_a_new_exporter_starts_now_or_at_the_oldest(tmp_path):
    """An exporter that is added later begins where its configuration says."""
    async with FileStorage(config(tmp_path), host()) as wal:
        await wal.reader("first", ["logs"])
        await wal.append(logs("old"), "logs", 1)
        now = await wal.reader("now", ["logs"], "now")
        oldest = await wal.reader("oldest", ["logs"], "oldest")
        assert (now.lag_items, oldest.lag_items) == (0, 1)
        await wal.append(logs("new"), "logs", 1)
        assert await drain(now, wal) == ["new"]
        assert await drain(oldest, wal) == ["old", "new"]


async def test_a_new_cursor_is_on_disk_before_the_first_answer(tmp_path):
    """Killed before any cursor was saved again, an exporter still gets what came after its start."""
    files = ForgetfulFiles(tmp_path / "live")
    async with FileStorage(config(tmp_path / "live"), host(), files=files) as wal:
        await wal.reader("sink", ["logs"])
        await wal.append(logs("kept"), "logs", 1)
        left = files.cut(tmp_path / "cut")
    async with FileStorage(config(left), host()) as wal:
        reader = await wal.reader("sink", ["logs"], "now")
        assert await drain(reader, wal) == ["kept"]


async def test_segments_are_deleted_when_every_cursor_is_past(tmp_path):
    """The slowest exporter keeps files, a removed exporter does too, and both are named."""
    async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
        fast, slow = await wal.reader("fast", ["logs"]), await wal.reader("slow", ["logs"])
        for each in range(40):
            await wal.append(logs(f"{each}-{'x' * 8000}"), "logs", 1)
        await drain(fast, wal)
        await wal.checkpoint()
        assert len(segments(tmp_path)) > 3
        await drain(slow, wal)
        await wal.checkpoint()
        assert len(segments(tmp_path)) == 1
    async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
        await wal.reader("fast", ["logs"])
        assert "not configured: slow (let go with `collector queue drop slow`)" in wal.describe()


async def test_numbers_go_on_after_everything_was_delivered_and_deleted(tmp_path):
    """A restart with an empty log gives no number twice, so no cursor skips a new record."""
    for start in range(3):
        async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
            reader = await wal.reader("sink", ["logs"])
            names = [f"{start}-{each}-{'x' * 9000}" for each in range(10)]
            for name in names:
                await wal.append(logs(name), "logs", 1)
            assert await drain(reader, wal) == names
            await wal.checkpoint()


async def test_a_damaged_cursor_delivers_again_and_is_kept(tmp_path):
    """A cursor that cannot be read costs repeats, never data."""
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink", ["logs"])
        await wal.append(logs("a"), "logs", 1)
        reader.done([record.number for record in await reader.read()])
    cursor = tmp_path / "cursors" / "sink.json"
    cursor.write_bytes(cursor.read_bytes().replace(b'"next": 2', b'"next": 9'))
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink", ["logs"], "now")
        assert await drain(reader, wal) == ["a"]
    assert (tmp_path / "cursors" / "sink.json.bad").exists()


async def test_exporter_ids_become_safe_file_names(tmp_path):
    """Slashes, dots and long names of exporters stay inside the folder and apart."""
    names = ["file/../../x", "file/..", "otlp/" + "n" * 900, "otlp/" + "n" * 901, "Ä/ß"]
    async with FileStorage(config(tmp_path), host()) as wal:
        for name in names:
            await wal.reader(name, ["logs"])
    async with FileStorage(config(tmp_path), host()) as wal:
        assert all(wal.knows(name) for name in names)
    assert len(list((tmp_path / "cursors").iterdir())) == len(names)


# --- deduplication ---


async def test_a_repeat_is_answered_and_not_stored(tmp_path):
    """B44: an identical request counts as deduplicated, also while the first is being written."""
    stats = Stats()
    async with FileStorage(config(tmp_path), host(stats=stats)) as wal:
        batch = logs("a", "b")
        numbers = await asyncio.gather(*(wal.append(batch, "logs", 2) for _ in range(5)))
        assert await wal.append(batch, "logs", 2) is None
    assert numbers == [1, None, None, None, None]
    assert await stored(tmp_path) == ["a", "b"]
    name = 'otelier_wal_deduplicated_items{signal="logs",storage="file_storage"}'
    assert stats.snapshot()[name] == 10


async def test_a_repeat_is_recognised_after_restart_and_after_deletion(tmp_path):
    """B44: the window is rebuilt from the log, and kept when the log's files are deleted."""
    batch = logs("again")
    async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
        reader = await wal.reader("sink", ["logs"])
        await wal.append(batch, "logs", 1)
    async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
        assert await wal.append(batch, "logs", 1) is None
        reader = await wal.reader("sink", ["logs"])
        for each in range(10):
            await wal.append(logs(f"{each}-{'x' * 9000}"), "logs", 1)
        await drain(reader, wal)
        await wal.checkpoint()
        assert segments(tmp_path)[0].name > f"{2:020}"
    async with FileStorage(config(tmp_path, **SMALL), host()) as wal:
        assert await wal.append(batch, "logs", 1) is None


async def test_a_repeat_is_stored_again_after_the_window(tmp_path):
    """Fifteen minutes later the same bytes are a new request."""
    now = [time.time_ns()]
    batch = logs("a", received_at=now[0])
    async with FileStorage(config(tmp_path), host(), now=lambda: now[0]) as wal:
        assert await wal.append(batch, "logs", 1) == 1
        now[0] += 14 * 60 * 10**9
        assert await wal.append(batch, "logs", 1) is None
        now[0] += 2 * 60 * 10**9
        assert await wal.append(batch, "logs", 1) == 2


async def test_parts_of_one_request_and_other_routes_are_no_repeats(tmp_path):
    """What a processor made of one request, and the same request in two pipelines, stay apart."""
    whole = logs("a")
    half, other = logs("b"), logs("c")
    half.request = other.request = whole.request
    half.wire = other.wire = None
    async with FileStorage(config(tmp_path), host()) as wal:
        sent = [(whole, "logs"), (half, "logs"), (other, "logs"), (whole, "logs/2")]
        assert [await wal.append(batch, route, 1) for batch, route in sent] == [1, 2, 3, 4]
        assert await wal.append(half, "logs", 1) is None


# --- crashes and damage ---


async def test_torn_tail_is_cut_at_every_byte(tmp_path):
    """A file that ends anywhere gives its whole records, and takes new ones behind them."""
    await fill(tmp_path / "whole", "one", "two")
    data = segments(tmp_path / "whole")[0].read_bytes()
    sizes = {}
    for size in range(128, len(data) + 1):
        folder = tmp_path / "torn"
        folder.mkdir()
        (folder / f"{1:020}.wal").write_bytes(data[:size])
        async with FileStorage(config(folder), host(), files=Unsynced()) as wal:
            reader = await wal.reader("check", ["logs"], "oldest")
            before = reader.lag_items
            found = await drain(reader, wal)
        assert before == len(found)
        assert found == ["one", "two"][: len(found)]
        sizes.setdefault(len(found), size)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    assert list(sizes) == [0, 1, 2]
    assert sizes[2] == len(data)


async def test_a_file_cut_inside_its_header_is_no_obstacle(tmp_path):
    """A segment whose creation was cut short never held a record."""
    for size in (0, 1, 64, 127):
        folder = tmp_path / str(size)
        await fill(folder, "kept")
        (folder / f"{2:020}.wal").write_bytes(segments(folder)[0].read_bytes()[:size])
        assert await stored(folder) == ["kept"]


@pytest.mark.parametrize("fill_byte", [b"\0", b"\xff"])
async def test_garbage_behind_the_end_is_cut_and_kept(tmp_path, fill_byte):
    """What a file system leaves behind the last record is no record; what is not zero is kept."""
    await fill(tmp_path, "a")
    with segments(tmp_path)[0].open("ab") as file:
        file.write(fill_byte * 5000)
    assert await stored(tmp_path) == ["a"]
    kept = [path.read_bytes() for path in tmp_path.glob("*.torn")]
    assert kept == ([] if fill_byte == b"\0" else [fill_byte * 5000])


async def test_each_flipped_bit_costs_at_most_its_own_record(tmp_path):
    """A record with a wrong checksum is skipped, counted and kept aside; its neighbours are read."""
    names = ["one", "two", "three", "four"]
    await fill(tmp_path / "whole", *names)
    whole = segments(tmp_path / "whole")[0].read_bytes()
    chance = random.Random(5)
    for place in sorted(chance.sample(range(len(whole)), 60)):
        folder = tmp_path / "flipped"
        folder.mkdir()
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        (folder / f"{1:020}.wal").write_bytes(data)
        stats = Stats()
        async with FileStorage(config(folder), host(stats=stats), files=Unsynced()) as wal:
            reader = await wal.reader("check", ["logs"], "oldest")
            found = await drain(reader, wal)
            await asyncio.sleep(0)
            missing, bad = reader.missing, reader.bad_parts
        lost = [name for name in names if name not in found]
        assert [name for name in names if name not in lost] == found
        if place < 128:
            assert lost == []
        elif lost == ["four"]:  # the last one: cut as a torn tail would be, and kept
            assert [path.suffix for path in folder.glob("*.torn")] == [".torn"]
        else:
            assert len(lost) == 1
            assert (missing, bad) == (1, 1)
            assert len(list(folder.glob("*.bad"))) == 1
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


async def test_damage_is_counted_and_its_file_outlives_deletion(tmp_path):
    """The operator sees how much is missing, and can still look at the file."""
    await fill(tmp_path, "one", "two", "three")
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"two")] ^= 1
    path.write_bytes(data)
    stats = Stats()
    async with FileStorage(config(tmp_path, **SMALL), host(stats=stats)) as wal:
        reader = await wal.reader("sink", ["logs"], "oldest")
        assert await drain(reader, wal) == ["one", "three"]
        for each in range(10):
            await wal.append(logs(f"{each}-{'x' * 9000}"), "logs", 1)
        await drain(reader, wal)
        await wal.checkpoint()
        await until(lambda: "otelier_wal_missing_records" in str(stats.snapshot()))
    counted = {
        name.partition("{")[0]: value
        for name, value in stats.snapshot().items()
        if "damaged" in name or "missing" in name
    }
    assert counted == {"otelier_wal_damaged_parts": 1, "otelier_wal_missing_records": 1}
    assert not path.exists()
    assert path.with_suffix(".bad").read_bytes() == bytes(data)


async def test_a_request_cannot_pose_as_a_record(tmp_path):
    """Bytes of another segment inside a request are never read as records, even behind damage."""
    await fill(tmp_path / "other", "forged")
    forged = segments(tmp_path / "other")[0].read_bytes()
    await fill(tmp_path / "log", "a", forged.hex(), "b")
    path = segments(tmp_path / "log")[0]
    data = path.read_bytes()
    at = data.index(forged.hex().encode())
    path.write_bytes(data[: at - 60] + b"\0" * 30 + forged + data[at - 30 + len(forged) :])
    assert await stored(tmp_path / "log") == ["a", "b"]


async def test_a_segment_without_a_header_is_kept_aside(tmp_path):
    """A file that cannot be understood is renamed and reported, and the log goes on."""
    await fill(tmp_path, "a")
    await fill(tmp_path, "b")
    first, _ = segments(tmp_path)
    first.write_bytes(b"x" * 500)
    assert await stored(tmp_path) == ["b"]
    assert first.with_suffix(".bad").read_bytes() == b"x" * 500


async def test_a_later_format_is_refused_and_not_touched(tmp_path):
    """R23: a log of a later version says what to do; nothing in it changes."""
    await fill(tmp_path, "a")
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[8] = data[72] = 9
    path.write_bytes(data)
    with pytest.raises(StartFailed, match=r"later version \(format 9\): start that version again"):
        async with FileStorage(config(tmp_path), host()):
            pass
    assert path.read_bytes() == data


async def test_one_process_owns_a_folder(tmp_path):
    """The second one is told which process has it, and what to do."""
    script = (
        "import asyncio, sys; from collector.wal.storage import FileStorage; from tests.durability import *\n"
        "async def main():\n"
        "    async with FileStorage(config(sys.argv[1]), host()):\n"
        "        print('open', flush=True); sys.stdin.read()\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).parent.parent.parent.parent
    pipe = asyncio.subprocess.PIPE
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), cwd=root, stdin=pipe, stdout=pipe
    )
    assert await owner.stdout.readline() == b"open\n"
    with pytest.raises(StartFailed) as caught:
        async with FileStorage(config(tmp_path), host()):
            pass
    owner.stdin.close()
    assert await owner.wait() == 0
    assert str(caught.value) == (
        f"the queue folder {tmp_path} is in use by process {owner.pid}: stop that process, "
        "or give each collector a `directory` of its own"
    )
    async with FileStorage(config(tmp_path), host()):
        pass


# --- power cuts ---


class Hasty(FileStorage):
    """A log with the mistake that these tests must find: it answers before anything is on disk."""

    async def append(self, batch, route="", items=0):
        self.late = asyncio.create_task(super().append(batch, route, items))
        self.late.add_done_callback(lambda task: task.exception())
        return 0


class Careless(FileStorage):
    """A log with another mistake: it writes, but does not force to disk."""

    def __init__(self, settings, *arguments, **options):
        settings = config(settings.directory, fsync=False, **SMALL)
        super().__init__(settings, *arguments, **options)


async def lost_in_power_cuts(wal_class, tmp_path):
    """How many acknowledged requests are missing after a cut at each change of a short run."""
    answered = []
    cuts = []
    numbers = itertools.count()  # the writer's thread cuts, too

    def before():
        known = list(answered)
        cuts.append((known, files.cut(tmp_path / "cuts" / str(next(numbers)))))

    files = ForgetfulFiles(tmp_path / "live", before)
    async with wal_class(config(tmp_path / "live", **SMALL), host(), files=files) as wal:
        reader = await wal.reader("sink", ["logs"])
        for each in range(14):
            name = f"{each}-{'x' * 9000}"
            await wal.append(logs(name), "logs", 1)
            answered.append(name)
            before()
            if each == 9:
                delivered = await reader.read()
                reader.done([record.number for record in delivered])
                gone = {name for record in delivered for name in ids_of(record)}
                await wal.checkpoint()
                answered[:] = [name for name in answered if name not in gone]
    lost = 0
    for known, left in cuts:
        found = await stored(left, files=Unsynced(), **SMALL)
        lost += len(set(known) - set(found))
    assert len(cuts) > 30
    return lost


async def test_power_cut_at_every_step_loses_nothing_acknowledged(tmp_path):
    """R2: whatever is answered can be read from what was forced to disk at that moment."""
    assert await lost_in_power_cuts(FileStorage, tmp_path) == 0


@pytest.mark.parametrize("broken", [Hasty, Careless])
async def test_the_power_cut_test_finds_a_broken_log(tmp_path, broken, caplog):
    """Mutation run: a log that answers too early fails the test above, so the test can fail."""
    assert await lost_in_power_cuts(broken, tmp_path) > 0


# --- failing calls ---


@pytest.mark.parametrize(
    ("error", "times", "short"),
    [
        (errno.EIO, 1, False),
        (errno.EIO, 3, True),
        (errno.ENOSPC, 1, True),
        (errno.ENOSPC, 40, False),
    ],
    ids=["eio", "eio-short-3", "enospc-short", "enospc-40"],
)
async def test_each_failing_call_in_turn_breaks_no_promise(tmp_path, error, times, short):
    """R3: with the n-th change failing, nothing is acknowledged and missing, and the log opens."""
    at = 0
    while True:
        at += 1
        folder = tmp_path / str(at)
        files = FailingFiles(at, error, times, short=short)
        answered, sent = [], []
        clock = [0.0]
        try:
            async with FileStorage(
                config(folder, **SMALL), host(), files=files, clock=lambda now=clock: now[0]
            ) as wal:
                reader = await wal.reader("sink", ["logs"])
                for each in range(12):
                    name = f"{each}-{'x' * 9000}"
                    sent.append(name)
                    try:
                        await wal.append(logs(name), "logs", 1)
                    except Retryable:
                        clock[0] += 3
                        continue
                    answered.append(name)
                    if each == 8:
                        records = await reader.read()
                        found = [name for record in records for name in ids_of(record)]
                        assert found == answered
                        answered.clear()
                        reader.done([record.number for record in records])
                        try:
                            await wal.checkpoint()
                        except OSError:
                            clock[0] += 3
        except (StartFailed, OSError):
            assert files.failed
        left = await stored(folder, files=Unsynced(), **SMALL)
        assert [name for name in left if name in answered] == answered
        assert set(left) <= set(sent)
        assert len(left) == len(set(left))
        if not files.failed:
            break
    assert at > 25


async def test_a_failed_fsync_is_final_for_its_file(tmp_path):
    """After EIO the records are written to a new file, and the old descriptor is not used again."""
    events = []
    first, second = f"{1:020}.wal", f"{2:020}.wal"

    class Once(Files):
        made: ClassVar[dict[int, str]] = {}

        def create(self, path):
            fd = super().create(path)
            self.made[fd] = path.name
            events.append(f"create {path.name}")
            return fd

        def sync(self, fd):
            failing = "failed" not in events and events.count(f"write {first}") == 3
            events.append("failed" if failing else f"sync {self.made.get(fd)}")
            if failing:
                raise OSError(errno.EIO, "Input/output error")
            super().sync(fd)

        def write(self, fd, data, at=None):
            events.append(f"write {self.made.get(fd)}")
            return super().write(fd, data, at)

    async with FileStorage(config(tmp_path), host(), files=Once()) as wal:
        await wal.append(logs("first"), "logs", 1)
        await wal.append(logs("second"), "logs", 1)
        assert events == [
            f"create {first}",
            f"write {first}",
            f"sync {first}",
            f"write {first}",
            f"sync {first}",
            f"write {first}",
            "failed",
            f"sync {first}",  # of the cut, which is a courtesy: nothing is made of its success
            f"create {second}",
            f"write {second}",
            f"sync {second}",
            f"write {second}",
            f"sync {second}",
        ]
    assert await stored(tmp_path) == ["first", "second"]


# --- the budget ---


async def test_refuses_before_it_is_full_and_accepts_again_below(tmp_path):
    """From 90 % new requests are refused with a delay; below 75 %, after 2 s, they are taken."""
    clock = [0.0]
    stats = Stats()
    wal = FileStorage(config(tmp_path, **SMALL), host(stats=stats), clock=lambda: clock[0])
    async with wal:
        reader = await wal.reader("sink", ["logs"])
        taken, refusal = await append_until_refused(wal, 9000)
        used = sum(path.stat().st_size for path in segments(tmp_path))
        assert 0.88 < used / wal.config.max_bytes < 0.91
        assert refusal.delay_s == 2.0
        assert str(refusal) == (
            f"the queue in {tmp_path} is full (max_bytes at 90%); "
            f'exporter "sink" is {len(taken)} items behind'
        )
        while reader.lag_items:
            reader.done([record.number for record in await reader.read()])
        await wal.checkpoint()
        clock[0] = 0.5
        with pytest.raises(Retryable) as caught:
            await wal.append(logs("too soon"), "logs", 1)
        assert caught.value.delay_s == 1.5
        clock[0] = 2.0
        await wal.append(logs("taken"), "logs", 1)
        assert await drain(reader, wal) == ["taken"]
    name = 'otelier_wal_refused_requests{reason="max_bytes",storage="file_storage"}'
    assert stats.snapshot()[name] == 2


async def test_refuses_when_the_oldest_is_nearly_too_old(tmp_path):
    """With `max_age` an exporter that is too far behind stops the intake instead of losing data."""
    now = [time.time_ns()]
    async with FileStorage(config(tmp_path, max_age=100.0), host(), now=lambda: now[0]) as wal:
        reader = await wal.reader("sink", ["logs"])
        await wal.append(logs("a", received_at=now[0]), "logs", 1)
        await reader.read()
        now[0] += 89 * 10**9
        await wal.append(logs("b", received_at=now[0]), "logs", 1)
        now[0] += 2 * 10**9
        with pytest.raises(Retryable, match="max_age at 91%"):
            await wal.append(logs("c", received_at=now[0]), "logs", 1)


@pytest.fixture
def disk(tmp_path):
    """A file system of 32 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("FULL DISK NOT TESTED: mounting a tmpfs needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"FULL DISK NOT TESTED: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_full_disk_refuses_early_and_resumes_alone(disk):
    """R5: refusals come before ENOSPC, nothing acknowledged is lost, and room ends the refusals."""
    clock = [0.0]
    stats = Stats()
    settings = config(disk / "queue", segment_bytes=1 << 20, reserve_bytes=1 << 20)
    async with FileStorage(settings, host(stats=stats), clock=lambda: clock[0]) as wal:
        reader = await wal.reader("sink", ["logs"])
        (disk / "stranger").write_bytes(b"x" * (12 << 20))
        answered, refusal = await append_until_refused(wal, 200_000)
        assert "disk at 9" in str(refusal)
        assert "otelier_wal_write_failed" not in str(stats.snapshot())
        free = os.statvfs(disk)
        assert free.f_bavail * free.f_frsize > 2 << 20
        with pytest.raises(OSError, match="No space left"):  # a stranger takes the rest
            (disk / "greedy").write_bytes(b"x" * (32 << 20))
        while reader.lag_items:
            reader.done([record.number for record in await reader.read()])
        await wal.checkpoint()  # cursors are saved on a full disk, and make room
        (disk / "greedy").unlink()
        (disk / "stranger").unlink()
        await wal.checkpoint()
        clock[0] = 2.0
        await wal.append(logs("after"), "logs", 1)
        assert await drain(reader, wal) == ["after"]
    assert len(answered) > 50


async def test_enospc_in_the_middle_of_a_write_is_not_acknowledged(disk):
    """R3, R5: a disk that fills under a write costs a refusal; everything answered is there."""
    clock = [0.0]
    blob = disk / "blob"
    large = []

    class Filled(Files):
        def write(self, fd, data, at=None):
            if len(data) > 100_000:
                large.append(fd)
            if len(large) == 6 and not blob.exists():
                with pytest.raises(OSError, match="No space left"):
                    blob.write_bytes(b"x" * (32 << 20))
            return super().write(fd, data, at)

    settings = config(disk / "queue", segment_bytes=1 << 20, reserve_bytes=1 << 20)
    async with FileStorage(settings, host(), files=Filled(), clock=lambda: clock[0]) as wal:
        answered, refusal = await append_until_refused(wal, 200_000)
        assert "No space left on device" in str(refusal)
        assert len(answered) == 5
        blob.unlink()
        await wal.checkpoint()
        clock[0] = 1.9
        with pytest.raises(Retryable):  # the failed write began it
            await wal.append(logs("soon"), "logs", 1)
        clock[0] = 2.0
        await wal.append(logs("later"), "logs", 1)
    assert await stored(disk / "queue") == [*answered, "later"]


async def test_cursor_files_say_what_they_hold(tmp_path):
    """A cursor is one line of JSON with its checksum: an operator can read it."""
    async with FileStorage(config(tmp_path), host()) as wal:
        reader = await wal.reader("sink/a", ["logs"])
        for each in range(6):
            await wal.append(logs(str(each)), "logs", 1)
        await reader.read()
        reader.done([2, 3, 6])
    line = (tmp_path / "cursors" / "sink%2Fa.json").read_text().splitlines()[0]
    assert json.loads(line) == {
        "version": 1,
        "exporter": "sink/a",
        "next": 1,
        "done": [[2, 4], [6, 7]],
        "routes": ["@sink/a", "logs"],
    }
