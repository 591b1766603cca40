"""Pipelines in a change: held, emptied, and put together from what goes on and what is new."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable
from typing import Any, Final

from collector.config import ComponentConfig, PipelineConfig
from collector.model import Consume, Signal, mutates
from collector.pipeline.chain import chain
from collector.pipeline.fan_out import Outlet, fan_out
from collector.sending_queue.sender import DurableFanOut, QueueSender
from collector.service.exporters import Exporters
from collector.service.gates import ReceiverInput, RunningPipeline, depths
from collector.service.parts import PIPELINE, RunningComponent, named
from collector.service.running import Context, component_log
from collector.wal.storage import FileStorage

DRAIN_S: Final = 5.0
"""How long requests may take to leave a pipeline that changes; then it changes under them, and
those that fail because of it are refused for now."""

Branches = dict[Signal, list[tuple[Consume, bool]]]


class Pipelines:
    """
    Pipelines, their processors, and the connectors between them.

    Args:
        context: of the change.
        sinks: what stands behind them.
    """

    def __init__(self, context: Context, sinks: Exporters) -> None:
        self._context = context
        self._sinks = sinks
        self._lines = context.running.lines
        self._connectors: dict[str, RunningComponent] = {}
        self._depths = depths(context.config)
        self._fed: dict[tuple[str, str], Branches] = {}
        self._drained_by = 0.0

    def choose_connectors(self) -> None:
        """Find the connectors that go on."""
        for line in self._context.config.pipelines.values():
            for name in line.exporters:
                configured = self._context.config.connectors.get(name)
                if configured is None or name in self._connectors:
                    continue
                part = self._context.find("connectors", configured)
                if part is not None:
                    self._connectors[name] = part
                    self._context.keep.add(part)

    def lead_feeds(self) -> None:
        """Make the places of new pipelines, held still, and let all feeders feed what they should."""
        fed = self._fed
        for pipeline in self._context.config.pipelines.values():
            line = self._lines.setdefault(pipeline.id, RunningPipeline(pipeline.id))
            line.mutates = any(mutates(configured.cls) for configured in self._steps(pipeline))
            for name in pipeline.receivers:
                kind = "connectors" if name in self._context.config.connectors else "receivers"
                branches = fed.setdefault((kind, name), {}).setdefault(pipeline.signal, [])
                branches.append((line.entry, line.mutates))
        feeds = self._context.running.feeds
        for key in [key for key in feeds if key not in fed and key[0] == "receivers"]:
            del feeds[key]
        for kind, name in fed:
            # A new connector's feed follows when the old one has flushed.
            if kind == "receivers" or name in self._connectors:
                self._lead(kind, name)

    def _lead(self, kind: str, name: str) -> ReceiverInput:
        feed = self._context.running.feeds.setdefault((kind, name), ReceiverInput())
        feed.lead(self._fed[kind, name], self._context.running.stats)
        return feed

    def _steps(self, pipeline: PipelineConfig) -> list[ComponentConfig]:
        return [self._context.config.processors[name] for name in pipeline.processors]

    def _ends(self, pipeline: PipelineConfig) -> tuple[RunningComponent | None, ...]:
        """What stands behind a pipeline, None for what is not there yet."""
        found: list[RunningComponent | None] = []
        for name in pipeline.exporters:
            if name in self._context.config.connectors:
                found.append(self._connectors.get(name))
            else:
                found.append(self._sinks.end(name))
        return tuple(found)

    async def clear(self) -> None:
        """Empty what changes, from the heads of the pipelines to their ends."""
        self._drained_by = asyncio.get_running_loop().time() + DRAIN_S
        places: list[tuple[tuple[int, ...], RunningPipeline | RunningComponent]] = []
        for line in self._lines.values():
            depth = max((part.order[1] for part in line.chain), default=self._depth_of(line))
            places.append(((depth, 0), line))
        places += [(part.order[1:], part) for part in self._context.unused("connectors")]
        for _, place in sorted(places, key=lambda each: each[0], reverse=True):
            if isinstance(place, RunningComponent):
                await self._context.parts.stop(place)
                continue
            pipeline = self._context.config.pipelines.get(place.id)
            steps = None if pipeline is None else tuple(told_of(self._steps(pipeline)))
            if place.steps is None or place.steps != steps:
                place.hold_entry()
                if pipeline is None:
                    place.entry.close()
                await self._within(place.entry.empty())
                for part in reversed(place.chain):
                    await self._context.parts.stop(part)
                place.chain = []
            self._context.keep.update(place.chain)
            if pipeline is None or place.ends != self._ends(pipeline):
                place.hold_exit()
                await self._within(place.exit.empty())
            if pipeline is None:
                place.exit.close()
                del self._lines[place.id]

    def _depth_of(self, line: RunningPipeline) -> int:
        """A pipeline without processors: as its old connectors say, else as the new place says."""
        ends = [part.order[1] for part in line.ends or () if part.kind == "connectors"]
        return max(ends, default=self._depths.get(line.id, 0))

    async def _within(self, empty: Awaitable[None]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._drained_by):
                await empty

    async def fill(self) -> None:
        """Start what pipelines lack, from their ends to the heads, and open them."""
        config = self._context.config
        for pipeline in sorted(config.pipelines.values(), key=lambda each: self._depths[each.id]):
            line, depth = self._lines[pipeline.id], self._depths[pipeline.id]
            for name in pipeline.exporters:
                configured = config.connectors.get(name)
                if configured is not None and name not in self._connectors:
                    order = (PIPELINE, depth, -1)
                    feed = self._lead("connectors", name)
                    self._connectors[name] = await self._context.start(
                        "connectors", configured, order, feed
                    )
            if line.ends is None:
                ends = tuple(part for part in self._ends(pipeline) if part is not None)
                line.last = fan_out(
                    self._outlets(line, ends), self._context.running.stats, line.last
                )
                line.ends = ends
                line.exit.lead(line.last)
            if line.steps is None:
                entry = await self._chain(line, pipeline, depth)
                line.steps = tuple(told_of(self._steps(pipeline)))
                line.entry.lead(entry)

    async def _chain(self, line: RunningPipeline, pipeline: PipelineConfig, depth: int) -> Consume:
        """Put processors in front of the exit of a line."""
        steps = [
            (configured.cls, configured.config, self._context.host(configured.id))
            for configured in self._steps(pipeline)
        ]
        with named(f"processors::{pipeline.id}"):
            entry, made = chain(steps, line.exit)
        for place, (processor, (cls, config, host)) in enumerate(
            zip(made, reversed(steps), strict=True)
        ):
            name = f"{host.id} of {pipeline.id}"
            order = (PIPELINE, depth, place)
            part = await self._context.parts.start(
                RunningComponent("processors", name, processor, (cls, config), order)
            )
            line.chain.append(part)
            self._context.keep.add(part)
        return entry

    def _outlets(self, line: RunningPipeline, ends: tuple[RunningComponent, ...]) -> list[Consume]:
        """The ends of a pipeline; all exporters with a queue in one log are a single one."""
        outlets: list[Consume] = []
        groups: dict[FileStorage, list[QueueSender]] = {}
        for part in ends:
            component = part.component
            if isinstance(component, QueueSender) and component.wal is not None:
                groups.setdefault(component.wal, []).append(component)
            elif part.kind == "exporters":
                if part.outlet is None:
                    logger = component_log(part.name)
                    part.outlet = Outlet(part.name, component, self._context.running.stats, logger)
                outlets.append(part.outlet)
            else:
                outlets.append(component)
        line.logged = {wal: line.logged.get(wal) or DurableFanOut(wal, line.id) for wal in groups}
        for wal, group in groups.items():
            line.logged[wal].senders = tuple(group)
        return [*outlets, *line.logged.values()]


def told_of(steps: Iterable[ComponentConfig]) -> Iterable[tuple[Any, Any]]:
    """What processors are made from."""
    return ((configured.cls, configured.config) for configured in steps)
