"""
What became of every record: produced = exported + spooled + dropped + pending.

Each record is in exactly one column. The queue changes the columns with its lock held; what was
produced and what is pending are the buffer's numbers.
"""

from typing import Any

from telemetry._export.drop_reasons import FORK_DISCARD


class Ledger:
    """
    The columns of one signal in one process.

    Args:
        inherited: records that a forked process found here: they are the parent's.
    """

    __slots__ = ("dropped", "ever_spooled", "exported", "spooled")

    def __init__(self, inherited: int) -> None:
        self.exported = 0
        self.spooled = 0
        """Spooled, and not delivered from there yet."""
        self.ever_spooled = 0
        self.dropped: dict[str, int] = {FORK_DISCARD: inherited} if inherited else {}

    def drop(self, reason: str, count: int = 1) -> None:
        """Count dropped records."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def settle(self, records: int, lost: int, reason: str) -> None:
        """Count records that were exported, but for the lost ones."""
        self.exported += records - lost
        self.drop(reason, lost)

    def spool(self, records: int) -> None:
        """Count records that were spooled."""
        self.spooled += records
        self.ever_spooled += records

    def recover(self, exported: int, dropped: int, reason: str) -> None:
        """Count spooled records that were delivered, or dropped, since."""
        self.spooled -= exported + dropped
        self.settle(exported + dropped, dropped, reason)

    def lost(self) -> int:
        """How many records of this process were dropped."""
        return sum(count for reason, count in self.dropped.items() if reason != FORK_DISCARD)

    def misses(self) -> tuple[int, int]:
        """What grows when a record does not get through: dropped, spooled."""
        return sum(self.dropped.values()), self.ever_spooled

    def report(self, produced: int, pending: int, *, with_spool: bool) -> dict[str, Any]:
        """All columns, by name; `spooled` if there is a spool."""
        columns: dict[str, Any] = {
            "produced": produced,
            "exported": self.exported,
            "pending": pending,
            "dropped": dict(sorted(self.dropped.items())),
        }
        if with_spool:
            columns["spooled"] = self.spooled
        return columns
