"""
A file that is put aside when it is full or its day is over.

By size, the file at `path` gets the time into its name and a new one begins, as lumberjack does it
for the OpenTelemetry Collector: `data.json` becomes `data-2022-09-14T05-02-14.173.json`. By day, the
day is in the name from the start, so that a day's end is the opening of another file: nothing is
renamed under a reader, and a batch that comes at midnight is in one file.

A file is only put aside between two batches. So a batch that is larger than the limit makes a file
that is larger, and a write that fails can always be cut back.
"""

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from collector.exporters.file.appender import Appender
from collector.exporters.file.config import Rotation
from collector.exporters.file.paths import Pattern, Place, dated

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Keeping:
    """
    How a file is written and what becomes of it.

    Args:
        pattern: its path.
        format: of what is in it.
        rotation: when it is put aside; None is never.
        compression: of files put aside: "", gzip or zstd.
        level: of the compression; 0 is the method's own.
    """

    pattern: Pattern
    format: str
    rotation: Rotation | None
    compression: str
    level: int = 0

    @property
    def frames(self) -> bool:
        """Whether the file is made of frames and not of lines."""
        return self.format == "otlp_proto"

    def name(self, place: Place, now: float) -> str:
        """What the file that is written to at a time is called."""
        if self.rotation is None or not self.rotation.daily:
            return place.name
        return dated(place.name, day(now, localtime=self.rotation.localtime).isoformat())


def moment(now: float, *, localtime: bool) -> dt.datetime:
    """A time as names have it."""
    utc = dt.datetime.fromtimestamp(now, dt.UTC)
    return utc.astimezone() if localtime else utc


def day(now: float, *, localtime: bool) -> dt.date:
    """The day of a time."""
    return moment(now, localtime=localtime).date()


class Rotating:
    """
    One file, open or not, with the rules by which it is put aside.

    Args:
        place: of the file, without a day in its name.
        keeping: the rules.
        folder_mode: of inner folders that are missing.
        sync: whether it is forced to disk before it is closed.
        torn: called with how many bytes were moved aside when a file was opened.
        turned: called when a file was put aside.
    """

    def __init__(
        self,
        place: Place,
        keeping: Keeping,
        *,
        folder_mode: int,
        sync: bool,
        torn: Callable[[Path, int], None],
        turned: Callable[[Keeping], None],
    ) -> None:
        self._place = place
        self._keeping = keeping
        self._folder_mode = folder_mode
        self._sync = sync
        self._torn = torn
        self._turned = turned
        self._file = self._appender(place.name)

    @property
    def path(self) -> Path:
        """The file that is written to."""
        return self._file.path

    @property
    def size(self) -> int:
        """How many bytes it has; only after `ready`."""
        return self._file.size

    @property
    def number(self) -> tuple[int, int]:
        """Device and inode: which file it is, whatever it is called; only after `ready`."""
        return self._file.number

    def ready(self, incoming: int, now: float, *, may_turn: bool = True) -> None:
        """
        Have the right file open.

        Args:
            incoming: so many bytes are going to be written.
            now: seconds since 1970.
            may_turn: whether it may be put aside because of its size.

        Raises:
            OSError: it cannot be opened or put aside.
        """
        self.turn(now)
        name = self._keeping.name(self._place, now)
        if self._file.place.name != name:
            self._file = self._appender(name)
        self._open()
        rotation = self._keeping.rotation
        limit = rotation.max_megabytes * MIB if rotation is not None else 0
        if rotation is None or not limit or not may_turn:
            return
        if self.size > 0 and self.size + incoming > limit:
            if self._sync:
                self._file.sync()
            self._file.move(self._free_name(now, localtime=rotation.localtime))
            self._open()
            self._turned(self._keeping)

    def turn(self, now: float) -> None:
        """
        Close the file if its day is over.

        Raises:
            OSError: it could not be forced to disk.
        """
        if self._file.is_open and self._file.place.name != self._keeping.name(self._place, now):
            self._file.close(sync=self._sync)
            self._turned(self._keeping)

    def write(self, data: bytes) -> None:
        """As `Appender.write`."""
        self._file.write(data)

    def sync(self) -> None:
        """As `Appender.sync`; a file that failed is closed."""
        try:
            self._file.sync()
        except OSError:
            self._file.close(sync=False)
            raise

    def cut(self, end: int) -> None:
        """As `Appender.cut`."""
        self._file.cut(end)

    def close(self) -> None:
        """Close it; `ready` opens it again."""
        self._file.close(sync=self._sync)

    def _appender(self, name: str) -> Appender:
        place = replace(self._place, name=name)
        return Appender(place, frames=self._keeping.frames, folder_mode=self._folder_mode)

    def _open(self) -> None:
        if not self._file.in_place():
            torn = self._file.open()
            if torn:
                self._torn(self._file.path, torn)

    def _free_name(self, now: float, *, localtime: bool) -> str:
        """The name for a file put aside, a millisecond or more later when there is one already."""
        milliseconds = int(now * 1000)
        while True:
            at = moment(milliseconds / 1000, localtime=localtime)
            stamp = f"{at:%Y-%m-%dT%H-%M-%S}.{at.microsecond // 1000:03}"
            name = dated(self._place.name, stamp)
            beside = self._file.path.with_name(name)
            if not any(os.path.lexists(f"{beside}{packed}") for packed in ("", ".gz", ".zst")):
                return name
            milliseconds += 1
