"""
Small writes that come while others run go to the server together.

A backlog of small requests would else be inserted as it came: 20 documents cost the server and the
driver as much as several hundred do. No request waits for others: a write begins at once while fewer
than `RUNNING` run, and what comes meanwhile is the next one. Requests keep their own identities,
because the documents were made before; only the bulk is shared.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from collector.documents.build import Document
from collector.errors import Retryable
from collector.model import Signal
from collector.stores.base import Written

RUNNING: Final = 4
"""Writes of small requests that run at once, of each signal."""
ENOUGH: Final = 500
"""A request of so many documents needs no company."""
MOST: Final = 1000
"""Documents that go together: what one bulk takes."""
MAX_WAITING: Final = 50_000
"""Documents that may wait for others to be written; more is refused for now."""

Write = Callable[[Signal, Sequence[Document]], Awaitable[Written]]


@dataclass(slots=True)
class _Lane:
    """The requests of one signal: what waits, and how many writes run."""

    waiting: "deque[tuple[Sequence[Document], asyncio.Future[Written]]]" = field(
        default_factory=deque
    )
    running: int = 0


class Coalescer:
    """
    The writes of one store.

    Args:
        write: stores documents of any number of requests.
        full: the text of the refusal when too many wait.
    """

    def __init__(self, write: Write, full: str) -> None:
        self._write = write
        self._full = full
        self._lanes = {signal: _Lane() for signal in Signal}
        self._documents = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, signal: Signal, documents: Sequence[Document]) -> Written:
        """
        Store the documents of one request, alone or with others.

        Returns:
            What became of them; of those that went together the first request gets the counts of all.

        Raises:
            Retryable: some of what went together may be stored, or none.
        """
        if len(documents) >= ENOUGH:
            return await self._write(signal, documents)
        if self._documents and self._documents + len(documents) > MAX_WAITING:
            raise Retryable(f"{self._documents} documents wait: {self._full}")
        lane = self._lanes[signal]
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        entry = (documents, done)
        lane.waiting.append(entry)
        self._documents += len(documents)
        self._begin(signal, lane)
        try:
            return await done
        except asyncio.CancelledError:
            if entry in lane.waiting:
                lane.waiting.remove(entry)
                self._documents -= len(documents)
            raise

    async def stop(self) -> None:
        """Wait for what runs; what waits is begun by it."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _begin(self, signal: Signal, lane: _Lane) -> None:
        while lane.waiting and lane.running < RUNNING:
            group = [lane.waiting.popleft()]
            size = len(group[0][0])
            while lane.waiting and size + len(lane.waiting[0][0]) <= MOST:
                group.append(lane.waiting.popleft())
                size += len(group[-1][0])
            self._documents -= size
            lane.running += 1
            task = asyncio.create_task(self._run(signal, lane, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(
        self,
        signal: Signal,
        lane: _Lane,
        group: list[tuple[Sequence[Document], "asyncio.Future[Written]"]],
    ) -> None:
        try:
            await self._together(signal, group)
        finally:
            lane.running -= 1
            self._begin(signal, lane)

    async def _together(
        self,
        signal: Signal,
        group: list[tuple[Sequence[Document], "asyncio.Future[Written]"]],
    ) -> None:
        try:
            documents = group[0][0] if len(group) == 1 else [*chain(*(each for each, _ in group))]
            written = await self._write(signal, documents)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, Retryable):
                for each in group:  # what one of them does must not be the others' fault
                    await self._together(signal, [each])
                return
            for _, done in group:
                if not done.done():
                    done.set_exception(error)
            return
        for _, done in group:
            if not done.done():  # the caller has given up
                done.set_result(written)
                written = Written(0)
