"""
A store as a source: candidates page by page, from a thread that is not the event loop's.

The evaluation is plain synchronous code in a worker thread; a store is asynchronous. Each page is a
question to the store, asked on its loop, while the thread waits. The next page is as large as fits
into a few MiB, judged by the records of the page before: a page of small records costs little to
ask for, a page of large ones does not fill the memory.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any, Final

from collector.query.logql import tree
from collector.query.logql.evaluation.budget import Stopped
from collector.query.logql.evaluation.plan import conditions
from collector.query.logql.evaluation.source import order
from collector.stores.base import Document, Query, Store

FIRST_PAGE: Final = 100
LARGEST_PAGE: Final = 2000
PAGE_BYTES: Final = 8 << 20
_WAIT_S: Final = 0.2
_WEIGHED: Final = 100
"""Records of a page that are weighed."""
_FIELD_BYTES: Final = 100


class StoreSource:
    """
    The log records of a store.

    Args:
        store: where they are.
        loop: the event loop that the store runs on.
        stopped: True when nobody waits for the answer any more; asked while a page is awaited.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._loop = loop
        self._stopped = stopped

    def documents(
        self, query: tree.LogQuery, since: int, until: int, *, newest_first: bool
    ) -> Iterator[Document]:
        """
        Candidates in the order of time, asked for page by page; see `Source`.

        Raises:
            Retryable: the store cannot answer now.
            Stopped: nobody waits for the answer any more.
        """
        plan = conditions(query)
        if plan.nothing or until <= since:
            return
        size, after = FIRST_PAGE, None
        while True:
            page = self._find(
                plan.query(
                    since=since, until=until, newest_first=newest_first, limit=size, after=after
                )
            )
            yield from page
            if len(page) < size:
                return
            after = order(page[-1])
            looked_at = page[:: max(1, len(page) // _WEIGHED)]
            mean = sum(map(weight, looked_at)) // len(looked_at) + 1
            size = max(1, min(PAGE_BYTES // mean, 4 * size, LARGEST_PAGE))

    def _find(self, query: Query) -> list[Document]:
        asked = asyncio.run_coroutine_threadsafe(self._store.find(query), self._loop)
        while True:
            try:
                return asked.result(_WAIT_S)
            except concurrent.futures.TimeoutError:
                if asked.done():
                    raise  # the store's own
                if self._stopped():
                    asked.cancel()
                    raise Stopped from None


def weight(value: Any, depth: int = 0) -> int:
    """Roughly the bytes that a value takes in memory."""
    if isinstance(value, str | bytes):
        return _FIELD_BYTES + len(value)
    if isinstance(value, dict) and depth < 8:
        return _FIELD_BYTES + sum(
            _FIELD_BYTES + weight(inner, depth + 1) for inner in value.values()
        )
    if isinstance(value, list) and depth < 8:
        return _FIELD_BYTES + sum(weight(inner, depth + 1) for inner in value)
    return _FIELD_BYTES
