"""
Taking items out of a request, and the identity of the log records that stay.

Log records have no id of their own: theirs is made from the request's key and their place in it.
A processor that takes records out moves the others to new places, so `Sieve` gives the request a key
that is derived from the old one and from what was kept: the same request through the same processor
gets the same ids again, and two pipelines that keep different records of one request never give
one id to two records. A cut into consecutive parts needs no new key: `advanced` moves it to where
the part begins, and the ids stay those of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from collector.model import Batch, Request, Signal
from collector.otlp import GROUPS, resources


def sift(found: Any, kept: Sequence[bool]) -> int:
    """
    Take out of a repeated field what is not kept, without copying the rest.

    Returns:
        How many were taken out.
    """
    gone = kept.count(False)
    if gone:
        places = iter(kept)
        # A stable sort moves pointers: what is kept stays in order in front, the rest is cut off.
        found.sort(key=lambda _: not next(places))
        del found[len(kept) - gone :]
    return gone


@dataclass(slots=True)
class Sieve:
    """
    Takes items out of a batch and keeps the batch consistent.

    Args:
        batch: it is changed.
    """

    batch: Batch
    gone: int = field(default=0, init=False)
    _marks: list[bytes] = field(default_factory=list, init=False)

    def take_out(self, scope: Any, kept: Sequence[bool]) -> int:
        """Take out of one scope group what is not kept; call it for each, in order."""
        found = getattr(scope, GROUPS[self.batch.signal][2])
        gone = sift(found, kept)
        self.gone += gone
        self._marks.append(bytes(kept) + b"|")
        return gone

    def finish(self) -> None:
        """Take out the groups that are empty now, and give log records their ids."""
        if not self.gone:
            return
        batch = self.batch
        _, scopes_name, items_name = GROUPS[batch.signal]
        groups = resources(batch)
        for group in groups:
            scopes = getattr(group, scopes_name)
            sift(scopes, [bool(getattr(scope, items_name)) for scope in scopes])
        sift(groups, [bool(getattr(group, scopes_name)) for group in groups])
        batch.changed()
        if batch.signal is Signal.LOGS:
            batch.request = derived(batch.request, b"".join(self._marks))


def derived(request: Request, *parts: bytes) -> Request:
    """A request whose key stands for the old key and `parts`."""
    digest = blake2b(request.key, digest_size=16)
    for part in parts:
        digest.update(b"\0" + part)
    return replace(request, key=digest.digest())


def advanced(request: Request, start: int) -> Request:
    """
    The request of a part that begins at the record number `start` of a logs request.

    The number of a log record is added to the first 8 bytes of the key (documents/build.py), so the
    records of the part keep the ids that they have in the whole.
    """
    number = int.from_bytes(request.key[:8]) + start & 0xFFFFFFFFFFFFFFFF
    return replace(request, key=number.to_bytes(8) + request.key[8:])
