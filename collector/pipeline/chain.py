"""
The ways to join consumers; together they are every pipeline.

    chain     processors in front of a consumer: a right fold over a list, as ASGI middleware
    fan_out   one batch to several exporters of a pipeline
    share     one batch of a receiver to several pipelines
    Gate      a place where what follows can be exchanged while batches arrive

Fan-out and sharing call every branch, at the same time, even when one fails: a broken sink never
keeps data from the others. The answer to the sender is the joined error. If anything could still
be stored later the sender must keep the batch (`Retryable`, with the longest delay that a branch
asked for); only when every failure is for good is it `Permanent`. The sender then sends the
whole batch again, so each junction remembers which branches have it: while a database is down for
an hour, the file beside it still gets every batch once.

The message is copied only where one receiver feeds several pipelines, and only for those that
change it: a copy costs more than decoding the batch did.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from collector.errors import CollectorError, Permanent, Retryable
from collector.model import Batch, Consume, Counters, Host
from collector.otlp import NOUNS, count

QUIET_S: Final = 60.0
"""A broken exporter is logged at most so often."""


@dataclass(slots=True, eq=False)
class Outlet:
    """
    One exporter at the end of a pipeline: counts what it took and what it refused.

    Args:
        id: the exporter's id in YAML.
        consume: the exporter.
        stats: where `otelcol_exporter_sent_*` and `otelcol_exporter_send_failed_*` go.
        log: told once a minute at most when the exporter fails.
    """

    id: str
    consume: Consume
    stats: Counters
    log: logging.Logger
    quiet_until: float = field(default=0.0, init=False)

    async def __call__(self, batch: Batch) -> None:
        """Hand the batch to the exporter; whatever it raises is counted and names the exporter."""
        items = count(batch.signal, batch.message)  # before: an exporter may keep the batch
        noun = NOUNS[batch.signal]
        try:
            await self.consume(batch)
        except Exception as error:
            self.stats.add(f"otelcol_exporter_send_failed_{noun}", items, exporter=self.id)
            self.report(error)
            text = f'exporter "{self.id}": {describe(error)}'
            if isinstance(error, Permanent):
                raise Permanent(text) from error
            delay_s = error.delay_s if isinstance(error, Retryable) else 1.0
            raise Retryable(text, delay_s) from error
        self.stats.add(f"otelcol_exporter_sent_{noun}", items, exporter=self.id)

    def report(self, error: Exception) -> None:
        """Log a failure, unless one was logged a moment ago."""
        now = time.monotonic()
        if now < self.quiet_until:
            return
        self.quiet_until = now + QUIET_S
        fate = "the data is refused" if isinstance(error, Permanent) else "senders must try again"
        planned = isinstance(error, CollectorError)
        self.log.warning(
            "Exporting failed, %s: %s", fate, describe(error), exc_info=None if planned else error
        )


def describe(error: BaseException) -> str:
    """An error's own text; the class as well when the error is not one of ours."""
    if isinstance(error, CollectorError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def joined(failures: Sequence[BaseException]) -> CollectorError:
    """One error for several: `Retryable` unless all of them are `Permanent`."""
    text = "; ".join(dict.fromkeys(describe(failure) for failure in failures))
    if all(isinstance(failure, Permanent) for failure in failures):
        return Permanent(text)
    delays = [failure.delay_s for failure in failures if isinstance(failure, Retryable)]
    return Retryable(text, max(delays, default=1.0))


class FanOut:
    """
    Hands each batch to several consumers at the same time.

    Args:
        branches: each consumer, and whether it changes the message and so needs a copy.
        stats: where `otelier_junction_repeats` goes: branches not called again after a resend.
        remembered: of so many batches it is remembered which branches have them.
    """

    def __init__(
        self, branches: Sequence[tuple[Consume, bool]], stats: Counters, remembered: int = 10_000
    ) -> None:
        self.branches = tuple(branches)
        self.stats = stats
        self.remembered = remembered
        self.taken: OrderedDict[bytes, set[Consume]] = OrderedDict()
        """Batches that some branches have and others do not; handed on when a junction is replaced."""

    def admit(self) -> None:
        """Ask every branch whether it takes anything now; see `admit` below."""
        for consume, _ in self.branches:
            admit(consume)

    async def __call__(self, batch: Batch) -> None:
        """Call every branch that does not have the batch; raise the joined error of those that fail."""
        mark = digest(batch)
        taken = self.taken.setdefault(mark, set())
        if len(self.taken) > self.remembered:
            self.taken.popitem(last=False)
        repeats = sum(consume in taken for consume, _ in self.branches)
        if repeats:
            self.stats.add("otelier_junction_repeats", repeats)

        async def call(consume: Consume, own: Batch) -> None:
            await consume(own)
            taken.add(consume)

        # All copies are made before the first branch can touch the original.
        calls = [
            call(consume, copy(batch) if changes else batch)
            for consume, changes in self.branches
            if consume not in taken
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise joined(failures) from failures[0]
        self.taken.pop(mark, None)


def digest(batch: Batch) -> bytes:
    """Equal for a batch and its resend, different for everything else, also for parts of it."""
    head = batch.signal.encode() + batch.request.key
    if batch.wire is not None:
        return head  # the message is the request, and the key is a hash of that
    data = batch.message.SerializeToString(deterministic=True)
    return head + blake2b(data, digest_size=16).digest()


def fan_out(
    consumers: Sequence[Consume], stats: Counters, before: Consume | None = None
) -> Consume:
    """
    A consumer that hands each batch to all of `consumers`, which do not change it.

    Args:
        consumers: the exporters.
        stats: for the junction.
        before: what did this until now; what it remembers is still true.
    """
    return share([(consume, False) for consume in consumers], stats, before)


def share(
    branches: Sequence[tuple[Consume, bool]], stats: Counters, before: Consume | None = None
) -> Consume:
    """
    A consumer that hands each batch to several pipelines.

    Args:
        branches: the entry of each pipeline and whether a processor in it changes the message.
        stats: for the junction.
        before: what did this until now; what it remembers is still true.
    """
    if len(branches) == 1:
        return branches[0][0]
    made = FanOut(branches, stats)
    if isinstance(before, FanOut):
        made.taken = before.taken
    return made


class Gate:
    """
    A place in a pipeline where what follows can be exchanged while batches arrive.

    Whoever calls a gate keeps it; where it leads may change. While it is held, calls wait, and
    those that are inside already go on to their end. So nothing that is replaced is called after
    `empty` has returned, and nobody who calls notices more than a delay.
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
        """Ask what follows whether it takes anything now; see `admit` below."""
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


def admit(consume: Consume) -> None:
    """
    Ask a consumer whether it takes anything now, before there is a batch to hand over.

    A consumer that may say no has an `admit` of its own; most have none.

    Raises:
        Retryable: it takes nothing now.
    """
    ask = getattr(consume, "admit", None)
    if ask is not None:
        ask()


def copy(batch: Batch) -> Batch:
    """The same batch with a message of its own."""
    message = type(batch.message)()
    message.CopyFrom(batch.message)
    return Batch(batch.signal, message, batch.request, batch.wire)


def chain(
    processors: Sequence[tuple[Any, Any, Host]], consume: Consume
) -> tuple[Consume, list[Any]]:
    """
    Put processors in front of a consumer.

    Args:
        processors: class, config and host of each, in the order of the YAML.
        consume: what follows the last one.

    Returns:
        The entry, and the processors from the last to the first: the order to start them in, so
        that whatever hands on a batch finds the next one running.
    """
    made = []
    for cls, config, host in reversed(processors):
        consume = cls(config, host, consume)
        made.append(consume)
    return consume, made


def mutates(processors: Iterable[Any]) -> bool:
    """Whether one of these classes of processors declares that it changes messages."""
    return any(getattr(cls, "mutates", False) for cls in processors)
