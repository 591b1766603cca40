"""
Attempts to deliver one request, until it is known what becomes of it.

An attempt that fails for now is repeated with growing, random waits, never sooner than the other
side asks for; a durable queue never gives up unless it is configured to. A request that is rejected is
halved until the item that is meant stands alone: it becomes a dead letter, and its neighbours
are delivered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from collector.errors import CollectorError, Denied, Permanent, Retryable
from collector.model import Batch, Consume, Host
from collector.otlp import NOUNS, count
from collector.sending_queue.config import ExporterSettings, RetryOnFailure
from collector.sending_queue.dead_letters import DeadLetters
from collector.sending_queue.split import part, units
from collector.stats import QuietLog

MEMORY_GIVES_UP_S: Final = 300.0
"""`max_elapsed_time` of queues in memory, as in the OpenTelemetry Collector."""


class Stopped(Exception):
    """The collector stops, and this request is not settled."""


class GivenUp(Permanent):
    """It could have been taken later, but the configuration says not to try longer."""


class RetrySender:
    """
    Calls one exporter.

    Args:
        host: of the exporter.
        consume: the exporter.
        sending: retry and timeout.
        dead_letters: where what it rejects is kept; without it that is dropped, and counted.
        durable: whether the log keeps what is not delivered.
        sleep: waits some seconds.
        clock: seconds.
        chance: a random number from 0 to 1.
    """

    def __init__(
        self,
        host: Host,
        consume: Consume,
        sending: ExporterSettings,
        dead_letters: DeadLetters | None,
        *,
        durable: bool,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.stopping = asyncio.Event()
        """No further attempt is made once this is set."""
        self.kept = durable
        """Whether what is not delivered is kept elsewhere when the collector stops."""
        self._host = host
        self._consume = consume
        self._timeout_s = sending.timeout_s or None
        self._retry = sending.retry
        self._dead_letters = dead_letters
        self._patient = durable
        self._sleep = sleep
        self._clock = clock
        self._chance = chance
        self.report = QuietLog(host.log, clock).warning
        self._waiting = 0  # for their next attempt, and to be woken by a success
        self._revived = asyncio.Event()  # a new one after each use

    async def each(self, batches: Sequence[Batch]) -> Exception | None:
        """Deliver several batches; one that is stopped does not take the others with it."""
        error: Exception | None = None
        stopped: Stopped | None = None
        for batch in batches:
            try:
                error = await self._deliver(batch) or error
            except Stopped as stop:
                if self.kept:
                    raise
                stopped = stop
        if stopped is not None:
            raise stopped
        return error

    async def _deliver(self, batch: Batch) -> Exception | None:
        """
        Deliver a batch, or find what of it cannot be delivered.

        Returns:
            Why a part of it was not delivered, None when all of it was.

        Raises:
            Stopped: the collector stops, and it is not settled.
        """
        noun = NOUNS[batch.signal]
        items = count(batch.signal, batch.message)
        try:
            await self.until_known(batch)
        except Stopped:
            if not self.kept:
                self.drop(batch, items, "shutdown")
            raise
        except Permanent as error:
            size = units(batch)
            if size > 1 and not isinstance(error, GivenUp | Denied):
                middle = size // 2
                return await self.each([part(batch, 0, middle), part(batch, middle, size)])
            await self.bury(batch, items, error)
            return error
        self.count(f"otelcol_exporter_sent_{noun}", items)
        return None

    async def directly(self, batch: Batch, items: int) -> None:
        """
        Deliver one request while its client waits, which then knows what became of it.

        Raises:
            Permanent: it is rejected.
            Retryable: it was not delivered; the client keeps it.
        """
        noun = NOUNS[batch.signal]
        try:
            await self.until_known(batch)
        except (Stopped, Permanent) as error:
            self.count(f"otelcol_exporter_send_failed_{noun}", items)
            text = "the collector stops" if isinstance(error, Stopped) else str(error)
            rejected = isinstance(error, Permanent) and not isinstance(error, GivenUp)
            kind = Permanent if rejected else Retryable
            raise kind(f'exporter "{self._host.id}": {text}') from error
        self.count(f"otelcol_exporter_sent_{noun}", items)

    async def bury(self, batch: Batch, items: int, error: Permanent) -> None:
        """
        Keep a batch that is rejected; without a place for it, it is dropped.

        Raises:
            Stopped: the collector stops, and there is no room for it.
        """
        reason = "expired" if isinstance(error, GivenUp) else "refused"
        if self._dead_letters is None:
            self.drop(batch, items, reason)
            self.report("Exporting failed. Dropping data: %s", error)
            return
        while True:
            try:
                await self._dead_letters.add(batch, str(error) or type(error).__name__)
                break
            except Retryable as full:
                self.count("otelier_dead_letters_blocked")
                self.report("the queue stands still: %s", full)
                await self._pause(full.delay_s)
        self.count(f"otelcol_exporter_send_failed_{NOUNS[batch.signal]}", items)
        self.count("otelier_exporter_dead_letters", items, reason=reason)
        self.report("Exporting failed; the data is kept in the dead letters: %s", error)

    def drop(self, batch: Batch, items: int, reason: str) -> None:
        """Count what is lost."""
        self.count(f"otelcol_exporter_send_failed_{NOUNS[batch.signal]}", items)
        self.count("otelier_exporter_dropped_items", items, reason=reason)

    async def until_known(self, batch: Batch) -> None:
        """
        Call the exporter until it takes the batch or rejects it.

        Raises:
            Permanent: rejected; `GivenUp` when the configuration ends the attempts.
            Stopped: the collector stops.
        """
        retry = self._retry
        began = self._clock()
        interval = float(retry.initial_interval) if retry is not None else 0.0
        woken = False
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._consume(batch)
                self._wake()
                return
            except Permanent:
                self.count("otelier_exporter_failed_attempts", kind="permanent")
                raise
            except Exception as error:
                self.count("otelier_exporter_failed_attempts", kind="retryable")
                reason = self._words(error)
                asked_s = error.delay_s if isinstance(error, Retryable) else 0.0
            if self.stopping.is_set():
                raise Stopped
            if retry is None or not retry.enabled:
                raise GivenUp(f"{reason} (retry_on_failure is off)")
            spread = retry.randomization_factor
            delay_s = interval * (1 - spread + 2 * spread * self._chance())
            delay_s = max(delay_s, asked_s)
            interval = min(interval * retry.multiplier, float(retry.max_interval))
            patience_s = self._patience_s(retry)
            if patience_s and self._clock() - began + delay_s > patience_s:
                raise GivenUp(f"{reason} (max_elapsed_time of {patience_s:g}s is over)")
            self.report("Exporting failed. Will retry the request after interval: %s", reason)
            if asked_s:
                await self._pause(asked_s)  # the other side's wish stands in any case
            if delay_s > asked_s:
                # Once only: what fails where others succeed must not be tried with each of them.
                woken |= await self._pause(delay_s - asked_s, early=not woken)

    def _wake(self) -> None:
        if self._waiting:
            self._revived.set()
            self._revived = asyncio.Event()

    def _patience_s(self, retry: RetryOnFailure) -> float:
        if retry.max_elapsed_time is not None:
            return float(retry.max_elapsed_time)
        return 0.0 if self._patient else MEMORY_GIVES_UP_S

    def _words(self, error: Exception) -> str:
        if isinstance(error, CollectorError):
            return str(error)
        if isinstance(error, TimeoutError) and self._timeout_s:
            return f"no answer within {self._timeout_s:g}s"
        return f"{type(error).__name__}: {error}"

    async def _pause(self, delay_s: float, *, early: bool = False) -> bool:
        """
        Wait, unless the collector stops.

        Args:
            delay_s: how long.
            early: whether a success of another request ends the wait.

        Returns:
            Whether it was ended so.

        Raises:
            Stopped: the collector does.
        """
        sleeping = asyncio.ensure_future(self._sleep(delay_s))
        tasks: set[asyncio.Future[Any]] = {sleeping, asyncio.create_task(self.stopping.wait())}
        revived = self._revived
        if early:
            tasks.add(asyncio.create_task(revived.wait()))
            self._waiting += 1
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting -= early
            for task in tasks:
                task.cancel()
        if self.stopping.is_set():
            raise Stopped
        return early and revived.is_set() and not sleeping.done()

    def count(self, name: str, amount: int = 1, **attributes: str) -> None:
        """Count something about this exporter."""
        self._host.stats.add(name, amount, exporter=self._host.id, **attributes)
