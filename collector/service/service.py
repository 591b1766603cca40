"""
A configuration, running.

    async with Service(load(["otel-collector.yaml"], [], os.environ)) as service:
        service.component("otlp").endpoints["http"]

Only what the `service` section names is created. Exporters and stores start first, then
extensions, processors and, last, receivers, so that nothing takes data before everything behind it
runs. The stop is the same list backwards: receivers stop and answer what they hold, processors
flush, extensions go, stores close. Reading the configuration again changes only what is different
in it; how, is in service/reload.py.

The stop has a deadline over everything. A component that is still busy then is cut off, and the
others are given `LAST_S` each to close; what was acknowledged is stored by then, which is why that
is allowed.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from typing import Any, Final, Self

from collector.config import Config
from collector.errors import CollectorError, Retryable, StartFailed
from collector.model import Health, place_of
from collector.pipeline.fan_out import describe
from collector.self_metrics.own_metrics import OwnMetrics
from collector.service.reload import Reload, Running
from collector.stats import Stats

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


class CannotGoBack(StartFailed):
    """A new configuration was refused half-way, and the old one cannot be made true again."""


class Service:
    """
    The running collector.

    Args:
        config: what `collector.config.load` returned.
        shutdown_timeout_s: how long stopping may take in all.
        read: gets the configuration again, for `reload`; blocking.
        taken: called with each new configuration that is in effect.
        show: show own metrics on localhost:8888 when the configuration says nothing about them.
    """

    def __init__(
        self,
        config: Config,
        shutdown_timeout_s: float = 10.0,
        *,
        read: Callable[[], Config] | None = None,
        taken: Callable[[Config], None] = lambda _: None,
        show: bool = False,
    ) -> None:
        self.config = config
        self.shutdown_timeout_s = shutdown_timeout_s
        self.stats = Stats()
        self.own_metrics = OwnMetrics(self.stats, always=show)
        self.health = Health(state="starting", since_unix_s=time.time())
        self.broken = asyncio.Event()
        """Set when only a new start can help: a reload failed and could not be taken back."""
        self._read = read
        self._taken = taken
        self._running = Running(self.stats, self.health, self.reload)
        self._changing = asyncio.Lock()
        self._reloads: set[asyncio.Task[str]] = set()

    @property
    def late(self) -> list[str]:
        """Components that the deadline of the stop cut off, and those that failed to close."""
        return self._running.parts.late

    def component(self, name: str, kind: str | None = None) -> Any:
        """
        A running receiver, exporter or extension.

        Args:
            name: its id in YAML.
            kind: "receivers", "exporters" or "extensions", when two kinds share the id.

        Raises:
            KeyError: no such component is running.
        """
        found = {(part.kind, part.name): part.component for part in self._running.parts}
        sections: tuple[str, ...] = (
            "receivers",
            "exporters",
            "extensions",
            "storages",
            "connectors",
        )
        if kind:
            sections = (kind, "storages") if kind == "extensions" else (kind,)
        for section in sections:
            if (section, name) in found:
                return found[section, name]
        running = ", ".join(f"{section}::{each}" for section, each in found)
        raise KeyError(f'no component "{name}" is running; there are: {running}')

    async def __aenter__(self) -> Self:
        """
        Start everything.

        Raises:
            StartFailed: a component cannot start; those already running have been stopped again.
        """
        try:
            async with self._changing:
                await self.own_metrics.apply(self.config.telemetry)
                await Reload(self._running, self.config).make()
        except BaseException:
            await self._stop()
            raise
        self.health.state = "ready"
        self.health.since_unix_s = time.time()
        for line in self.banner():
            log.info("%s", line)
        log.info("Everything is ready. Begin running and processing data.")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop everything, receivers first, within the deadline."""
        log.info("Starting shutdown...")
        await self._stop()
        log.info("%s", self.report())
        log.info("Shutdown complete.")

    async def reload(self, config: Config | None = None) -> str:
        """
        Make a configuration true while requests come in.

        Args:
            config: the new one; without it the configuration is read again.

        Returns:
            What changed, in one line.

        Raises:
            ConfigError: it is wrong; with every problem. Nothing has changed.
            StartFailed: something in it cannot start. The old configuration is in effect again.
            Retryable: the collector is not ready, or was not started from anything that can be read.
        """
        task = asyncio.create_task(self._reload_in_turn(config))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return await asyncio.shield(task)  # who asks may go; a change is never left half-way

    async def _reload_in_turn(self, config: Config | None) -> str:
        async with self._changing:
            try:
                text = await self._reload(config)
            except CollectorError as error:
                self._refused(error)
                raise
            self.stats.add("otelier_reloads", outcome="taken")
            log.info("%s", text)
            return text

    def _refused(self, error: CollectorError) -> None:
        self.stats.add("otelier_reloads", outcome="refused")
        if self.broken.is_set():
            log.error("The new configuration failed half-way: %s", error)
        else:
            log.error("The new configuration is refused, the old one stays in effect: %s", error)

    async def _reload(self, config: Config | None) -> str:
        if self.health.state != "ready":
            raise Retryable("the collector is not ready")
        if config is None:
            if self._read is None:
                raise Retryable("this collector was not started from anything that can be read")
            config = await asyncio.to_thread(self._read)
        parts, old = self._running.parts, self.config
        late, parts.late = parts.late, []
        places = {(str(part), place_of(part.component)) for part in parts}
        self._set_deadline()
        try:
            await self.own_metrics.apply(config.telemetry)
            started, stopped = await Reload(self._running, config).make()
        except Exception as error:
            await self._go_back(old, error)
            if isinstance(error, CollectorError):
                raise
            log.exception("The new configuration failed in a way that it should not")
            raise StartFailed(describe(error)) from error
        finally:
            parts.late, parts.deadline = late, float("inf")
        self.config = config
        self._taken(config)
        for warning in config.warnings:
            log.warning("%s", warning)
        for part in parts:
            place = place_of(part.component)
            if place and (str(part), place) not in places:
                log.info("%s: %s", part, place)
        changes = [
            f"{verb} {', '.join(names)}"
            for verb, names in (("started", started), ("stopped", stopped))
            if names
        ]
        return f"The configuration was read again: {'; '.join(changes) or 'nothing else runs now'}"

    async def _go_back(self, old: Config, reason: Exception) -> None:
        """
        Make the old configuration true again.

        Raises:
            CannotGoBack: that fails, too.
        """
        self._set_deadline()
        try:
            await self.own_metrics.apply(old.telemetry)
            await Reload(self._running, old).make()
        except Exception as error:
            self.broken.set()
            text = f"{describe(reason)}; and the old configuration cannot be restored: {describe(error)}"
            raise CannotGoBack(text) from error

    def _set_deadline(self) -> None:
        now = asyncio.get_running_loop().time()
        self._running.parts.deadline = now + self.shutdown_timeout_s

    async def _stop(self) -> None:
        self.health.state = "stopping"
        self.health.since_unix_s = time.time()
        self._set_deadline()
        async with contextlib.AsyncExitStack() as turn:
            with contextlib.suppress(TimeoutError):  # a change that is under way may end
                async with asyncio.timeout(self.shutdown_timeout_s):
                    await turn.enter_async_context(self._changing)
            await self._running.parts.stop_all()
        await self.own_metrics.close()

    def banner(self) -> list[str]:
        """One line for each listener, sink and pipeline: where it is and what an answer means."""
        lines = []
        for part in sorted(self._running.parts, key=lambda part: part.order):
            place = place_of(part.component)
            if place:
                lines.append(f"{part}: {place}")
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
