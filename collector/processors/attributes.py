"""
The attributes processor: edits the attributes of spans, log records and metric points.

The actions are in processors/shared/actions.py, the choice of items (`include`, `exclude`) in processors/shared/matching.py. For
metrics the attributes are those of each data point, and taking a name away can make two series
one: nothing is aggregated again.
"""

import msgspec

from collector.model import Batch, Consume, Host, Signal
from collector.otlp import items, points
from collector.processors.ottl.regex import Budget
from collector.processors.shared.actions import Action, edits, problems
from collector.processors.shared.matching import Match, matcher
from collector.processors.shared.work import (
    arrived,
    handed_on,
    in_time,
    offload,
)


class Attributes:
    """Edits the attributes of items."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the attributes processor."""

        actions: list[Action] = []
        """The actions, in order; at least one."""
        include: Match | None = None
        """Only items that fit are edited."""
        exclude: Match | None = None
        """Items that fit are left alone; checked behind `include`."""

    mutates = True

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.host = host
        self.next = next
        self._edit = edits(config.actions)
        self._include = {
            signal: matcher(config.include, signal) for signal in Signal if config.include
        }
        self._exclude = {
            signal: matcher(config.exclude, signal) for signal in Signal if config.exclude
        }

    @staticmethod
    def check(config: Config) -> list[str]:
        """What the types cannot say."""
        return problems(config.actions, "actions")

    async def __call__(self, batch: Batch) -> None:
        """Edit the items and hand the batch on."""
        amount = arrived(self.host, batch)
        with in_time(self.host, amount):
            changed = await offload(amount, self.edit, batch)
        if changed:
            batch.changed()
        handed_on(self.host, batch.signal, amount)
        await self.next(batch)

    def edit(self, batch: Batch) -> bool:
        """Run the actions on each item that is meant; whether anything changed."""
        budget = Budget()
        include = self._include.get(batch.signal)
        exclude = self._exclude.get(batch.signal)
        changed = False
        for group, scope, item in items(batch):
            for owner in points(item) if batch.signal is Signal.METRICS else (item,):
                if include is not None and not include(group, scope, item, owner, budget):
                    continue
                if exclude is not None and exclude(group, scope, item, owner, budget):
                    continue
                changed |= self._edit(owner.attributes, budget)
        return changed
