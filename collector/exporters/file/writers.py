"""
The files of one exporter: which are open, and one batch into several of them at once.

A batch goes into all of its files or into none: when one of them fails, what the others got is cut
back, so that a resend does not stand anywhere twice. So many files are open at most; the one that
was not used for longest is closed for the next.
"""

import contextlib
import errno
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.documents.build import Document, text
from collector.exporters.file.appender import UNUSABLE
from collector.exporters.file.config import GroupBy
from collector.exporters.file.journal import Begun, Journal
from collector.exporters.file.paths import Pattern, Place
from collector.exporters.file.rotation import Keeping, Rotating


@contextlib.contextmanager
def _named(path: object) -> Iterator[None]:
    """Put the path into errors that do not say it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


LONGEST: Final = 256
"""Characters of a value that the pattern of `allowed` is asked about."""


class Groups:
    """
    The values of a resource attribute that have a file of their own.

    Args:
        config: which may have.
        pattern: the path that they become part of.
        taken: paths that belong to routes.
        refused: called when a value gets none.
    """

    def __init__(
        self,
        config: GroupBy,
        pattern: Pattern,
        taken: frozenset[str],
        refused: Callable[[], None],
    ) -> None:
        self.otherwise = config.otherwise
        self._attribute = config.resource_attribute
        self._allowed = re.compile(config.allowed)
        self._most = config.max_groups
        self._pattern = pattern
        self._taken = taken
        self._refused = refused
        self._known: set[str] = set()
        self._unusable: set[str] = set()

    def of(self, document: Document) -> str:
        """What takes the place of the `*` for a document."""
        value = document.get("resource", {}).get(self._attribute)
        if value is None:
            return self.otherwise
        name = value if isinstance(value, str) else text(value)
        if name in self._known:
            return name
        if (
            name in self._unusable
            or len(self._known) >= self._most
            or len(name) > LONGEST
            or not self._allowed.fullmatch(name)
            or not self._pattern.takes(name)
            or os.path.abspath(self._pattern.fill(name).path) in self._taken  # noqa: PTH100
        ):
            self._refused()
            return self.otherwise
        self._known.add(name)
        return name

    def give_up(self, name: str) -> None:
        """Something else is in the place of a group's file."""
        self._known.discard(name)
        if len(self._unusable) < self._most:
            self._unusable.add(name)
        self._refused()


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where records go.

    Args:
        keeping: the path, the format and the rotation.
        groups: when the path has a part from data.
    """

    keeping: Keeping
    groups: Groups | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a batch goes into one file."""

    target: Target
    group: str
    data: bytes


class Writers:
    """
    The open files.

    Args:
        limit: so many at most.
        sync: whether files are forced to disk before they are closed.
        folder_mode: of folders that data names.
        torn: called with what was moved aside when a file was opened.
        turned: called when a file was put aside.
    """

    def __init__(
        self,
        *,
        limit: int,
        sync: bool,
        folder_mode: int,
        torn: Callable[[Path, int], None],
        turned: Callable[[Keeping], None],
    ) -> None:
        self._limit = limit
        self._sync = sync
        self._folder_mode = folder_mode
        self._torn = torn
        self._turned = turned
        self._open: OrderedDict[Path, Rotating] = OrderedDict()

    def open(self, target: Target, now: float) -> None:
        """
        Open the file of a target that has one.

        Raises:
            OSError: it cannot be opened.
        """
        self._file(target.keeping, target.keeping.pattern.fill("")).ready(0, now, may_turn=False)

    def write(
        self,
        pieces: Sequence[Piece],
        now: float,
        *,
        sync: bool,
        journal: Journal | None = None,
        request: bytes = b"",
    ) -> None:
        """
        Write the pieces of one batch.

        Args:
            pieces: any number for each file.
            now: seconds since 1970.
            sync: whether they are on disk when this returns.
            journal: notes what is going to be written; it may know that a piece is there already.
            request: what the batch is called there.

        Raises:
            OSError: it failed, and none of them is written.
        """
        ends: dict[Rotating, int] = {}
        written = journal.written(request) if journal is not None else ()
        try:
            for number, piece in enumerate(pieces):
                if number in written:
                    continue
                with _named(piece.target.keeping.pattern.path):
                    file = self._for(piece, now, ends)
                    at = file.size
                    ends.setdefault(file, at)
                    if journal is not None:
                        where = (str(file.path), *file.number, at)
                        check = zlib.crc32(piece.data)
                        of, size = len(pieces), len(piece.data)
                        journal.begin(Begun(request, number, of, *where, size, check, journal.boot))
                    file.write(piece.data)
            if sync:
                for file in ends:
                    with _named(file.path):
                        file.sync()
        except BaseException:
            for file, end in reversed(ends.items()):  # one may be there twice, once closed
                file.cut(end)
            raise

    def _for(self, piece: Piece, now: float, ends: dict[Rotating, int]) -> Rotating:
        """The file of a piece, ready to be written to."""
        groups = piece.target.groups
        try:
            return self._ready(piece, piece.group, now, ends)
        except OSError as error:
            if groups is None or piece.group == groups.otherwise:
                raise
            if error.errno in UNUSABLE:
                groups.give_up(piece.group)
            elif (
                error.errno != errno.EAGAIN
            ):  # a pipe of another program: data must not make us wait for it
                raise
            return self._ready(piece, groups.otherwise, now, ends)

    def _ready(self, piece: Piece, group: str, now: float, ends: dict[Rotating, int]) -> Rotating:
        keeping = piece.target.keeping
        file = self._file(keeping, keeping.pattern.fill(group))
        file.ready(len(piece.data), now, may_turn=file not in ends)
        return file

    def _file(self, keeping: Keeping, place: Place) -> Rotating:
        path = place.path
        file = self._open.get(path)
        if file is not None:
            self._open.move_to_end(path)
            return file
        while len(self._open) >= self._limit:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        file = self._open[path] = Rotating(
            place,
            keeping,
            folder_mode=self._folder_mode,
            sync=self._sync,
            torn=self._torn,
            turned=self._turned,
        )
        return file

    def turn(self, now: float) -> None:
        """
        Close the files of days that are over.

        Raises:
            OSError: one could not be forced to disk.
        """
        for file in self._open.values():
            file.turn(now)

    def sync(self) -> list[tuple[Path, OSError]]:
        """Force everything to disk; the files that failed, which are closed."""
        failed = []
        for file in self._open.values():
            try:
                file.sync()
            except OSError as error:
                failed.append((file.path, error))
        return failed

    def close(self) -> None:
        """
        Close everything.

        Raises:
            OSError: a file could not be forced to disk; the others were.
        """
        errors = []
        while self._open:
            _, file = self._open.popitem()
            try:
                file.close()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]
