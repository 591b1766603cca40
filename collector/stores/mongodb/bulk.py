"""
Inserting encoded documents, and what each answer of the server means.

Unordered bulks of BSON that was encoded before, small enough (1000 documents, 2 MB) that a resend
is cheap. A document that is there already (11000 on `_id`) is success. A document that the server
refuses is reported, its neighbours are stored. Everything else is `Retryable`: ids are
deterministic, so a resend after an unknown outcome (timeout, lost connection, write concern) can
only find duplicates.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bson.errors import InvalidBSON, InvalidDocument
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from collector.errors import Retryable

MAX_CHUNK_DOCUMENTS: Final = 1000
MAX_CHUNK_BYTES: Final = 2 * 1024 * 1024

DUPLICATE: Final = 11000
REFUSALS: Final = {
    2: "too_large",
    15: "too_deep",
    53: "invalid_id",
    121: "validator",
    171: "index",
    DUPLICATE: "unique_index",
    10334: "too_large",
}
"""Codes of the server that mean: this document, never."""

WHOLE: Final = frozenset({15, 10334})
"""Codes for a whole command that one of its documents is to blame for."""

OPERATOR: Final = {
    13: "the user may not write: grant readWrite on the database",
    18: "user name or password is wrong",
    8000: "the server refuses the login or the request",
    12501: "the storage quota is used up",
    14031: "the disk of the server is full",
}
"""Codes that need a person; the data is kept, and tried again slowly."""

LONG_DELAY_S: Final = 30.0
_CODE: Final = re.compile(r"'code': ([0-9]+)")


@dataclass(slots=True)
class Outcome:
    """What became of a chunk: `refused` has positions in the chunk, with reasons."""

    stored: int = 0
    duplicates: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def chunks(positions: Sequence[int], encoded: Sequence[bytes]) -> Iterator[list[int]]:
    """Cut a list of positions in `encoded` into lists that are small enough."""
    chunk: list[int] = []
    size = 0
    for position in positions:
        length = len(encoded[position])
        if chunk and (len(chunk) == MAX_CHUNK_DOCUMENTS or size + length > MAX_CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(position)
        size += length
    if chunk:
        yield chunk


def insert(collection: Collection[Any], encoded: Sequence[bytes], where: str) -> Outcome:
    """
    Insert one chunk.

    Args:
        collection: with the write concern that counts.
        encoded: documents as BSON, each with its `_id`.
        where: the server, for messages.

    Raises:
        Retryable: the server cannot be reached or does not take it now; part of it may be stored.
    """
    try:
        collection.insert_many([RawBSONDocument(data) for data in encoded], ordered=False)
    except BulkWriteError as error:
        return _sorted_out(error, len(encoded), where)
    except (DocumentTooLarge, InvalidDocument, InvalidBSON) as error:
        return _bisect(collection, encoded, where, error)
    except OperationFailure as error:
        if error.code in WHOLE:
            return _bisect(collection, encoded, where, error)
        raise retryable(error, where) from error
    except PyMongoError as error:
        raise retryable(error, where) from error
    return Outcome(stored=len(encoded))


def _sorted_out(error: BulkWriteError, given: int, where: str) -> Outcome:
    """Read what happened to each document from a bulk's error."""
    outcome = Outcome()
    failures = error.details.get("writeErrors", [])
    for failure in failures:
        code = failure["code"]
        if code == DUPLICATE and failure.get("keyPattern", {"_id": 1}) == {"_id": 1}:
            outcome.duplicates += 1
        elif code in REFUSALS:
            outcome.refused.append((failure["index"], REFUSALS[code]))
        else:
            text = f"MongoDB at {where}: {failure.get('errmsg', '')[:200]} (code {code})"
            raise Retryable(text) from error
    if concerns := error.details.get("writeConcernErrors"):
        text = f"MongoDB at {where}: not confirmed by a majority (code {concerns[0].get('code')})"
        raise Retryable(text) from error
    outcome.stored = given - len(failures)
    return outcome


def _bisect(
    collection: Collection[Any], encoded: Sequence[bytes], where: str, error: Exception
) -> Outcome:
    """One document fails the whole command: find it by halves."""
    if len(encoded) == 1:
        code = error.code if isinstance(error, OperationFailure) else None
        reason = REFUSALS.get(
            code or 0, "too_large" if isinstance(error, DocumentTooLarge) else "cannot_encode"
        )
        return Outcome(refused=[(0, reason)])
    middle = len(encoded) // 2
    left = insert(collection, encoded[:middle], where)
    right = insert(collection, encoded[middle:], where)
    return Outcome(
        left.stored + right.stored,
        left.duplicates + right.duplicates,
        left.refused + [(position + middle, reason) for position, reason in right.refused],
    )


def retryable(error: PyMongoError, where: str) -> Retryable:
    """An error of the driver in one line; the driver's text names hosts, never credentials."""
    code = error.code if isinstance(error, OperationFailure) else _login_code(error)
    if code in OPERATOR:
        return Retryable(f"MongoDB at {where}: {OPERATOR[code]} (code {code})", LONG_DELAY_S)
    if type(error).__name__.startswith("_"):  # the driver's own word for a call that it gave up
        return Retryable(f"MongoDB at {where} does not answer in time: it hangs, or is cut off")
    said = str(error).partition(", full error")[0].partition(" (configured timeouts")[0][:200]
    return Retryable(f"MongoDB at {where}: {type(error).__name__}: {said}")


def _login_code(error: PyMongoError) -> int | None:
    """Why no server was chosen, when that is a refused login: the driver says it in the text only."""
    if isinstance(error, ServerSelectionTimeoutError):
        for found in _CODE.findall(str(error)):
            if int(found) in OPERATOR:
                return int(found)
    return None
