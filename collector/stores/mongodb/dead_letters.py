"""
Dead letters in MongoDB: the collection `dead_letters`.

A letter may be larger than a document can be (that is often why it is one), so its bytes stand in
parts. The parts are written first: a letter that is there is whole.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final

import bson
from bson.binary import Binary
from bson.objectid import ObjectId
from pymongo.collection import Collection

from collector.model import Signal
from collector.stores.dead_letters import DeadLetter
from collector.stores.mongodb import bulk

PART_BYTES: Final = 8 * 1024 * 1024


def encode(letter: DeadLetter) -> Iterator[bytes]:
    """The documents of a letter, in the order to write them."""
    data = letter.data
    head: dict[str, Any] = {
        "_id": ObjectId(letter.id),
        "received_at": letter.received_at,
        "signal": letter.signal.value,
        "collection": letter.collection,
        "reason": letter.reason,
        "document_id": letter.document_id,
        "format": letter.format,
        "size": len(data),
    }
    if len(data) <= PART_BYTES:
        head["data"] = Binary(data)
    else:
        for part, begin in enumerate(range(0, len(data), PART_BYTES)):
            mark = blake2b(f"{letter.id}.{part}".encode(), digest_size=12)
            yield bson.encode(
                {
                    "_id": ObjectId(mark.digest()),
                    "part_of": head["_id"],
                    "part": part,
                    "received_at": letter.received_at,
                    "data": Binary(data[begin : begin + PART_BYTES]),
                }
            )
    yield bson.encode(head)


def add(collection: Collection[Any], letters: Sequence[DeadLetter], where: str) -> int:
    """
    Keep letters; those that are there already stay.

    Returns:
        How many MongoDB rejected, as by a validator of another program.

    Raises:
        Retryable: it cannot keep them now.
    """
    refused = 0
    for letter in letters:
        for document in encode(letter):
            refused += len(bulk.insert(collection, [document], where).refused)
    return refused


def read(collection: Collection[Any], limit: int, after: str) -> list[DeadLetter]:
    """Letters in the order of their ids, behind `after`."""
    wanted: dict[str, Any] = {"part_of": {"$exists": False}, "reason": {"$exists": True}}
    if after:
        wanted["_id"] = {"$gt": ObjectId(after)}
    found = []
    for head in collection.find(wanted, sort=[("_id", 1)], limit=limit):
        data = head.get("data")
        if data is None:
            parts = collection.find({"part_of": head["_id"]}, sort=[("part", 1)])
            data = b"".join(part["data"] for part in parts)
        found.append(
            DeadLetter(
                id=str(head["_id"]),
                signal=Signal(head["signal"]),
                collection=head["collection"],
                reason=head["reason"],
                received_at=head["received_at"],
                document_id=head["document_id"],
                format=head["format"],
                data=data,
            )
        )
    return found


def forget(collection: Collection[Any], ids: Sequence[str]) -> int:
    """Delete letters; how many there were."""
    known = [ObjectId(each) for each in ids]
    count: int = collection.delete_many({"_id": {"$in": known}}).deleted_count
    collection.delete_many({"part_of": {"$in": known}})
    return count
