"""
The items of a run, one at a time, with their keys.

A collection is looked at as a whole before anything is worked on, so that a duplicate key is found
before it costs anything. Iterators and async iterators are read as workers become free, never
ahead. A key function that fails is a failure of that item alone.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from telemetry._batch.types import BatchError, DuplicateKey

DUPLICATES: Final = ("error", "skip")


@dataclass(slots=True)
class Entry:
    """
    One item of the input.

    Args:
        item: what the handler gets.
        key: its identity, or a stand-in when `problem` says why there is none.
        problem: what the key function raised.
        duplicate: an item with this key came before.
    """

    item: Any
    key: str
    problem: BaseException | None = None
    duplicate: bool = False


class Source:
    """
    Reads the input.

    Args:
        items: any iterable or async iterable.
        key: item -> its identity.
        duplicates: `error` refuses a collection in which a key comes twice.
        total: how many items there will be, if the caller knows.
        halt: set when nothing more shall be read.
    """

    def __init__(
        self,
        items: Any,
        key: Callable[[Any], Any],
        duplicates: str,
        total: int | None,
        halt: asyncio.Event,
    ) -> None:
        self._key = key
        self._halt = halt
        self._seen: set[str] = set()
        self._keys: list[str] = []
        self._counted = False
        self._async: AsyncIterator[Any] | None = None
        self._sync: Iterator[Any] = iter(())
        self._turn = asyncio.Lock()
        self._hint = total
        self.taken = 0
        self._at_end = False
        self.error: BaseException | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
            return
        try:
            self._sync = iter(items)
        except TypeError as error:
            message = f"items={type(items).__name__} cannot be read; give an (async) iterable"
            raise BatchError(message) from error
        if isinstance(items, Collection):
            self._counted = True
            self._hint = len(items)
            self._keys = [self._entry(item, place).key for place, item in enumerate(items)]
            if duplicates == "error":
                self._refuse_duplicates()
            self._seen.clear()

    @property
    def exhausted(self) -> bool:
        """Whether there are no more items."""
        return self._at_end or (self._counted and self.taken >= len(self._keys))

    @property
    def total(self) -> int | None:
        """How many items there are; None while that is not known."""
        if self.exhausted:
            return self.taken
        return None if self._hint is None else max(self._hint, self.taken)

    def untaken(self, limit: int) -> list[str]:
        """Keys of items that were not taken, as far as they are known."""
        return self._keys[self.taken : self.taken + limit]

    @property
    def waits(self) -> bool:
        """Whether the next item may take time to come."""
        return self._async is not None

    async def take(self) -> Entry | None:
        """The next item; None at the end, after a failure of the input, or when the run stops."""
        if self._async is None:
            return self.take_now()
        async with self._turn:
            return await self._take_async(self._async)

    def take_now(self) -> Entry | None:
        """The same, of an input that never waits."""
        if self._at_end or self.error is not None:
            return None
        try:
            item = next(self._sync)
        except StopIteration:
            self._at_end = True
            return None
        except Exception as error:
            self.error = error
            return None
        taken = self.taken
        self.taken = taken + 1
        return self._entry(item, taken)

    async def _take_async(self, items: AsyncIterator[Any]) -> Entry | None:
        if self._at_end or self.error is not None or self._halt.is_set():
            return None
        coming = asyncio.ensure_future(anext(items))
        halted = asyncio.ensure_future(self._halt.wait())
        await asyncio.wait((coming, halted), return_when=asyncio.FIRST_COMPLETED)
        halted.cancel()
        if not coming.done():
            coming.cancel()
            return None
        try:
            item = coming.result()
        except StopAsyncIteration:
            self._at_end = True
            return None
        except BaseException as error:
            self.error = error
            return None
        self.taken += 1
        return self._entry(item, self.taken - 1)

    def _entry(self, item: Any, place: int) -> Entry:
        try:
            key = _text(self._key(item))
        except BaseException as error:
            return Entry(item, f"item without a key, number {place + 1}", problem=error)
        if key in self._seen:
            return Entry(item, key, duplicate=True)
        self._seen.add(key)
        return Entry(item, key)

    def _refuse_duplicates(self) -> None:
        if len(set(self._keys)) == len(self._keys):
            return
        seen: set[str] = set()
        twice = next(key for key in self._keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        message = (
            f"the key {twice[:200]!r} comes twice in the items; "
            'make keys unique, or say duplicates="skip" to use the first'
        )
        raise DuplicateKey(message)


def _text(key: object) -> str:
    """A key as text; None is the answer of a function that found none, and would be one key for all."""
    if key is None:
        message = "the key of the item is None; give each item an identity of its own"
        raise ValueError(message)
    return key if type(key) is str else str(key)
