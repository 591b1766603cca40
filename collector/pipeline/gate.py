"""A gate: the place in a pipeline where what follows can be exchanged while batches arrive."""

import asyncio

from collector.errors import Retryable
from collector.model import Batch, Consume, admit


class Gate:
    """
    A place in a pipeline where what follows can be exchanged while batches arrive.

    Its callers keep the gate; where it leads may change. While it is held, calls wait, and those
    that are inside already go on to their end. So nothing that is replaced is called after `empty`
    has returned, and no caller notices more than a delay.
    """

    def __init__(self) -> None:
        self.leads_to: Consume | None = None
        self._closed = False
        self._inside = 0
        self._news = asyncio.Event()

    async def __call__(self, batch: Batch) -> None:
        """
        Hand a batch to what follows.

        Raises:
            Retryable: nothing follows any more.
        """
        while (consume := self.leads_to) is None:
            if self._closed:
                raise Retryable("this pipeline was taken out of the configuration")
            self._news.clear()
            await self._news.wait()
        self._inside += 1
        try:
            await consume(batch)
        finally:
            self._inside -= 1
            self._news.set()

    def admit(self) -> None:
        """Ask what follows whether it takes anything now; see `model.admit`."""
        if self.leads_to is not None:
            admit(self.leads_to)

    def lead(self, consume: Consume) -> None:
        """Let calls through to this consumer."""
        self.leads_to = consume
        self._closed = False
        self._news.set()

    def hold(self) -> None:
        """Let new calls wait."""
        self.leads_to = None

    def close(self) -> None:
        """Send new calls, and those that wait, away; they may come again."""
        self.leads_to = None
        self._closed = True
        self._news.set()

    async def empty(self) -> None:
        """Wait until no call is inside."""
        while self._inside:
            self._news.clear()
            await self._news.wait()
