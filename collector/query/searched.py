"""What every answer says about where it was looked: the store, and the times that it holds."""

from typing import Final

import msgspec

from collector.model import Signal
from collector.stores.base import Query, Store, event_time

PAGE: Final = 10_000
"""The most that a store gives at once (`Query.limit`)."""


class Range(msgspec.Struct, frozen=True, omit_defaults=True):
    """The times of the oldest and the newest document of one kind, in nanoseconds."""

    oldest_unix_nano: int
    newest_unix_nano: int


class Searched(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Where and what was looked for.

    Args:
        store: the store's own description.
        ids: the forms of the id that were looked for.
        kinds: what such an id may be; empty for a filter.
        spans, logs: the times that the store holds; absent when it holds none, and not looked
            up at all when something was found.
    """

    store: str
    ids: list[str] = []
    kinds: list[str] = []
    spans: Range | None = None
    logs: Range | None = None


async def time_range_of(store: Store, signal: Signal) -> Range | None:
    """What times a store holds: two look-ups at the ends of its index."""
    oldest = await store.find(Query(signal=signal, limit=1))
    newest = await store.find(Query(signal=signal, limit=1, newest_first=True))
    if not oldest or not newest:
        return None
    return Range(event_time(signal, oldest[0]), event_time(signal, newest[0]))
