"""
Builds with a mistake that the durability tests must find: a test that passes with them is void.

Each is a component that real YAML names by its import string.
"""

import asyncio

import msgspec

from collector.otlp import GROUPS
from collector.wal.storage import FileStorage

EARLY_S = 0.1


class Hasty(FileStorage):
    """A durable queue that answers first and writes a moment later."""

    async def append(self, batch, route="", items=0, *, again=False):
        async def later():
            await asyncio.sleep(EARLY_S)
            await super(Hasty, self).append(batch, route, items, again=again)

        self.later = getattr(self, "later", set())
        task = asyncio.create_task(later())
        self.later.add(task)
        task.add_done_callback(self.later.discard)


class Drops:
    """A processor that loses the last record of one request in a hundred, and says nothing."""

    mutates = True
    seen = 0

    class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """It has no settings."""

    def __init__(self, config, host, following):
        self.next = following

    async def __call__(self, batch):
        Drops.seen += 1
        if Drops.seen % 100 == 0:
            groups, scopes, items = GROUPS[batch.signal]
            scope = getattr(getattr(batch.message, groups)[0], scopes)[0]
            del getattr(scope, items)[-1]
            batch.changed()
        await self.next(batch)
