"""
What queues, exporters and the spool hand to each other: outcomes and batches.

The protocols are here and not with their implementations, so that the queue knows neither HTTP
nor files, and neither of these knows the queue.
"""

import enum
import time
from dataclasses import dataclass, field
from typing import Any, Protocol


class Result(enum.Enum):
    """How one try to export ended."""

    DELIVERED = enum.auto()
    RETRY = enum.auto()
    UNREACHABLE = enum.auto()  # as RETRY, but nothing listens there: at exit there is no second try
    REFUSED = enum.auto()
    TOO_LARGE = enum.auto()  # as a whole: halves may pass
    UNREADABLE = enum.auto()  # some record cannot be encoded: halves tell which


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of one try.

    Args:
        result: delivered, again, or never.
        reason: for people, when it failed.
        delay_s: what the collector asked to wait for (Retry-After).
        rejected: how many records of a delivered batch the collector did not take.
    """

    result: Result
    reason: str = ""
    delay_s: float | None = None
    rejected: int = 0


class Export(Protocol):
    """Encodes and sends; called by one thread at a time; the deadline is monotonic time."""

    target: str

    def __call__(self, batch: list[Any], deadline: float) -> Outcome:
        """Try once to send the whole batch."""

    def close(self) -> None:
        """Let go of the connection."""


class Resendable(Export, Protocol):
    """An Export that can also send what was encoded before."""

    def send(self, body: bytes, deadline: float) -> Outcome:
        """Try once to send a request."""


class SpoolProtocol(Protocol):
    """The spool, as a queue sees it; nothing here raises."""

    through: bool
    """Whether each record is written before `put` returns."""

    def encode(self, signal: str, items: list[Any]) -> bytes:
        """Records as a request; may raise."""

    def keep(self, signal: str, body: bytes, records: int) -> bool:
        """Write a request, to be delivered later; whether it is on disk."""

    def note(self, signal: str, body: bytes) -> "Place | None":
        """Write one record that the queue goes on carrying."""

    def seal(self, places: "list[Place]") -> None:
        """Note that these are about to be sent as one request."""

    def done(self, places: "list[Place]") -> None:
        """Note that these need no delivery any more."""

    def wake(self) -> None:
        """A queue is getting full: have `ExportQueue.shed` called, in another thread."""


Place = tuple[Any, int]
"""Where a noted record is: the file, and the id in it."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A record that is on disk already, in the queue."""

    body: bytes
    place: Place


@dataclass(slots=True, eq=False)
class Batch:
    """
    What was taken from the queue to be sent together.

    Args:
        items: records with their sizes.
        records: how many records that is.
        upto: for metrics, the request to collect that this answers.
    """

    items: list[tuple[Any, int]]
    records: int
    upto: int = 0
    body: bytes | None = None
    begun: float = field(default_factory=time.monotonic)
    pauses: int = 0

    @property
    def places(self) -> list[Place]:
        """Where those of the records are that are on disk already."""
        return [item.place for item, _ in self.items if isinstance(item, Spooled)]

    def halves(self) -> "list[Batch]":
        """The second half and the first."""
        middle = self.records // 2
        parts = (self.items[middle:], self.items[:middle])
        return [Batch(part, len(part)) for part in parts]
