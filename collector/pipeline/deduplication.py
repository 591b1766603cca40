"""
Batches that were counted already.

A sender that did not hear the answer sends its request again. The durable log and the stores
recognise that; a sum in memory would count it twice. So whoever adds up remembers what it has seen.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from collector.model import Batch

REMEMBERED: Final = 10_000


class Repeats:
    """
    Remembers the last batches.

    Args:
        remembered: how many.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._marks: OrderedDict[bytes, None] = OrderedDict()

    def known(self, batch: Batch) -> bool:
        """Whether this batch was counted."""
        return mark_of(batch) in self._marks

    def add(self, batch: Batch) -> None:
        """This batch is counted now."""
        self._marks[mark_of(batch)] = None
        if len(self._marks) > self._remembered:
            self._marks.popitem(last=False)


def mark_of(batch: Batch) -> bytes:
    """Equal for a batch and its resend, different for everything else, also for parts of it."""
    mark = batch.signal.encode() + batch.request.key
    if batch.wire is not None:
        return mark  # the message is the request, and the key is a hash of that
    data = batch.message.SerializeToString(deterministic=True)
    return mark + blake2b(data, digest_size=16).digest()
