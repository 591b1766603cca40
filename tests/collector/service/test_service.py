"""The life cycle, on components of this module named by import strings in real YAML."""

import asyncio
import logging
import socket
from typing import ClassVar

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.config import load
from collector.errors import Permanent, StartFailed
from collector.model import Batch, Request, Signal
from collector.service.service import Service

pytestmark = pytest.mark.anyio


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fails: str = ""
    hangs: bool = False
    flushes: bool = False


class RunningComponent:
    """What all components of this module do: write down when they start and stop."""

    Config = Settings
    events: ClassVar[list[str]] = []

    def __init__(self, config, host, following=None):
        self.config = config
        self.host = host
        self.next = following
        self.events.append(f"make {host.id}")

    async def __aenter__(self):
        if self.config.fails == "start":
            raise OSError(28, "No space left on device")
        self.events.append(f"start {self.host.id}")
        return self

    async def __aexit__(self, *exc):
        if self.config.fails == "stop":
            raise RuntimeError("cannot stop")
        if self.config.hangs:
            await asyncio.Event().wait()
        if self.config.flushes:
            await self.next(traces("flushed"))
        self.events.append(f"stop {self.host.id}, {self.host.health.state}")


class Source(RunningComponent):
    pass


class Step(RunningComponent):
    mutates = True

    async def __call__(self, batch):
        batch.message.resource_spans[0].scope_spans[0].spans[0].name += f"|{self.host.id}"
        await self.next(batch)


class Sink(RunningComponent):
    def __init__(self, config, host):
        super().__init__(config, host)
        self.names = []

    async def __call__(self, batch):
        if self.config.fails == "data":
            raise Permanent("no")
        self.names.append(batch.message.resource_spans[0].scope_spans[0].spans[0].name)


class Kept(Sink):
    """A sink that can be asked: a store."""

    async def find(self, query):
        return []

    def describe(self):
        return "memory"


class Asks(RunningComponent):
    """An extension that needs the stores when it starts."""

    async def __aenter__(self):
        self.stores = dict(self.host.stores)
        return await super().__aenter__()


@pytest.fixture(autouse=True)
def events():
    RunningComponent.events.clear()
    return RunningComponent.events


def traces(name):
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name=name)
    return Batch(Signal.TRACES, message, Request(1, b"k" * 16))


def service(tmp_path, yaml, timeout=10.0):
    for word in ("Source", "Step", "Sink", "Kept", "Asks"):
        yaml = yaml.replace(f"<{word}", f'"{__name__}:{word}').replace(">", '"')
    path = tmp_path / "collector.yaml"
    path.write_text(yaml)
    return Service(load([str(path)], [], {}), timeout)


def name(word, suffix=""):
    return f"{__name__}:{word}{suffix}"


FULL = """
receivers: {<Source/in>: {}, <Source/unused>: {}}
processors: {<Step/a>: {}, <Step/b>: {}}
exporters: {<Sink/one>: {}, <Kept/two>: {}, <Sink/unused>: {}}
extensions: {<Asks>: {}, <Asks/unused>: {}}
service:
  extensions: [<Asks>]
  pipelines:
    traces: {receivers: [<Source/in>], processors: [<Step/a>, <Step/b>], exporters: [<Sink/one>, <Kept/two>]}
    logs: {receivers: [<Source/in>], exporters: [<Kept/two>]}
"""


def short(events):
    return [event.replace(f"{__name__}:", "") for event in events]


async def test_starts_sinks_first_and_stops_sources_first(tmp_path, events):
    """Exporters, extensions, processors, receivers; the stop is the same list backwards."""
    async with service(tmp_path, FULL) as running:
        assert running.health.state == "ready"
        assert [event for event in short(events) if event.startswith("start")] == [
            "start Sink/one",
            "start Kept/two",
            "start Asks",
            "start Step/b",
            "start Step/a",
            "start Source/in",
        ]
        events.clear()
    assert short(events) == [
        "stop Source/in, stopping",
        "stop Step/a, stopping",
        "stop Step/b, stopping",
        "stop Asks, stopping",
        "stop Kept/two, stopping",
        "stop Sink/one, stopping",
    ]
    assert running.late == []


async def test_creates_only_what_service_names(tmp_path, events):
    """A component outside the service section is never made; a shared one is made once."""
    async with service(tmp_path, FULL):
        made = sorted(event for event in short(events) if event.startswith("make"))
    assert made == [
        "make Asks",
        "make Kept/two",
        "make Sink/one",
        "make Source/in",
        "make Step/a",
        "make Step/b",
    ]


async def test_batches_run_through_the_pipeline(tmp_path):
    """Processors in the order of the YAML, then every exporter; other signals go their own way."""
    async with service(tmp_path, FULL) as running:
        source = running.component(name("Source", "/in"))
        assert set(source.next) == {Signal.TRACES, Signal.LOGS}
        await source.next[Signal.TRACES](traces("x"))
        expected = [f"x|{name('Step', '/a')}|{name('Step', '/b')}"]
        assert running.component(name("Sink", "/one")).names == expected
        assert running.component(name("Kept", "/two")).names == expected
        assert running.stats.snapshot() == {
            f'otelcol_exporter_sent_spans{{exporter="{name("Kept", "/two")}"}}': 1,
            f'otelcol_exporter_sent_spans{{exporter="{name("Sink", "/one")}"}}': 1,
        }


async def test_pipelines_do_not_see_each_others_changes(tmp_path):
    """One receiver feeds two pipelines: only one of them renames the span."""
    yaml = """
receivers: {<Source>: {}}
processors: {<Step>: {}}
exporters: {<Sink/raw>: {}, <Sink/new>: {}}
service:
  pipelines:
    traces/raw: {receivers: [<Source>], exporters: [<Sink/raw>]}
    traces/new: {receivers: [<Source>], processors: [<Step>], exporters: [<Sink/new>]}
"""
    async with service(tmp_path, yaml) as running:
        await running.component(name("Source")).next[Signal.TRACES](traces("x"))
        assert running.component(name("Sink", "/raw")).names == ["x"]
        assert running.component(name("Sink", "/new")).names == [f"x|{name('Step')}"]


async def test_processors_flush_into_running_exporters(tmp_path):
    """What a processor holds back reaches the exporter during the stop."""
    yaml = """
receivers: {<Source>: {}}
processors: {<Step>: {flushes: true}}
exporters: {<Sink>: {}}
service: {pipelines: {traces: {receivers: [<Source>], processors: [<Step>], exporters: [<Sink>]}}}
"""
    async with service(tmp_path, yaml) as running:
        sink = running.component(name("Sink"))
    assert sink.names == ["flushed"]


async def test_extensions_find_the_stores(tmp_path):
    """Exporters that can be asked are in `host.stores` before an extension starts."""
    async with service(tmp_path, FULL) as running:
        store = running.component(name("Kept", "/two"))
        assert running.component(name("Asks")).stores == {name("Kept", "/two"): store}


SMALL = """
receivers: {<Source>: {%s}}
exporters: {<Sink>: {%s}}
service: {pipelines: {traces: {receivers: [<Source>], exporters: [<Sink>]}}}
"""


async def test_failed_start_is_one_line_and_stops_what_runs(tmp_path, events):
    """The error names the component and the reason; nothing stays behind."""
    with pytest.raises(StartFailed) as caught:
        async with service(tmp_path, SMALL % ("fails: start", "")):
            pass
    assert str(caught.value) == (
        f"cannot start receivers::{name('Source')}: OSError: [Errno 28] No space left on device"
    )
    assert short(events)[-1] == "stop Sink, stopping"


async def test_port_in_use_is_one_line(tmp_path):
    """A taken port names the component, the endpoint and the fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"localhost:{taken.getsockname()[1]}"
        yaml = SMALL % ("", "")
        yaml = yaml.replace("service: {", "service: {extensions: [health_check], ")
        yaml += f"extensions: {{health_check: {{endpoint: {endpoint}}}}}\n"
        with pytest.raises(StartFailed) as caught:
            async with service(tmp_path, yaml):
                pass
    assert str(caught.value) == (
        f'cannot start extensions::health_check: cannot listen on "{endpoint}": '
        "the address is in use; stop the other process or choose another endpoint"
    )


async def test_deadline_cuts_off_what_hangs(tmp_path, events):
    """A receiver that never stops does not keep the store from closing."""
    running = service(tmp_path, SMALL % ("hangs: true", ""), timeout=0.01)
    async with running:
        pass
    assert running.late == [f"receivers::{name('Source')} was cut off"]
    assert short(events)[-1] == "stop Sink, stopping"


async def test_failed_stop_does_not_stop_the_others(tmp_path, events):
    """A component that fails to stop is reported, and the rest is still stopped."""
    running = service(tmp_path, SMALL % ("fails: stop", ""))
    async with running:
        pass
    assert running.late == [
        f"receivers::{name('Source')} failed to stop: RuntimeError: cannot stop"
    ]
    assert short(events)[-1] == "stop Sink, stopping"


async def test_cancelled_start_stops_what_runs(tmp_path, events):
    """A signal during the start leaves nothing running."""
    running = service(tmp_path, SMALL % ("", ""))
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
    with pytest.raises(asyncio.CancelledError):
        async with running:
            await asyncio.Event().wait()
    asyncio.current_task().uncancel()
    assert short(events)[-2:] == ["stop Source, stopping", "stop Sink, stopping"]


async def test_log_says_where_and_how_it_went(tmp_path, caplog):
    """The lines that scripts wait for, one line per place, and a report at the end."""
    yaml = FULL.replace("<Sink/one>: {}", "<Sink/one>: {fails: data}")
    with caplog.at_level(logging.INFO, "collector.service"):
        async with service(tmp_path, yaml) as running:
            running.stats.add("otelcol_receiver_accepted_spans", 1, receiver="in", transport="grpc")
            running.stats.add("otelier_store_duplicates", 2, exporter="Kept/two")
            with pytest.raises(Permanent):
                await running.component(name("Source", "/in")).next[Signal.TRACES](traces("x"))
    lines = [
        record.getMessage().replace(f"{__name__}:", "")
        for record in caplog.records
        if record.name == "collector.service"
    ]
    assert lines == [
        "exporters::Kept/two: memory (answered when stored)",
        "service::pipelines::traces: Source/in -> Step/a, Step/b -> Sink/one, Kept/two",
        "service::pipelines::logs: Source/in -> Kept/two",
        "Everything is ready. Begin running and processing data.",
        "Starting shutdown...",
        "received 1 spans; refused nothing; Sink/one failed to take 1 spans; Kept/two took 1 spans; Kept/two had already 2 items",
        "Shutdown complete.",
    ]


async def test_unknown_component_lists_those_that_run(tmp_path):
    """Asking for a component that does not run says which ones do."""
    async with service(tmp_path, SMALL % ("", "")) as running:
        with pytest.raises(
            KeyError, match='no component "otlp" is running; there are: exporters::'
        ):
            running.component("otlp")
