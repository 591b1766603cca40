"""
Joining and cutting requests, and what becomes of their identity.

A request's key is what stores make the ids of log records from, so a part or a union needs a key of
its own, and the same one each time the same part is made: a hash of the keys and bounds that it was
made from. A request that was cut, half delivered and found again after a crash collides with itself
instead of being stored twice.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from collector.model import Batch
from collector.otlp import GROUPS, encode, new_message, points, resources


def units(batch: Batch) -> int:
    """How many pieces a batch can be cut into: spans, log records or metrics (whole ones)."""
    _, scopes_name, items_name = GROUPS[batch.signal]
    return sum(
        len(getattr(scope, items_name))
        for group in resources(batch)
        for scope in getattr(group, scopes_name)
    )


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Those units of a batch, with their resources and scopes, as a batch of its own."""
    groups_name, scopes_name, items_name = GROUPS[batch.signal]
    message = new_message(batch.signal)
    at = 0
    for group in getattr(batch.message, groups_name):
        new_group: Any = None
        for scope in getattr(group, scopes_name):
            found = getattr(scope, items_name)
            low, high = max(start - at, 0), min(stop - at, len(found))
            at += len(found)
            if low >= high:
                continue
            if new_group is None:
                new_group = getattr(message, groups_name).add(schema_url=group.schema_url)
                if group.HasField("resource"):
                    new_group.resource.CopyFrom(group.resource)
            new_scope = getattr(new_group, scopes_name).add(schema_url=scope.schema_url)
            if scope.HasField("scope"):
                new_scope.scope.CopyFrom(scope.scope)
            getattr(new_scope, items_name).extend(found[low:high])
    bounds = f"{start}:{stop}".encode()
    key = hashlib.blake2b(batch.request.key + bounds, digest_size=16, person=b"part").digest()
    return Batch(batch.signal, message, replace(batch.request, key=key))


def parts(batch: Batch, max_size: int, sizer: str) -> Iterator[Batch]:
    """A batch in pieces of at most so many items or bytes; one unit is never cut."""
    bounds = [0]
    size = 0
    _, scopes_name, items_name = GROUPS[batch.signal]
    index = 0
    for group in resources(batch):
        for scope in getattr(group, scopes_name):
            for item in getattr(scope, items_name):
                if sizer == "bytes":
                    weight = item.ByteSize()
                else:
                    weight = len(points(item)) if items_name == "metrics" else 1
                if size and size + weight > max_size:
                    bounds.append(index)
                    size = 0
                size += weight
                index += 1
    if len(bounds) == 1:
        yield batch
        return
    for start, stop in zip(bounds, [*bounds[1:], index], strict=True):
        yield part(batch, start, stop)


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one signal and tenant as one request."""
    if len(batches) == 1:
        return batches[0]
    wire = b"".join(
        encode(batch) for batch in batches
    )  # repeated fields: joining bytes joins lists
    first = batches[0]
    digest = hashlib.blake2b(digest_size=16, person=b"joined")
    for batch in batches:
        digest.update(batch.request.key)
    request = replace(first.request, key=digest.digest())
    return Batch(first.signal, type(first.message).FromString(wire), request, wire)
