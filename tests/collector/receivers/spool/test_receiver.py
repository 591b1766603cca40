"""Spool files that the library wrote, taken in by the collector (D3, C9)."""

import asyncio
import logging
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Permanent, Retryable, StartFailed
from collector.model import Duration, Host, Signal
from collector.otlp import request_key
from collector.receivers.spool.file import SpoolFile as Orphan  # the reader, against the writer
from collector.receivers.spool.receiver import Spool
from collector.stats import Stats
from telemetry._spool import file as spool
from telemetry._spool.file import SpoolFile
from tests.durability import ids, until
from tests.load import request

pytestmark = pytest.mark.anyio


class Pipeline:
    """Remembers what it was given, and fails as it is told."""

    def __init__(self):
        self.taken = []
        self.wires = []
        self.keys = []
        self.fails = lambda names: None

    async def __call__(self, batch):
        names = ids(batch) if batch.signal is Signal.LOGS else [batch.signal.value]
        error = self.fails(names)
        if error is not None:
            raise error
        self.taken += names
        self.wires.append(batch.wire)
        self.keys.append(batch.request.key)


class Setup:
    def __init__(self, folder, signals=tuple(Signal), **settings):
        self.folder = folder
        self.pipeline = Pipeline()
        self.stats = Stats()
        settings.setdefault("poll_interval", Duration(0.01))
        self.receiver = Spool(
            Spool.Config(directory=str(folder), **settings),
            Host("spool", self.stats, logging.getLogger("collector.component.spool")),
            dict.fromkeys(signals, self.pipeline),
        )

    async def __aenter__(self):
        await self.receiver.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self.receiver.__aexit__(*exc)

    def count(self, name, **attributes):
        inner = ",".join(
            f'{key}="{value}"' for key, value in sorted({**attributes, "receiver": "spool"}.items())
        )
        return self.stats.snapshot().get(f"{name}{{{inner}}}", 0)


def body(*names):
    return request("logs", names)


def write(folder, *requests, keep=False):
    """A spool file with these log requests; its writer is gone unless it is kept."""
    file = SpoolFile.create(folder, "shop")
    for each in requests:
        file.request("logs", 1, each)
    if not keep:
        file.close()
    return file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_what_the_library_writes_is_delivered_byte_by_byte(tmp_path):
    """Sealed requests are one request again, done ones are none; the file is deleted at the end."""
    file = SpoolFile.create(tmp_path, "shop")
    parts = [body(f"{each}") for each in range(7)]
    numbers = [file.request("logs", 1, part) for part in parts]
    file.request("traces", 1, request("traces", ["span"]))
    file.request("metrics", 1, request("metrics", ["point"]))
    file.name(spool.SEAL, tuple(numbers[1:5]))
    file.name(spool.SEAL, tuple(numbers[1:3]))  # it was too large, and was halved
    file.name(spool.SEAL, tuple(numbers[3:5]))
    file.name(spool.DONE, tuple(numbers[1:3]))
    file.name(spool.DONE, (numbers[6],))
    file.close()
    content, _ = spool.peek(file.path)
    async with Setup(tmp_path) as setup:
        await until(lambda: names(tmp_path) == [])
    bodies = [unit.body for unit in content.units]
    assert sorted(setup.pipeline.wires) == sorted(bodies)
    keys = [request_key("", Signal(unit.signal), unit.body) for unit in content.units]
    assert sorted(setup.pipeline.keys) == sorted(keys)
    assert sorted(setup.pipeline.taken) == ["0", "3", "4", "5", "metrics", "traces"]
    assert setup.count("otelcol_receiver_accepted_log_records", transport="spool") == 4
    assert setup.count("otelier_spool_taken_files") == 1


FRAMES = st.lists(
    st.one_of(
        st.tuples(st.just(spool.REQUEST), st.integers(0, 4), st.binary(max_size=40)),
        st.tuples(st.just(spool.SEAL), st.lists(st.integers(1, 8), max_size=4), st.none()),
        st.tuples(st.just(spool.DONE), st.lists(st.integers(1, 8), max_size=4), st.none()),
        st.tuples(st.just(9), st.just(0), st.binary(max_size=9)),
    ),
    max_size=12,
)


@given(frames=FRAMES, cut=st.integers(0, 60), flip=st.one_of(st.none(), st.integers(0, 600)))
def test_reader_and_writer_agree_on_any_file(tmp_path_factory, frames, cut, flip):
    """Contract: whatever frames a file has, cut and damaged anywhere, both find the same requests."""
    data = spool.MAGIC
    for number, (kind, which, payload) in enumerate(frames, 1):
        if payload is None:
            named = b"".join(each.to_bytes(8, "little") for each in which)
            data += spool.frame(kind, 0, 2, number, named)
        else:
            data += spool.frame(kind, which, 2, number, payload)
    data = bytearray(data[: len(data) - cut] if cut < len(data) else data)
    if flip is not None and flip < len(data):
        data[flip] ^= 0x40
    path = tmp_path_factory.mktemp("contract") / "a.spool"
    path.write_bytes(data)
    theirs = spool.parse(bytes(data))
    file = Orphan.take(path)
    try:
        ours = file.look()
        found = [(str(unit.signal), file.body(unit), unit.records, unit.ids) for unit in ours.units]
        wanted = [(unit.signal, unit.body, unit.records, unit.ids) for unit in theirs.units]
        assert found == wanted
        if not ours.foreign:
            assert (ours.damaged, file.size) == (theirs.bad, theirs.end)
            file.done(ours.units[:1])
            assert len(spool.parse(path.read_bytes()).units) == max(0, len(found) - 1)
    finally:
        file.close()


async def test_a_living_program_keeps_its_file(tmp_path):
    """The lock says who lives; when the program is gone, its file is taken in."""
    living = write(tmp_path, body("mine"), keep=True)
    write(tmp_path, body("orphan"))
    async with Setup(tmp_path) as setup:
        await until(lambda: setup.pipeline.taken == ["orphan"])
        await until(lambda: names(tmp_path) == [living.path.name])
        living.request("logs", 1, body("later"))
        living.close()
        await until(lambda: names(tmp_path) == [])
    assert sorted(setup.pipeline.taken) == ["later", "mine", "orphan"]


async def test_nothing_is_deleted_before_it_is_acknowledged(tmp_path):
    """A pipeline that takes nothing leaves the file; what it took is noted and not sent again."""
    write(tmp_path, *(body(f"{each:02}") for each in range(40)))
    async with Setup(tmp_path) as setup:
        setup.pipeline.fails = lambda names: Retryable("full", 0.0) if names[0] >= "10" else None
        await until(lambda: len(setup.pipeline.taken) == 10)
    (path,) = tmp_path.iterdir()
    assert len(spool.peek(path)[0].units) == 30
    async with Setup(tmp_path) as again:
        await until(lambda: names(tmp_path) == [])
    assert sorted(setup.pipeline.taken + again.pipeline.taken) == [
        f"{each:02}" for each in range(40)
    ]


async def test_bad_files_are_set_aside_with_the_reason(tmp_path):
    """Foreign bytes, damage in the middle, a request that nobody takes: kept, named, never again."""
    (tmp_path / "a.spool").write_bytes(b"this is something else")
    damaged = write(tmp_path, body("before"), body("broken"), body("after"))
    data = bytearray(damaged.path.read_bytes())
    data[data.index(b"broken")] ^= 1
    damaged.path.write_bytes(data)
    refused = write(tmp_path, body("good"), b"\xff\xff no request", body("unloved"), body("fine"))
    large = write(tmp_path, body("x" * (1 << 20)), body("y"))
    async with Setup(tmp_path, max_file_mib=1) as setup:
        setup.pipeline.fails = lambda names: Permanent("not this") if names == ["unloved"] else None
        await until(lambda: not list(tmp_path.glob("*.spool")))
    reasons = {path.name: path.read_text() for path in tmp_path.glob("*.txt")}
    assert reasons.keys() == {
        f"{each}.bad.txt"
        for each in ("a.spool", damaged.path.name, refused.path.name, large.path.name)
    }
    assert reasons["a.spool.bad.txt"] == "it does not begin as a spool file does\n"
    assert reasons[f"{damaged.path.name}.bad.txt"] == "1 damaged frames\n"
    assert "request 2 is rejected: " in reasons[f"{refused.path.name}.bad.txt"]
    assert "request 3 is rejected: not this" in reasons[f"{refused.path.name}.bad.txt"]
    assert "larger than max_file_mib" in reasons[f"{large.path.name}.bad.txt"]
    assert sorted(setup.pipeline.taken) == ["after", "before", "fine", "good"]
    assert setup.count("otelier_spool_bad_files") == 4
    left = spool.parse((tmp_path / f"{refused.path.name}.bad").read_bytes()).units
    assert [unit.ids for unit in left] == [(2,), (3,)]


async def test_a_torn_tail_is_no_damage(tmp_path):
    """The frame that the writer died in is cut off; everything before it is delivered."""
    file = write(tmp_path, body("whole"), body("torn"))
    os.truncate(file.path, file.path.stat().st_size - 3)
    async with Setup(tmp_path) as setup:
        await until(lambda: names(tmp_path) == [])
    assert setup.pipeline.taken == ["whole"]


async def test_old_requests_are_dropped_only_when_asked_for(tmp_path):
    """`max_age` counts what it drops; without it age does not matter."""
    write(tmp_path, body("old"))
    async with Setup(tmp_path, max_age=Duration(1e-6)) as setup:
        await until(lambda: names(tmp_path) == [])
    assert setup.pipeline.taken == []
    assert setup.count("otelier_receiver_rejected_items", reason="expired") == 1
    assert setup.count("otelcol_receiver_refused_log_records", transport="spool") == 1


async def test_a_signal_without_a_pipeline_waits(tmp_path):
    """Logs are delivered, spans stay in the file until the configuration has a place for them."""
    file = SpoolFile.create(tmp_path, "shop")
    file.request("traces", 1, request("traces", ["span"]))
    file.request("logs", 1, body("line"))
    file.close()
    async with Setup(tmp_path, signals=[Signal.LOGS]) as setup:
        await until(lambda: setup.pipeline.taken == ["line"])
    assert [unit.signal for unit in spool.peek(file.path)[0].units] == ["traces"]
    async with Setup(tmp_path) as setup:
        await until(lambda: names(tmp_path) == [])
    assert setup.pipeline.taken == ["traces"]


async def test_links_and_other_files_are_left_alone(tmp_path):
    """No symbolic link is followed; files of other names are nobody's business here."""
    folder, elsewhere = tmp_path / "spool", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_bytes(b"mine")
    (folder / "a.spool").symlink_to(elsewhere)
    (folder / "notes.txt").write_text("mine too")
    (folder / ".making.spool").write_bytes(b"soon")
    os.mkfifo(folder / "pipe.spool")
    write(folder, body("x"))
    async with Setup(folder) as setup:
        await until(lambda: setup.pipeline.taken == ["x"])
    assert elsewhere.read_bytes() == b"mine"
    assert names(folder) == [".making.spool", "a.spool", "notes.txt", "pipe.spool"]


async def test_a_missing_folder_may_come_later(tmp_path):
    """The receiver starts before any program has made the folder; a file in its place is refused."""
    async with Setup(tmp_path / "later") as setup:
        await asyncio.sleep(0.05)
        write(tmp_path / "later", body("x"))
        await until(lambda: setup.pipeline.taken == ["x"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match="no folder"):
        await Setup(tmp_path / "file").__aenter__()


async def test_many_files_with_two_collectors(tmp_path):
    """Each file has one owner at a time: two that look at the same folder deliver each request once."""
    chance = random.Random(1)
    wanted = [f"{number}-{each}" for number in range(30) for each in range(chance.randrange(1, 9))]
    by_file = {}
    for each in wanted:
        by_file.setdefault(each.split("-")[0], []).append(body(each))
    for requests in by_file.values():
        write(tmp_path, *requests)
    async with Setup(tmp_path) as one, Setup(tmp_path) as two:
        await until(lambda: names(tmp_path) == [])
    assert sorted(one.pipeline.taken + two.pipeline.taken) == sorted(wanted)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("directory", ""),
        ("poll_interval", Duration(0)),
        ("max_age", Duration(-1)),
        ("max_file_mib", 0),
    ],
)
def test_settings_that_cannot_work_are_refused(key, value):
    """Each names its key."""
    settings = {"directory": "x", key: value}
    with pytest.raises(ValueError, match=key):
        Spool.Config(**settings)
