"""
A configuration, running: one exit stack owns every start and every stop.

    async with Service(load(["otel-collector.yaml"], [], os.environ)) as service:
        service.component("otlp").endpoints["http"]

Only what the `service` section names is created. Exporters and stores start first, then
extensions, processors and, last, receivers, so that nothing takes data before everything behind it
runs. Leaving the stack is the same list backwards: receivers stop and answer what they hold,
processors flush, extensions go, stores close. No ordering code, no graph.

The stop has a deadline over everything. A component that is still busy then is cut off, and the
others are given `LAST_S` each to close; what was acknowledged is stored by then, which is why that
is allowed.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Self

from collector.config import ComponentConfig, Config, PipelineConfig
from collector.delivery import Delivery, DurableFanOut, Sending, durable
from collector.errors import CollectorError, ConfigError, StartFailed
from collector.model import Consume, Health, Host, Signal
from collector.pipeline import Outlet, chain, describe, entries, fan_out, mutates
from collector.stats import Stats
from collector.wal import Wal

LAST_S: Final = 1.0
"""How long a component may take to close once the deadline of the stop has passed."""

COUNTER: Final = re.compile(
    r"otelcol_(?P<what>receiver_accepted|receiver_refused|exporter_sent|exporter_send_failed)"
    r"_(?P<noun>\w+)|(?P<own>otelier_store_duplicates|otelier_store_refused)"
)
EXPORTER: Final = re.compile(r'[{,]exporter="([^"]*)"')
WORDS: Final = {
    "receiver_accepted": "received",
    "receiver_refused": "refused",
    "exporter_sent": "{} took",
    "exporter_send_failed": "{} failed to take",
    "otelier_store_duplicates": "{} had already",
    "otelier_store_refused": "{} refused",
}
"""How the last line of the log calls the counters."""

log = logging.getLogger("collector.service")


class Service:
    """
    The running collector.

    Args:
        config: what `collector.config.load` returned.
        shutdown_timeout_s: how long stopping may take in all.
    """

    def __init__(self, config: Config, shutdown_timeout_s: float = 10.0) -> None:
        self.config = config
        self.shutdown_timeout_s = shutdown_timeout_s
        self.stats = Stats()
        self.health = Health(state="starting", since_unix_s=time.time())
        self.late: list[str] = []
        """Components that the deadline of the stop cut off, and those that failed to close."""
        self._components: dict[tuple[str, str], Any] = {}
        self._stores: dict[str, Any] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._stack = contextlib.AsyncExitStack()
        self._deadline = float("inf")

    def component(self, name: str, kind: str | None = None) -> Any:
        """
        A running receiver, exporter or extension.

        Args:
            name: its id in YAML.
            kind: "receivers", "exporters" or "extensions", when two kinds share the id.

        Raises:
            KeyError: no such component is running.
        """
        for section in (kind,) if kind else ("receivers", "exporters", "extensions"):
            found = self._components.get((section, name))
            if found is not None:
                return found
        running = ", ".join(f"{section}::{each}" for section, each in self._components)
        raise KeyError(f'no component "{name}" is running; there are: {running}')

    async def __aenter__(self) -> Self:
        """
        Start everything.

        Raises:
            StartFailed: a component cannot start; those already running have been stopped again.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop everything, receivers first, within the deadline."""
        log.info("Starting shutdown...")
        await self._stop()
        log.info("%s", self.report())
        log.info("Shutdown complete.")

    async def _start(self) -> None:
        config = self.config
        pipelines = config.pipelines.values()
        storages = [each for each in config.service_extensions if is_storage(config, each)]
        for name in storages:  # before the exporters, whose queues are in them
            await self._enter("extensions", name, self._make("extensions", config.extensions[name]))
        for name in dict.fromkeys(each for line in pipelines for each in line.exporters):
            exporter = self._make("exporters", config.exporters[name])
            await self._enter("exporters", name, exporter)
            if hasattr(exporter, "find"):
                self._stores[name] = exporter
            with self._named("exporters", name):
                await self._put_delivery_around(name, exporter)
        for name in config.service_extensions:
            if name not in storages:
                extension = self._make("extensions", config.extensions[name])
                await self._enter("extensions", name, extension)
        routes: dict[str, list[tuple[Signal, Consume, bool]]] = {}
        for pipeline in pipelines:
            outlets = self._outlets(pipeline)
            parts = [
                (part.cls, part.config, self._host(part.id))
                for part in (config.processors[name] for name in pipeline.processors)
            ]
            with self._named("processors", pipeline.id):
                consume, made = chain(parts, fan_out(outlets, self.stats))
            for processor, (_, _, host) in zip(made, reversed(parts), strict=True):
                await self._enter("processors", f"{host.id} of {pipeline.id}", processor)
            for name in dict.fromkeys(pipeline.receivers):
                route = (pipeline.signal, consume, mutates(parts))
                routes.setdefault(name, []).append(route)
        for name, fed in routes.items():
            receiver = self._make("receivers", config.receivers[name], entries(fed, self.stats))
            await self._enter("receivers", name, receiver)
        self.health.state = "ready"
        self.health.since_unix_s = time.time()
        for line in self.banner():
            log.info("%s", line)
        log.info("Everything is ready. Begin running and processing data.")

    async def _put_delivery_around(self, name: str, exporter: Any) -> None:
        """Give an exporter the queue, retry and timeout that its settings ask for."""
        sending = Sending.of(self.config.exporters[name].config)
        storage = sending.queue.storage if sending.queue is not None else ""
        merge = not hasattr(exporter, "find")
        if sending == Sending():
            return
        if storage:
            wal = self._components.get(("extensions", storage))
            if not isinstance(wal, Wal):
                raise StartFailed(
                    f'sending_queue::storage: "{storage}" is no file_storage that runs; '
                    "add it to service::extensions"
                )
            lines = [line.id for line in self.config.pipelines.values() if name in line.exporters]
            delivery = await durable(self._host(name), exporter, sending, wal, lines, merge=merge)
        else:
            delivery = Delivery(self._host(name), exporter, sending, merge=merge)
        await delivery.__aenter__()
        self._stack.push_async_exit(self._leaving("exporters", f"{name} (its queue)", delivery))
        self._deliveries[name] = delivery

    def _outlets(self, pipeline: PipelineConfig) -> list[Consume]:
        """The ends of a pipeline; all exporters with a queue in one log are a single end."""
        outlets: list[Consume] = []
        logged: dict[Wal, list[Delivery]] = {}
        for name in dict.fromkeys(pipeline.exporters):
            delivery = self._deliveries.get(name)
            if delivery is None:
                exporter = self._components["exporters", name]
                outlets.append(Outlet(name, exporter, self.stats, self._logger(name)))
            elif delivery.wal is None:
                outlets.append(delivery)
            else:
                logged.setdefault(delivery.wal, []).append(delivery)
        outlets.extend(DurableFanOut(wal, pipeline.id, group) for wal, group in logged.items())
        return outlets

    def _make(self, kind: str, part: ComponentConfig, *more: Any) -> Any:
        with self._named(kind, part.id):
            return part.cls(part.config, self._host(part.id), *more)

    def _host(self, name: str) -> Host:
        return Host(name, self.stats, self._logger(name), self.health, self._stores)

    def _logger(self, name: str) -> logging.Logger:
        # A dot in a name would make one component's logger the child of another's.
        return logging.getLogger(f"collector.component.{name.replace('.', '_')}")

    async def _enter(self, kind: str, name: str, component: Any) -> None:
        if hasattr(component, "__aenter__"):
            with self._named(kind, name):
                await component.__aenter__()
            self._stack.push_async_exit(self._leaving(kind, name, component))
        self._components[kind, name] = component

    @contextlib.contextmanager
    def _named(self, kind: str, name: str) -> Iterator[None]:
        """Whatever a component raises at start becomes one line that names the component."""
        try:
            yield
        except ConfigError:
            raise  # says itself where the problem is
        except Exception as error:
            if not isinstance(error, CollectorError):
                log.debug("traceback of the failed start", exc_info=error)
            text = f"cannot start {kind}::{name}: {describe(error)}"
            raise StartFailed(text) from error

    def _leaving(self, kind: str, name: str, component: Any) -> Callable[..., Awaitable[None]]:
        """The exit callback of one component: bounded, and never in the way of the next one."""

        async def leave(*_: object) -> None:
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout_at(max(self._deadline, now + LAST_S)):
                    await component.__aexit__(None, None, None)
            except TimeoutError:
                self.late.append(f"{kind}::{name} was cut off")
                log.warning("%s::%s did not stop in time and was cut off", kind, name)
            except Exception as error:
                self.late.append(f"{kind}::{name} failed to stop: {describe(error)}")
                log.exception("%s::%s failed to stop", kind, name)

        return leave

    async def _stop(self) -> None:
        self.health.state = "stopping"
        self.health.since_unix_s = time.time()
        self._deadline = asyncio.get_running_loop().time() + self.shutdown_timeout_s
        await self._stack.aclose()

    def banner(self) -> list[str]:
        """One line for each listener, sink and pipeline: where it is and what an answer means."""
        lines = []
        for (kind, name), component in self._components.items():
            place = describe_place(component)
            if place:
                lines.append(f"{kind}::{name}: {place}")
        for pipeline in self.config.pipelines.values():
            parts = (pipeline.receivers, pipeline.processors, pipeline.exporters)
            path = " -> ".join(", ".join(part) for part in parts if part)
            lines.append(f"service::pipelines::{pipeline.id}: {path}")
        return lines

    def report(self) -> str:
        """What was received, stored and refused, in one line."""
        sums: dict[str, dict[str, int]] = {"received": {}, "refused": {}}
        for key, value in self.stats.snapshot().items():
            found = COUNTER.match(key)
            if found is None:
                continue
            exporter = EXPORTER.search(key)
            words = WORDS[found["what"] or found["own"]].format(exporter[1] if exporter else "")
            nouns = sums.setdefault(words, {})
            noun = found["noun"] or "items"
            nouns[noun] = nouns.get(noun, 0) + value
        return "; ".join(
            f"{words} "
            + (", ".join(f"{number} {noun}" for noun, number in nouns.items()) or "nothing")
            for words, nouns in sums.items()
        )


def is_storage(config: Config, name: str) -> bool:
    """Whether an extension keeps the queues of exporters."""
    cls = config.extensions[name].cls
    return isinstance(cls, type) and issubclass(cls, Wal)


def describe_place(component: Any) -> str:
    """Where a component listens or writes, and how durably; empty when it says nothing."""
    if hasattr(component, "describe"):
        place = str(component.describe())
    elif isinstance(endpoints := getattr(component, "endpoints", None), Mapping):
        place = ", ".join(f"{name} {endpoint}" for name, endpoint in endpoints.items())
    else:
        return ""
    durability = getattr(component, "durability", "")
    if not durability and hasattr(component, "find"):
        durability = "answered when stored"
    return f"{place} ({durability})" if durability else place
