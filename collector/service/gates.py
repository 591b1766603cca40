"""
Pipelines and what feeds them, as they run: places that stay while what stands in them changes.

    receiver -> feed[signal] -> entry -> processors -> exit -> exporters, connectors

A receiver keeps its feed, a mapping whose gates are led elsewhere when pipelines change. A pipeline
keeps its two gates: other processors move in between them, other exporters behind the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collector.config import Config, PipelineConfig
from collector.model import Consume, Counters, Signal
from collector.pipeline.fan_out import share
from collector.pipeline.gate import Gate
from collector.sending_queue.sender import DurableFanOut
from collector.service.parts import RunningComponent


@dataclass(slots=True, eq=False)
class RunningPipeline:
    """
    One pipeline that runs.

    Args:
        id: its id in YAML.
        entry: what feeds it calls this.
        exit: its last processor calls this.
        steps: class and settings of its processors; None when there are none yet, or no more.
        chain: the processors, from the last to the first.
        ends: the exporters, queues and connectors behind the exit; None when nothing is there.
        last: what the exit leads to, or did.
        logged: the branch into a durable log, by log.
        mutates: whether a processor changes messages.
    """

    id: str
    entry: Gate = field(default_factory=Gate)
    exit: Gate = field(default_factory=Gate)
    steps: tuple[Any, ...] | None = None
    chain: list[RunningComponent] = field(default_factory=list)
    ends: tuple[RunningComponent, ...] | None = None
    last: Consume | None = None
    logged: dict[Any, DurableFanOut] = field(default_factory=dict)
    mutates: bool = False

    def hold_entry(self) -> None:
        """Let what comes wait in front of the processors."""
        self.entry.hold()
        self.steps = None

    def hold_exit(self) -> None:
        """Let what comes out of the processors wait."""
        self.exit.hold()
        self.ends = None


class ReceiverInput(Mapping[Signal, Consume]):
    """
    What a receiver or connector is given: a gate for each signal that has a pipeline.

    It is live: pipelines that come and go with the configuration appear in it and disappear.
    """

    def __init__(self) -> None:
        self._gates: dict[Signal, Gate] = {}
        self._branches: dict[Signal, list[tuple[Consume, bool]]] = {}

    def __getitem__(self, signal: Signal) -> Consume:
        return self._gates[signal]

    def __iter__(self) -> Any:
        return iter(self._gates)

    def __len__(self) -> int:
        return len(self._gates)

    def lead(
        self, branches: Mapping[Signal, Sequence[tuple[Consume, bool]]], stats: Counters
    ) -> None:
        """Feed these pipelines: entry, and whether it changes messages, by signal."""
        for signal in [signal for signal in self._gates if signal not in branches]:
            self._gates.pop(signal).close()
            del self._branches[signal]
        for signal, entries in branches.items():
            gate = self._gates.setdefault(signal, Gate())
            if self._branches.get(signal) != list(entries):
                self._branches[signal] = list(entries)
                gate.lead(share(entries, stats, gate.leads_to))


def depths(config: Config) -> dict[str, int]:
    """
    How far each pipeline is from the last one that connectors lead to.

    A pipeline starts after those that it feeds, so in the order of these numbers. Connectors never
    lead back: the configuration would be refused.
    """
    found: dict[str, int] = {}

    def depth(line: PipelineConfig) -> int:
        if line.id not in found:
            fed = [
                other
                for name in line.exporters
                if name in config.connectors
                for other in config.pipelines.values()
                if name in other.receivers
            ]
            found[line.id] = 1 + max((depth(other) for other in fed), default=-1)
        return found[line.id]

    for line in config.pipelines.values():
        depth(line)
    return found
