"""
Three ways to join consumers; together they are every pipeline.

    chain     processors in front of a consumer: a right fold over a list, as ASGI middleware
    fan_out   one batch to several exporters of a pipeline
    share     one batch of a receiver to several pipelines

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from collector.errors import CollectorError, Permanent, Retryable
from collector.model import Batch, Consume, Counters, Host, Signal
from collector.otlp import NOUNS, count

QUIET_S: Final = 60.0
"""A broken exporter is logged at most so often."""


@dataclass(slots=True)
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


class Junction:
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
        self._taken: OrderedDict[bytes, set[int]] = OrderedDict()

    async def __call__(self, batch: Batch) -> None:
        """Call every branch that does not have the batch; raise the joined error of those that fail."""
        mark = digest(batch)
        taken = self._taken.setdefault(mark, set())
        if len(self._taken) > self.remembered:
            self._taken.popitem(last=False)
        if taken:
            self.stats.add("otelier_junction_repeats", len(taken))

        async def call(place: int, consume: Consume, own: Batch) -> None:
            await consume(own)
            taken.add(place)

        # All copies are made before the first branch can touch the original.
        calls = [
            call(place, consume, copy(batch) if changes else batch)
            for place, (consume, changes) in enumerate(self.branches)
            if place not in taken
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise joined(failures) from failures[0]
        self._taken.pop(mark, None)


def digest(batch: Batch) -> bytes:
    """Equal for a batch and its resend, different for everything else, also for parts of it."""
    head = batch.signal.encode() + batch.request.key
    if batch.wire is not None:
        return head  # the message is the request, and the key is a hash of that
    data = batch.message.SerializeToString(deterministic=True)
    return head + blake2b(data, digest_size=16).digest()


def fan_out(consumers: Sequence[Consume], stats: Counters) -> Consume:
    """A consumer that hands each batch to all of `consumers`, which do not change it."""
    if len(consumers) == 1:
        return consumers[0]
    return Junction([(consume, False) for consume in consumers], stats)


def share(branches: Sequence[tuple[Consume, bool]], stats: Counters) -> Consume:
    """
    A consumer that hands each batch to several pipelines.

    Args:
        branches: the entry of each pipeline and whether a processor in it changes the message.
        stats: for the junction.
    """
    if len(branches) == 1:
        return branches[0][0]
    return Junction(branches, stats)


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


def mutates(processors: Sequence[tuple[Any, Any, Host]]) -> bool:
    """Whether one of the processors declares that it changes messages."""
    return any(getattr(cls, "mutates", False) for cls, _, _ in processors)


def entries(
    pipelines: Sequence[tuple[Signal, Consume, bool]], stats: Counters
) -> Mapping[Signal, Consume]:
    """
    What one receiver is given: a consumer for each signal that has a pipeline.

    Args:
        pipelines: signal, entry and whether it changes messages, of each pipeline of the receiver.
        stats: for the junctions.
    """
    by_signal: dict[Signal, list[tuple[Consume, bool]]] = {}
    for signal, consume, changes in pipelines:
        by_signal.setdefault(signal, []).append((consume, changes))
    return {signal: share(found, stats) for signal, found in by_signal.items()}
