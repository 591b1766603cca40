"""
Dead letters: documents that a store can never keep, with the reason and their exact bytes.

A letter is stored in the same step as the neighbours of the document, before anything is
acknowledged: what was acknowledged is either found by questions or kept here. Its id is made from
its content, so that a replay makes no second letter. The bytes are the document as JSON, which is
lossless (`documents.dumps`): `retry` writes the same document again, with the same `_id`, and
forgets the letter when the store has taken it.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from collector.documents.build import Document, dumps, loads, moment
from collector.model import Signal

if TYPE_CHECKING:
    from collector.stores.base import Store

PAGE: Final = 20
"""Letters that are fetched at once: each may be as large as a request."""


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
    """When it was refused first; its retention counts from here."""
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


def letter(signal: Signal, collection: str, document: Document, reason: str) -> DeadLetter:
    """The letter for a document that was refused."""
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


async def retry(store: "Store", ids: Sequence[str] = ()) -> tuple[int, int]:
    """
    Write dead letters again.

    Args:
        store: open for writing.
        ids: only these; all of them when empty.

    Returns:
        How many were taken (and forgotten), and how many remain.
    """
    taken = remain = 0
    after = ""
    while page := await store.dead_letters(limit=PAGE, after=after):
        after = page[-1].id
        for each in page:
            if ids and each.id not in ids:
                continue
            try:
                document = each.document()
            except ValueError:
                remain += 1
                continue
            written = await store.write(each.signal, [document])
            if written.refused:
                remain += 1
            else:
                await store.forget([each.id])
                taken += 1
    return taken, remain
