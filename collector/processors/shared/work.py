"""What every processor does around its work: counts, patterns that are too slow, large batches."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, TypeVar

from collector.errors import Permanent
from collector.model import Batch, Host, Signal
from collector.otlp import count
from collector.processors.ottl.regex import TooSlow

INLINE: Final = 500
"""Batches of so many items are worked on in the event loop: a thread costs more than they do."""

P = ParamSpec("P")
R = TypeVar("R")


def arrived(host: Host, batch: Batch) -> int:
    """Count the items that a processor was given, and say how many."""
    amount = count(batch.signal, batch.message)
    host.stats.add(
        "otelcol_processor_incoming_items", amount, processor=host.id, otel_signal=batch.signal
    )
    return amount


def handed_on(host: Host, signal: Signal, amount: int) -> None:
    """Count the items that a processor hands on."""
    host.stats.add(
        "otelcol_processor_outgoing_items", amount, processor=host.id, otel_signal=signal
    )


def dropped(host: Host, reason: str, amount: int) -> None:
    """Count items that a processor dropped on purpose."""
    if amount:
        host.stats.add("otelier_processor_dropped_items", amount, processor=host.id, reason=reason)


@contextlib.contextmanager
def in_time(host: Host, amount: int) -> Iterator[None]:
    """
    Reject a batch on whose texts a pattern is too slow: it would be slow again.

    Raises:
        Permanent: instead of `TooSlow`.
    """
    try:
        yield
    except TooSlow:
        dropped(host, "pattern_too_slow", amount)
        text = f'processor "{host.id}": a pattern needs too long for the texts of this batch'
        raise Permanent(text) from None


async def offload(amount: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do the work here when it is small, else in a thread, so that the loop goes on."""
    if amount <= INLINE:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
