"""
Where a file is: a folder that the configuration names, and what data may add to it.

The configured folder is opened as it is. Everything behind the first part that comes from data is
opened step by step from there, without following a symbolic link, and a part that comes from data
is one name: no slash, no `..`, no control character. So whatever a sender writes into an attribute,
the file is inside the folder (CVE-2025-12972 is what happens otherwise).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNSAFE: Final = re.compile("[/\\\\\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LONGEST: Final = 128
"""Bytes of a part from data; the date and the ending of a file put aside still have room."""
STAMP: Final = r"\d{4}-\d{2}-\d{2}(?:T\d{2}-\d{2}-\d{2}\.\d{3})?"
_DERIVED: Final = re.compile(rf".*-{STAMP}(\.\d+)?(\.[^.]*)?|.*\.(torn|gz|zst|tmp)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """
    One file.

    Args:
        base: the folder that the configuration names.
        inner: folders below it whose names come from data, or are below one of those.
        name: of the file.
    """

    base: Path
    inner: tuple[str, ...]
    name: str

    @property
    def path(self) -> Path:
        """The whole path."""
        return self.base.joinpath(*self.inner, self.name)

    @contextlib.contextmanager
    def folder(self, make: int | None = None) -> Iterator[int]:
        """
        A descriptor of the file's folder.

        Args:
            make: the mode of inner folders that are missing; None makes none.

        Raises:
            OSError: it is not there, or a part of it is a symbolic link.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd = os.open(self.base, flags)
        try:
            for part in self.inner:
                if make is not None:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, make, dir_fd=fd)
                        os.fsync(fd)
                inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)


class Pattern:
    """
    A configured path, with or without a `*` for a part from data.

    Args:
        path: as it stands in the configuration.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        parts = Path(path).parts or (path,)
        first = next((i for i, part in enumerate(parts) if "*" in part), len(parts) - 1)
        self.base = Path(*parts[:first])
        self.inner = parts[first:-1]
        self.name = parts[-1]
        self.grouped = "*" in path

    def fill(self, group: str) -> Place:
        """The file for a group; the group is not looked at."""
        inner = tuple(part.replace("*", group) for part in self.inner)
        return Place(self.base, inner, self.name.replace("*", group))

    @property
    def lock(self) -> Place:
        """A file beside the groups; who has it locked may write to them."""
        return self._beside("lock")

    @property
    def journal(self) -> Place:
        """A file for what a killed process was doing."""
        return self._beside("journal")

    def _beside(self, ending: str) -> Place:
        parts = "-".join((*self.inner, self.name)).replace("*", "each")
        return Place(self.base, (), f".{parts}.{ending}")

    def takes(self, group: str) -> bool:
        """Whether a group may become part of this path, whatever else is allowed."""
        if group in ("", ".", "..") or _UNSAFE.search(group):
            return False
        try:
            if len(group.encode()) > LONGEST:
                return False
        except UnicodeEncodeError:  # a lone surrogate
            return False
        return "*" not in self.name or not _DERIVED.fullmatch(self.name.replace("*", group))

    def folders(self) -> Iterator[tuple[str | None, Place]]:
        """Each folder of this path that is there: the group (None: that of each file), and a file."""
        if not self.inner:
            yield None, self.fill("*")
            return
        before, _, behind = self.inner[0].partition("*")
        try:
            with os.scandir(self.base) as entries:
                found = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return
        for name in found:
            if not (name.startswith(before) and name.endswith(behind)):
                continue
            group = name[len(before) : len(name) - len(behind)]
            if self.takes(group):
                yield group, self.fill(group)


def dated(name: str, stamp: str) -> str:
    """`errors.log` -> `errors-2025-07-06.log`."""
    stem, ending = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    return f"{stem}-{stamp}{ending}"
