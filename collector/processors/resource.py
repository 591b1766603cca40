"""
The resource processor: edits the attributes that all items of a resource share.

One edit per resource group, whatever the number of items: this is the cheap place to add an
environment or to take out a host name. The actions are those of `attributes` (processors/shared/actions.py).
"""

import msgspec

from collector.model import Batch, Consume, Host
from collector.otlp import resources
from collector.processors.ottl.regex import Budget
from collector.processors.shared.actions import Action, edits, problems
from collector.processors.shared.work import (
    arrived,
    handed_on,
    in_time,
    offload,
)


class Resource:
    """Edits the attributes of resources."""

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """Settings of the resource processor."""

        attributes: list[Action] = []
        """The actions, in order; at least one."""

    mutates = True

    def __init__(self, config: Config, host: Host, next: Consume) -> None:  # noqa: A002 - the word of the protocol
        self.host = host
        self.next = next
        self._edit = edits(config.attributes)

    @staticmethod
    def check(config: Config) -> list[str]:
        """What the types cannot say."""
        return problems(config.attributes, "attributes")

    async def __call__(self, batch: Batch) -> None:
        """Edit the resources and hand the batch on."""
        amount = arrived(self.host, batch)
        with in_time(self.host, amount):
            changed = await offload(amount, self.edit, batch)
        if changed:
            batch.changed()
        handed_on(self.host, batch.signal, amount)
        await self.next(batch)

    def edit(self, batch: Batch) -> bool:
        """Run the actions on each resource; whether anything changed."""
        budget = Budget()
        changed = False
        for group in resources(batch):
            changed |= self._edit(group.resource.attributes, budget)
        return changed
