"""Where documents come from: the one seam between evaluation and stores, files, tests."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from collector.query.logql import tree
from collector.stores.base import Document


class Source(Protocol):
    """Log documents in the order of time."""

    def documents(
        self, query: tree.LogQuery, since: int, until: int, *, newest_first: bool
    ) -> Iterator[Document]:
        """
        Candidates for a query: at least all documents that its selector and stages let pass.

        Args:
            query: what is looked for; a source may leave out what it is sure does not match.
            since: earliest time in nanoseconds, inclusive.
            until: latest time in nanoseconds, exclusive.
            newest_first: the order by time, then `_id`.
        """


class Documents:
    """
    A source of documents in memory.

    Args:
        documents: log documents in any order.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = sorted(documents, key=order)

    def documents(
        self, query: tree.LogQuery, since: int, until: int, *, newest_first: bool
    ) -> Iterator[Document]:
        """All documents of that time."""
        del query
        found = reversed(self._documents) if newest_first else iter(self._documents)
        return (one for one in found if since <= one["time_unix_nano"] < until)


def order(document: Document) -> tuple[int, str]:
    """What log documents are ordered by."""
    return document["time_unix_nano"], document["_id"]
