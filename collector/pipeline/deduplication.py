"""
The digest of a request, and requests that were counted already.

A client that did not get the answer sends its request again. The durable log and the stores
recognise that; a sum in memory would count it twice. So components that add up remember the digests
of what they have seen, and a fan-out remembers which of its branches have a request.
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
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def known(self, batch: Batch) -> bool:
        """Whether this batch was counted."""
        return digest_of(batch) in self._digests

    def add(self, batch: Batch) -> None:
        """This batch is counted now."""
        self._digests[digest_of(batch)] = None
        if len(self._digests) > self._remembered:
            self._digests.popitem(last=False)


def digest_of(batch: Batch) -> bytes:
    """Equal for a batch and its resend, different for everything else, also for parts of it."""
    head = batch.signal.encode() + batch.request.key
    if batch.wire is not None:
        return head  # the message is the request, and the key is a hash of that
    data = batch.message.SerializeToString(deterministic=True)
    return head + blake2b(data, digest_size=16).digest()
