"""
`logs`: one page of the log records that a filter matches.

Like every question it is a function over any store and sees that only through its contract, so that
MongoDB, SQLite and a test double give equal answers.
"""

import msgspec

from collector.model import Signal
from collector.query.searched import Searched
from collector.stores.base import Document, Query, Store, event_time


class Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Log records that match, in the order asked for.

    Args:
        logs: the documents.
        next: the cursor of the page behind this one; absent on the last page.
        searched: where was looked.
    """

    logs: list[Document] = []
    next: str | None = None
    searched: Searched


async def logs(store: Store, query: Query) -> Page:
    """
    One page of log records.

    Args:
        store: where to look.
        query: the filter (`parameters.log_query` makes it); its limit is below 10000.
    """
    found = await store.find(msgspec.structs.replace(query, limit=query.limit + 1))
    rows = found[: query.limit]
    behind = cursor(rows[-1]) if len(found) > len(rows) else None
    return Page(logs=rows, next=behind, searched=Searched(store=store.describe()))


def cursor(document: Document) -> str:
    """The place of a log record in the order of time, as text for the next question."""
    return f"{event_time(Signal.LOGS, document)}.{document['_id']}"
