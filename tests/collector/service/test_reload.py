"""Reading the configuration again: what is the same goes on, nothing in work is lost (D3)."""

import asyncio
import logging
from itertools import chain
from typing import ClassVar

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.config import InvalidConfig, load
from collector.errors import Permanent, Retryable, StartFailed
from collector.model import Batch, Request, Signal
from collector.sending_queue.config import RetryOnFailure, SendingQueue
from collector.service.service import CannotGoBack, Service
from tests.durability import ids, logs, until

pytestmark = pytest.mark.anyio


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of all components here; `place` is held as a port or a locked file is."""

    place: str = ""
    word: str = ""
    fails: bool = False
    sending_queue: SendingQueue | None = None
    retry_on_failure: RetryOnFailure | None = None


class RunningComponent:
    Config = Settings
    events: ClassVar[list[str]] = []
    taken: ClassVar[set[str]] = set()
    banned: ClassVar[set[str]] = set()

    def __init__(self, config, host, following=None):
        self.config = config
        self.host = host
        self.next = following
        self.running = False

    async def __aenter__(self):
        place = self.config.place
        if self.config.fails or place in self.banned or place in self.taken:
            raise StartFailed(f"{place or self.config.word} cannot be had")
        if place:
            self.taken.add(place)
        self.running = True
        self.events.append(f"+{self.host.id}{self.config.word}")
        return self

    async def __aexit__(self, *exc):
        self.running = False
        self.taken.discard(self.config.place)
        self.events.append(f"-{self.host.id}{self.config.word}")


class Source(RunningComponent):
    async def send(self, name, signal=Signal.LOGS):
        batch = logs(name) if signal is Signal.LOGS else traces(name)
        await self.next[signal](batch)


class Holding(RunningComponent):
    """A processor that holds batches until it stops, and tells the sender that they are taken."""

    mutates = True

    def __init__(self, config, host, following=None):
        super().__init__(config, host, following)
        self.held = []

    async def __call__(self, batch):
        self.held.append(batch)

    async def __aexit__(self, *exc):
        for batch in self.held:
            await self.next(batch)
        await super().__aexit__()


class Joint(Holding):
    """A connector from logs to logs, with the same habit."""

    async def __call__(self, batch):
        self.held.append(batch)

    async def __aexit__(self, *exc):
        for batch in self.held:
            await self.next[Signal.LOGS](batch)
        await RunningComponent.__aexit__(self)


class Sink(RunningComponent):
    stored: ClassVar[dict[str, list[str]]] = {}
    slow: ClassVar[dict[str, asyncio.Event]] = {}
    refuses: ClassVar[set[str]] = set()

    async def __call__(self, batch):
        name = f"{self.host.id}{self.config.word}"
        if self.host.id in self.slow:
            await self.slow[self.host.id].wait()
        if self.host.id in self.refuses:
            raise Retryable("not now", 0.01)
        if not self.running:
            raise Permanent(f"{name} is not running")
        found = ids(batch) if batch.signal is Signal.LOGS else ["span"]
        self.stored.setdefault(name, []).extend(found)


class Store(Sink):
    async def find(self, query):
        return []

    def describe(self):
        return "memory"


class Asks(RunningComponent):
    async def __aenter__(self):
        self.stores = dict(self.host.stores)
        return await super().__aenter__()


class Blind(RunningComponent):
    """An extension that never looks at the stores."""


@pytest.fixture(autouse=True)
def world():
    for each in (
        RunningComponent.events,
        RunningComponent.taken,
        RunningComponent.banned,
        Sink.stored,
        Sink.slow,
        Sink.refuses,
    ):
        each.clear()
    return RunningComponent.events


def traces(name):
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name=name)
    return Batch(Signal.TRACES, message, Request(1, name.encode().ljust(16)))


def configuration(tmp_path, yaml):
    for word in ("Source", "Holding", "Joint", "Sink", "Store", "Asks", "Blind"):
        yaml = yaml.replace(f"<{word}", f'"{__name__}:{word}').replace(">", '"')
    path = tmp_path / "collector.yaml"
    path.write_text(yaml)
    return load([str(path)], [], {})


def name(word):
    return f"{__name__}:{word}"


def short(events):
    return [event.replace(f"{__name__}:", "") for event in events]


def stored():
    return {key.replace(f"{__name__}:", ""): sorted(each) for key, each in Sink.stored.items()}


ONE = """
receivers: {<Source>: {place: port}}
processors: {<Holding>: {}}
exporters: {<Sink/a>: {}, <Store/b>: {}}
extensions: {<Asks>: {}, <Blind>: {}}
service:
  extensions: [<Asks>, <Blind>]
  pipelines:
    logs: {receivers: [<Source>], exporters: [<Sink/a>, <Store/b>]}
"""


async def test_the_same_configuration_changes_nothing(tmp_path, world):
    """Nothing is started or stopped when nothing is different."""
    async with Service(configuration(tmp_path, ONE)) as service:
        world.clear()
        assert (
            await service.reload(configuration(tmp_path, ONE))
            == "The configuration was read again: nothing else runs now"
        )
        assert world == []


async def test_only_what_changed_is_exchanged(tmp_path, world):
    """A sink with other settings is new; receiver, other sink and extensions are the same objects."""
    async with Service(configuration(tmp_path, ONE)) as service:
        kept = [("Source", None), ("Store/b", None), ("Asks", None), ("Blind", None)]
        before = [service.component(name(each)) for each, _ in kept]
        world.clear()
        await service.reload(
            configuration(tmp_path, ONE.replace("<Sink/a>: {}", "<Sink/a>: {word: _2}"))
        )
        assert [service.component(name(each)) for each, _ in kept] == before
        assert short(world) == ["+Sink/a_2", "-Sink/a"]
        await service.component(name("Source")).send("x")
        assert stored() == {"Sink/a_2": ["x"], "Store/b": ["x"]}


async def test_who_looked_at_the_stores_is_started_anew(tmp_path, world):
    """Another store means a new query port; an extension that did not look goes on."""
    async with Service(configuration(tmp_path, ONE)) as service:
        blind = service.component(name("Blind"))
        world.clear()
        await service.reload(
            configuration(tmp_path, ONE.replace("<Store/b>: {}", "<Store/b>: {word: _2}"))
        )
        assert short(world) == ["+Store/b_2", "+Asks", "-Asks", "-Store/b"]
        assert service.component(name("Blind")) is blind
        asks = service.component(name("Asks"))
        assert asks.stores == {name("Store/b"): service.component(name("Store/b"))}


async def test_what_holds_the_same_place_is_stopped_first(tmp_path, world):
    """A sink with the same file, or a receiver with the same port, follows when the old one let go."""
    yaml = ONE.replace("<Sink/a>: {}", "<Sink/a>: {place: file}")
    async with Service(configuration(tmp_path, yaml)) as service:
        world.clear()
        new = yaml.replace("{place: file}", "{place: file, word: _2}")
        new = new.replace("{place: port}", "{place: port, word: _2}")
        await service.reload(configuration(tmp_path, new))
        assert short(world) == ["-Sink/a", "+Sink/a_2", "-Source", "+Source_2"]
        await service.component(name("Source")).send("x")
        assert stored() == {"Sink/a_2": ["x"], "Store/b": ["x"]}


async def test_a_request_in_work_ends_where_it_began(tmp_path):
    """What is in the old sink is finished there; what comes meanwhile waits and gets the new one."""
    async with Service(configuration(tmp_path, ONE)) as service:
        source = service.component(name("Source"))
        Sink.slow[name("Sink/a")] = asyncio.Event()
        first = asyncio.create_task(source.send("first"))
        await asyncio.sleep(0)
        new = configuration(tmp_path, ONE.replace("<Sink/a>: {}", "<Sink/a>: {word: _2}"))
        change = asyncio.create_task(service.reload(new))
        line = service._running.lines["logs"]  # to know that the gate is held: no public seam
        await until(lambda: line.exit.leads_to is None)
        second = asyncio.create_task(source.send("second"))
        await asyncio.sleep(0.01)
        assert not first.done()
        assert not second.done()
        assert not change.done()
        Sink.slow[name("Sink/a")].set()
        await asyncio.gather(first, second, change)
        assert stored() == {
            "Sink/a": ["first"],
            "Sink/a_2": ["second"],
            "Store/b": ["first", "second"],
        }


async def test_processors_flush_into_what_follows(tmp_path, world):
    """A processor that holds data hands it on when it is replaced, and the next one takes over."""
    yaml = ONE.replace("exporters: [<Sink/a>", "processors: [<Holding>], exporters: [<Sink/a>")
    async with Service(configuration(tmp_path, yaml)) as service:
        await service.component(name("Source")).send("x")
        assert stored() == {}
        await service.reload(
            configuration(tmp_path, yaml.replace("<Holding>: {}", "<Holding>: {word: _2}"))
        )
        assert stored() == {"Sink/a": ["x"], "Store/b": ["x"]}
        await service.component(name("Source")).send("y")
        await service.reload(configuration(tmp_path, ONE))
        assert stored() == {"Sink/a": ["x", "y"], "Store/b": ["x", "y"]}
    assert RunningComponent.taken == set()


JOINED = """
receivers: {<Source>: {}}
processors: {<Holding>: {}}
connectors: {<Joint>: {}}
exporters: {<Sink>: {}}
service:
  pipelines:
    logs/in: {receivers: [<Source>], processors: [<Holding>], exporters: [<Joint>]}
    logs/out: {receivers: [<Joint>], processors: [<Holding>], exporters: [<Sink>]}
"""


async def test_connected_pipelines_empty_from_head_to_end(tmp_path, world):
    """Processor, connector, processor: each flushes into the next when everything is replaced."""
    async with Service(configuration(tmp_path, JOINED)) as service:
        assert short(world) == ["+Sink", "+Holding", "+Joint", "+Holding", "+Source"]
        await service.component(name("Source")).send("x")
        world.clear()
        new = JOINED.replace("<Holding>: {}", "<Holding>: {word: _2}")
        new = new.replace("<Joint>: {}", "<Joint>: {word: _2}").replace("logs/out", "logs/new")
        await service.reload(configuration(tmp_path, new))
        assert stored() == {"Sink": ["x"]}
        assert short(world) == [
            "-Holding",
            "-Joint",
            "-Holding",
            "+Holding_2",
            "+Joint_2",
            "+Holding_2",
        ]
        await service.component(name("Source")).send("y")
    assert stored() == {"Sink": ["x", "y"]}


async def test_a_wrong_configuration_is_refused_with_every_problem(tmp_path, world, caplog):
    """Two mistakes are both named, in the error and in the log; the old configuration goes on."""
    config = configuration(tmp_path, ONE)

    def read():
        return configuration(
            tmp_path,
            ONE.replace("<Sink/a>: {}", "<Sink/a>: {wrd: 2}").replace("[<Asks>", "[<Asked>"),
        )

    async with Service(config, read=read) as service:
        world.clear()
        with pytest.raises(InvalidConfig) as caught:
            await service.reload()
        assert service.config is config
        assert world == []
        await service.component(name("Source")).send("x")
        assert service.stats.snapshot()['otelier_reloads{outcome="refused"}'] == 1
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    for text in (str(caught.value), line):
        assert "invalid keys: wrd" in text
        assert "Asked" in text


PLACES = {"Sink/a": "place: file", "Source": "place: port", "Asks": "", "Holding": ""}


@pytest.mark.parametrize("kind", PLACES)
async def test_what_cannot_start_is_taken_back(tmp_path, kind):
    """A port in use or a folder that is not writable refuses the whole, whatever it is."""
    yaml = ONE.replace("<Sink/a>: {}", "<Sink/a>: {place: file}")
    yaml = yaml.replace("exporters: [<Sink/a>", "processors: [<Holding>], exporters: [<Sink/a>")
    async with Service(configuration(tmp_path, yaml)) as service:
        source, running = service.component(name("Source")), service.config
        await source.send("early")
        bad = yaml
        for each, place in PLACES.items():
            more = "word: _2, fails: true" if each == kind else "word: _2"
            old = f"<{each}>: {{{place}}}"
            assert old in bad
            bad = bad.replace(old, f"<{each}>: {{{place + ', ' if place else ''}{more}}}")
        with pytest.raises(StartFailed, match="cannot start"):
            await service.reload(configuration(tmp_path, bad))
        assert service.config is running
        await service.component(name("Source")).send("late")
    assert [key for key in stored() if key.endswith("_2")] == []
    assert stored()["Store/b"] == ["early", "late"]
    assert RunningComponent.taken == set()


async def test_when_nothing_can_be_restored_the_program_has_to_end(tmp_path):
    """The old place is lost in the meantime: the event that ends the process is set."""
    async with Service(configuration(tmp_path, ONE)) as service:
        RunningComponent.banned.add("port")
        new = configuration(tmp_path, ONE.replace("{place: port}", "{place: port, word: _2}"))
        with pytest.raises(CannotGoBack, match="and the old configuration cannot be restored"):
            await service.reload(new)
        assert service.broken.is_set()


async def test_pipelines_come_and_go(tmp_path):
    """A receiver that goes on sees a new signal, and no longer one that was removed."""
    more = ONE.replace(
        "  pipelines:", "  pipelines:\n    traces: {receivers: [<Source>], exporters: [<Sink/a>]}"
    )
    async with Service(configuration(tmp_path, ONE)) as service:
        source = service.component(name("Source"))
        gate = source.next[Signal.LOGS]
        assert set(source.next) == {Signal.LOGS}
        await service.reload(configuration(tmp_path, more))
        assert set(source.next) == {Signal.LOGS, Signal.TRACES}
        await source.send("x", Signal.TRACES)
        only = more.replace("    logs: {", "    logs/2: {").replace(
            "<Sink/a>, <Store/b>", "<Store/b>"
        )
        await service.reload(configuration(tmp_path, only))
        await gate(logs("y"))
        await service.reload(configuration(tmp_path, only.replace("    logs/2:", "    metrics:")))
        assert set(source.next) == {Signal.METRICS, Signal.TRACES}
        with pytest.raises(Retryable, match="taken out of the configuration"):
            await gate(logs("z"))
    assert stored() == {"Sink/a": ["span"], "Store/b": ["y"]}


async def test_a_resend_after_a_reload_goes_only_where_it_is_missing(tmp_path):
    """The branches that have a batch are remembered although other branches were exchanged."""
    three = ONE.replace("<Sink/a>: {}", "<Sink/a>: {}, <Sink/c>: {}")
    three = three.replace("[<Sink/a>, ", "[<Sink/a>, <Sink/c>, ")
    async with Service(configuration(tmp_path, three)) as service:
        Sink.refuses.add(name("Sink/c"))
        source = service.component(name("Source"))
        with pytest.raises(Retryable):
            await source.send("x")
        await service.reload(
            configuration(tmp_path, three.replace("<Sink/c>: {}", "<Sink/c>: {word: _2}"))
        )
        Sink.refuses.clear()
        await source.send("x")
    assert stored() == {"Sink/a": ["x"], "Sink/c_2": ["x"], "Store/b": ["x"]}


QUEUED = """
receivers: {<Source>: {}}
exporters:
  <Sink>: {sending_queue: {%s}, retry_on_failure: {initial_interval: 1ms, max_interval: 1ms}}
extensions: {file_storage: {directory: "%s", reserve_bytes: 0}}
service:
  extensions: [file_storage]
  pipelines:
    logs: {receivers: [<Source>], exporters: [<Sink>]}
"""
KINDS = {"memory": "", "log": "storage: file_storage"}


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
async def test_what_waits_in_a_queue_is_delivered_by_the_next_one(tmp_path, before, after):
    """Acknowledged and not delivered: another sink, or another kind of queue, delivers it, once."""
    folder = tmp_path / "queue"
    old = QUEUED % (KINDS[before], folder)
    new = (QUEUED % (KINDS[after], folder)).replace("<Sink>: {", "<Sink>: {word: _2, ")
    Sink.refuses.add(name("Sink"))
    async with Service(configuration(tmp_path, old)) as service:
        source = service.component(name("Source"))
        for each in range(20):
            await source.send(f"{each:02}")
        await service.reload(configuration(tmp_path, new))
        await source.send("20")
        if (before, after) == (
            "log",
            "memory",
        ):  # its cursor keeps the rest, for whoever comes back
            await service.reload(configuration(tmp_path, old.replace("{word: _2, ", "{")))
        Sink.refuses.clear()
        expected = [f"{each:02}" for each in range(21)]
        await until(lambda: sorted(chain.from_iterable(Sink.stored.values())) == expected)
    dropped = [key for key in service.stats.snapshot() if "dropped" in key]
    assert dropped == []


async def test_a_removed_exporter_keeps_its_queue_and_is_named(tmp_path, caplog):
    """Its cursor keeps what it has not delivered; put back, it goes on from there."""
    caplog.set_level(logging.INFO)
    both = (QUEUED % (KINDS["log"], tmp_path / "queue")).replace(
        "<Sink>: {", "<Sink/b>: {sending_queue: {storage: file_storage}}\n  <Sink>: {"
    )
    both = both.replace("exporters: [<Sink>]", "exporters: [<Sink>, <Sink/b>]")
    Sink.refuses.add(name("Sink/b"))
    async with Service(configuration(tmp_path, both)) as service:
        source = service.component(name("Source"))
        await source.send("x")
        less = both.replace("[<Sink>, <Sink/b>]", "[<Sink>]")
        await service.reload(configuration(tmp_path, less))
        assert f"kept for exporters that are not configured: {name('Sink/b')}" in caplog.text
        await source.send("y")
        Sink.refuses.clear()
        await service.reload(configuration(tmp_path, both))
        await until(lambda: stored().get("Sink/b") == ["x", "y"])
    assert stored()["Sink"] == ["x", "y"]


async def test_a_removed_pipeline_is_still_delivered(tmp_path):
    """Its requests are in the log, for an exporter that other pipelines have, too: none is skipped."""
    yaml = (QUEUED % (KINDS["log"], tmp_path / "queue")).replace(
        "    logs:", "    logs/more: {receivers: [<Source>], exporters: [<Sink>]}\n    logs:"
    )
    Sink.refuses.add(name("Sink"))
    async with Service(configuration(tmp_path, yaml)) as service:
        await service.component(name("Source")).send("x")
        await service.reload(configuration(tmp_path, QUEUED % (KINDS["log"], tmp_path / "queue")))
        await service.component(name("Source")).send("y")
    Sink.refuses.clear()
    alone = configuration(tmp_path, QUEUED % (KINDS["log"], tmp_path / "queue"))
    async with Service(alone) as service:
        await until(lambda: stored().get("Sink") == ["x", "x", "y"])


async def test_a_refused_change_leaves_no_cursor_behind(tmp_path):
    """A cursor that nobody reads would keep everything that comes, for ever."""
    yaml = QUEUED % (KINDS["log"], tmp_path / "queue")
    more = yaml.replace(
        "<Sink>: {", "<Sink/b>: {sending_queue: {storage: file_storage}}\n  <Sink>: {"
    )
    more = more.replace("exporters: [<Sink>]", "exporters: [<Sink>, <Sink/b>]")
    async with Service(configuration(tmp_path, yaml)) as service:
        with pytest.raises(StartFailed):
            await service.reload(
                configuration(tmp_path, more.replace("<Source>: {}", "<Source>: {fails: true}"))
            )
        await service.component(name("Source")).send("x")
        assert "not configured" not in service.component("file_storage").describe()
    assert len(list((tmp_path / "queue" / "cursors").iterdir())) == 1


async def test_without_a_source_nothing_can_be_read_again(tmp_path):
    """A service that was given its configuration has no file to look at."""
    async with Service(configuration(tmp_path, ONE)) as service:
        with pytest.raises(Retryable, match="not started from anything that can be read"):
            await service.reload()
    with pytest.raises(Retryable, match="not ready"):
        await service.reload(configuration(tmp_path, ONE))
