"""
What one query may use, and how it is counted.

Python cannot say how much memory a query holds, so the parts that can grow report what they keep:
series, samples of windows, points of the answer, lines of the answer. The sizes are estimates on
the high side. Documents are counted as they are read, and every thousandth the caller may stop the
query (the client went, the time is over).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from collector.query.logql.errors import LimitError
from collector.stores.base import Document

MEMORY: Final = 64 << 20
DOCUMENTS: Final = 1_000_000
SERIES: Final = 500
POINTS: Final = 11_000
"""The most evaluation times of a metric query."""
_CHECK_EVERY: Final = 1000


class Stopped(Exception):
    """The caller no longer wants the answer."""


@dataclass(slots=True)
class Budget:
    """
    The bounds of one query, and what is used of them.

    Args:
        memory: bytes that the query may keep.
        documents: documents that it may read.
        series: series of the answer.
        stopped: asked every thousand documents; True ends the query with `Stopped`.
    """

    memory: int = MEMORY
    documents: int = DOCUMENTS
    series: int = SERIES
    stopped: Callable[[], bool] = lambda: False
    used: int = 0
    read: int = 0
    bytes: int = 0

    def reading(self, documents: Iterable[Document]) -> Iterator[Document]:
        """
        The same documents, counted.

        Raises:
            LimitError: more than `documents` are read; nothing that is exact can be said then.
            Stopped: the caller said so.
        """
        for document in documents:
            self.read += 1
            if self.read > self.documents:
                raise LimitError(
                    f"the query reads more than {self.documents} log records; choose a shorter time "
                    "range, or narrow the selector down"
                )
            if self.read % _CHECK_EVERY == 0:
                self.check()
            self.bytes += len(document.get("message", ""))
            yield document

    def check(self) -> None:
        """Raise `Stopped` when the caller no longer waits."""
        if self.stopped():
            raise Stopped

    def fits(self, size: int) -> bool:
        """Whether so many bytes more may be kept."""
        return self.used + size <= self.memory

    def keep(self, size: int) -> None:
        """
        Count bytes that are kept from now on; negative when they are given back.

        Raises:
            LimitError: it is too much.
        """
        self.used += size
        if self.used > self.memory:
            raise LimitError(
                f"the query needs more than {self.memory >> 20} MiB; group it by fewer labels "
                "(sum by (service_name) (...)), choose a shorter time range or a larger step"
            )
