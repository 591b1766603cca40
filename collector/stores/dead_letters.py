"""
Dead letters: documents that a store can never keep, with the reason and their exact bytes.

A dead letter is stored in the same step as the neighbours of the document, before anything is
acknowledged: what was acknowledged is either found by questions or kept here. Its id is made from
its content, so that a repeat makes no second one. The bytes are the document as JSON, which is
lossless (`documents.dumps`): `collector dead-letters retry` writes the same document again, with the
same `_id`, and forgets the dead letter when the store has taken it.
"""

import time
from datetime import datetime
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from collector.documents.build import Document, dumps, loads, moment
from collector.model import Signal

PAGE: Final = 20
"""Dead letters that are fetched at once: each may be as large as a request."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One document that could not be stored."""

    id: str
    """24 hex characters, made from the content."""
    signal: Signal
    """What the document is."""
    collection: str
    """Where it would have been stored."""
    reason: str
    """Why it was not, the word of `otelier_store_refused`."""
    received_at: datetime
    """When it was rejected first; its retention counts from here."""
    document_id: str
    """Its `_id`, as far as it has one."""
    format: Literal["json", "repr"]
    """What `data` is: the document as JSON, or Python's text for what JSON cannot say."""
    data: bytes
    """The document."""

    def document(self) -> Document:
        """
        The document, as it was given to the store.

        Raises:
            ValueError: it has no JSON; it cannot be written again.
        """
        if self.format != "json":
            raise ValueError("the document has no JSON; it can only be looked at")
        return loads(self.data)


def dead_letter(signal: Signal, collection: str, document: Document, reason: str) -> DeadLetter:
    """The dead letter for a document that was rejected."""
    form: Literal["json", "repr"] = "json"
    try:
        data = dumps(document)
    except (TypeError, ValueError, RecursionError):
        form = "repr"
        data = repr(document).encode("utf-8", "backslashreplace")
    mark = blake2b(signal.encode() + b"\0" + data, digest_size=12)
    return DeadLetter(
        id=mark.hexdigest(),
        signal=signal,
        collection=collection,
        reason=reason,
        received_at=moment(time.time_ns() // 1_000_000 * 1_000_000),
        document_id=str(document.get("_id", ""))[:100].encode("utf-8", "replace").decode(),
        format=form,
        data=data,
    )
