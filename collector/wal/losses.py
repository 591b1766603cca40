"""
What a durable queue has lost, until an operator has seen it.

Acknowledged requests can go only by a hand or a disk: a segment that is deleted, emptied or cut, a
cursor that is gone. The numbers of records show it: they follow each other without a gap. What is
found is written down here, so that it is still known when the segments around a gap are delivered
and gone, and stays a problem of the collector until `collector queue acknowledge`. Exporters that have a cursor are
written down, too: one that is listed and has none has lost it, one that is not is new. So is the
number that comes next, at a clean stop: nothing else shows that the newest segment is gone.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from collector.model import Host
from collector.wal.files import Files

NAME: Final = "losses.json"
MOST: Final = 1_000
"""Losses that are written down; more of them are one more sign of the same."""


@dataclass(slots=True)
class Losses:
    """
    The file of a folder.

    Args:
        files: how files are worked on.
        folder: of the log.
        found: what was lost, by a name that stays the same; text and time.
        acknowledged: names of losses that an operator has seen.
        exporters: those that have a cursor; None when nobody has written them down yet.
    """

    files: Files
    folder: Path
    found: dict[str, tuple[str, float]] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    exporters: list[str] | None = None
    next: int = 0
    """The number of the next record, as of the last clean stop."""

    def load(self) -> None:
        """Read the file; one that is damaged counts as none."""
        try:
            content: Any = msgspec.json.decode(self.files.read_all(self.folder / NAME))
            found = {
                str(name): (str(text), float(at)) for name, (text, at) in content["found"].items()
            }
            acknowledged = [str(name) for name in content["acknowledged"]]
            exporters = content["exporters"]
            self.next = int(content.get("next", 0))
        except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            return
        self.found, self.acknowledged = found, acknowledged
        self.exporters = None if exporters is None else [str(name) for name in exporters]

    def look_again(self) -> None:
        """Read what another process acknowledged in the meantime."""
        now = Losses(self.files, self.folder)
        now.load()
        if now.acknowledged != self.acknowledged:
            self.acknowledged = now.acknowledged
            self.found = {
                name: each for name, each in self.found.items() if name not in now.acknowledged
            }

    def save(self) -> None:
        """Write the file, durably."""
        content = {
            "found": self.found,
            "acknowledged": self.acknowledged[-MOST:],
            "exporters": self.exporters,
            "next": self.next,
        }
        self.files.replace(self.folder / NAME, msgspec.json.encode(content))

    def add(self, name: str, text: str) -> bool:
        """Note a loss; whether it was not known before."""
        if name in self.found or name in self.acknowledged or len(self.found) >= MOST:
            return False
        self.found[name] = (text, time.time())
        return True

    def show(self, host: Host) -> None:
        """Say in the health of the collector what has been lost and nobody has seen yet."""
        found = [text for text, _ in self.found.values()]
        if found:
            host.health.problems[host.id] = found
        else:
            host.health.problems.pop(host.id, None)
        host.stats.set("otelier_wal_unseen_losses", len(found), storage=host.id)

    def acknowledge(self) -> list[str]:
        """An operator has seen them; what they are."""
        texts = [text for text, _ in self.found.values()]
        self.acknowledged += self.found
        self.found = {}
        self.save()
        return texts

    def know(self, exporters: Iterable[str]) -> None:
        """These exporters have a cursor now."""
        names = sorted(exporters)
        if names != self.exporters:
            self.exporters = names
            self.save()
