"""What the steps of one change share: what runs, what shall run, and which parts are to stay."""

import logging
from dataclasses import dataclass, field
from typing import Any

from collector.config import ComponentConfig, Config
from collector.model import Health, Host, ReloadConfig
from collector.sending_queue.sender import Entry
from collector.service.gates import ReceiverInput, RunningPipeline
from collector.service.parts import Parts, RunningComponent, TrackedMapping, named
from collector.stats import Stats


@dataclass(slots=True)
class Running:
    """
    What runs.

    Args:
        stats, health, reload: for components.
        parts: the components.
        lines: the pipelines by id.
        feeds: what receivers and connectors call, by section and id.
        left: requests from queues in memory that wait for the next queue of their exporter.
        extensions: components of the service's extensions by id; others look into it.
    """

    stats: Stats
    health: Health
    reload: ReloadConfig
    parts: Parts = field(default_factory=Parts)
    lines: dict[str, RunningPipeline] = field(default_factory=dict)
    feeds: dict[tuple[str, str], ReceiverInput] = field(default_factory=dict)
    left: dict[str, list[Entry]] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)


class Context:
    """
    One change under way.

    Args:
        running: what runs; changed.
        config: what shall run.
    """

    def __init__(self, running: Running, config: Config) -> None:
        self.running = running
        self.config = config
        self.parts = running.parts
        self.keep: set[RunningComponent] = set()
        """Parts that the new configuration has a use for."""
        self.stores: dict[str, Any] = {}

    def find(self, kind: str, configured: ComponentConfig) -> RunningComponent | None:
        """A part that runs already and was made from the same."""
        return self.parts.find(kind, configured.id, (configured.cls, configured.config))

    async def start(
        self, kind: str, configured: ComponentConfig, order: tuple[int, ...], *more: Any
    ) -> RunningComponent:
        """
        Make and start a component.

        Raises:
            StartFailed: one line that names the component and the reason.
        """
        host = self.host(configured.id)
        called = (
            f"extensions::{configured.id}" if kind == "storages" else f"{kind}::{configured.id}"
        )
        with named(called):
            component = configured.cls(configured.config, host, *more)
        stores = host.stores if isinstance(host.stores, TrackedMapping) else TrackedMapping({})
        origin = (configured.cls, configured.config)
        part = RunningComponent(kind, configured.id, component, origin, order, stores, called)
        await self.parts.start(part)
        self.keep.add(part)
        return part

    def host(self, name: str) -> Host:
        """What a component is given."""
        running = self.running
        return Host(
            name,
            running.stats,
            component_log(name),
            running.health,
            TrackedMapping(self.stores),
            running.reload,
            running.extensions,
        )

    def unused(self, *kinds: str) -> list[RunningComponent]:
        """Parts that the configuration has no use for, in the order in which they stop."""
        found = [part for part in self.parts if part.kind in kinds and part not in self.keep]
        return sorted(found, key=lambda part: part.order, reverse=True)

    async def stop_unused(self, *kinds: str) -> None:
        """Stop them."""
        for part in self.unused(*kinds):
            await self.parts.stop(part)


def component_log(name: str) -> logging.Logger:
    """The logger of a component."""
    # A dot in a name would make one component's logger the child of another's.
    return logging.getLogger(f"collector.component.{name.replace('.', '_')}")
