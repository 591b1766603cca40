"""
One batch to several consumers: exporters at the end of a pipeline, pipelines behind a receiver.

    Outlet    one exporter: counts what it took, names it in errors
    FanOut    calls every branch at the same time
    share     one batch of a receiver to several pipelines, with copies where they are needed

Every branch is called even when one fails: a broken exporter never keeps data from the others. The
answer to the client is the joined error. If anything could still be stored later the client must
keep the batch (`Retryable`, with the longest delay that a branch asked for); only when every failure
is for good is it `Permanent`. The client then sends the whole batch again, so each fan-out remembers
which branches have it: while a database is down for an hour, the file beside it still gets every
batch once.

The message is copied only where one receiver feeds several pipelines, and only for those that
change it: a copy costs more than decoding the batch did.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from collector.errors import CollectorError, Permanent, Retryable
from collector.model import Batch, Consume, Counters, admit
from collector.otlp import NOUNS, count
from collector.pipeline.deduplication import digest_of
from collector.stats import QuietLog


@dataclass(eq=False)
class Outlet:
    """
    One exporter at the end of a pipeline: counts what it took and what failed.

    Args:
        id: the exporter's id in YAML.
        consume: the exporter.
        stats: where `otelcol_exporter_sent_*` and `otelcol_exporter_send_failed_*` go.
        log: gets one line a minute at most when the exporter fails.
    """

    id: str
    consume: Consume
    stats: Counters
    log: logging.Logger
    _quiet_log: QuietLog = field(init=False)

    def __post_init__(self) -> None:
        """Make what keeps the log short."""
        self._quiet_log = QuietLog(self.log)

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
        fate = "the data is rejected" if isinstance(error, Permanent) else "senders must try again"
        planned = isinstance(error, CollectorError)
        self._quiet_log.warning(
            "Exporting failed, %s: %s", fate, describe(error), error=None if planned else error
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
        remembered: how many batches to remember with the branches that have them.
    """

    def __init__(
        self, branches: Sequence[tuple[Consume, bool]], stats: Counters, remembered: int = 10_000
    ) -> None:
        self.branches = tuple(branches)
        self.stats = stats
        self.remembered = remembered
        self.taken: OrderedDict[bytes, set[Consume]] = OrderedDict()
        """Batches that some branches have and others do not; handed on when a fan-out is replaced."""

    def admit(self) -> None:
        """Ask every branch whether it takes anything now; see `model.admit`."""
        for consume, _ in self.branches:
            admit(consume)

    async def __call__(self, batch: Batch) -> None:
        """Call every branch that does not have the batch; raise the joined error of those that fail."""
        mark = digest_of(batch)
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


def fan_out(
    consumers: Sequence[Consume], stats: Counters, before: Consume | None = None
) -> Consume:
    """
    A consumer that hands each batch to all of `consumers`, which do not change it.

    Args:
        consumers: the exporters.
        stats: for the fan-out.
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
        stats: for the fan-out.
        before: what did this until now; what it remembers is still true.
    """
    if len(branches) == 1:
        return branches[0][0]
    made = FanOut(branches, stats)
    if isinstance(before, FanOut):
        made.taken = before.taken
    return made


def copy(batch: Batch) -> Batch:
    """The same batch with a message of its own."""
    message = type(batch.message)()
    message.CopyFrom(batch.message)
    return Batch(batch.signal, message, batch.request, batch.wire)
