"""Disk space kept aside, so that a full disk still allows cursors to be saved and a clean close."""

import contextlib
from pathlib import Path

from collector.wal.files import Files


class Reserve:
    """
    A file that takes up room until it is needed.

    Args:
        folder: where it is.
        files: how files are worked on.
        size: bytes; 0 for none.
    """

    def __init__(self, folder: Path, files: Files, size: int) -> None:
        self._folder = folder
        self._path = folder / "reserve"
        self._files = files
        self._size = size

    def keep(self) -> None:
        """Take the room, when there is enough; without it a full disk is only less kind."""
        if not self._size or self._path.exists():
            return
        free, _ = self._files.space(self._folder)
        if free < 4 * self._size:
            return
        with contextlib.suppress(OSError):
            fd = self._files.create(self._path)
            try:
                self._files.allocate(fd, self._size)
            except OSError:
                self._files.unlink(self._path)
                raise
            finally:
                self._files.close(fd)

    def give(self) -> None:
        """Free the room."""
        with contextlib.suppress(OSError):
            self._files.unlink(self._path)
