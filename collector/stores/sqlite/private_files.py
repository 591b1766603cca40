"""
The files of a database: made for its owner and group alone, and never reached through a link.

SQLite makes its files with the mode that the umask leaves, which is mostly readable for all users,
and its log and shared memory get the mode of the database. So the database is made here, empty,
before SQLite opens it. A link in the place of one of the files is refused: in a folder that others may write,
it would let them choose what is overwritten.
"""

import os
import stat
from pathlib import Path
from typing import Final

from collector.errors import StartFailed

MODE: Final = 0o640
SIDE_FILES: Final = ("-wal", "-shm", "-journal")


def open_private(path: Path) -> int:
    """
    Open a file to read and write, made when it is not there; no other user may read it.

    Raises:
        StartFailed: it is a link, or no file.
        OSError: it cannot be opened.
    """
    check_no_link(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, MODE)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StartFailed(f"{path} is no file: remove it, or set `path` to another file")
        if found.st_mode & 0o777 & ~MODE and found.st_uid == os.geteuid():
            os.fchmod(descriptor, found.st_mode & MODE)  # an earlier version made it readable
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_private(path: Path) -> None:
    """
    See that a database and the files beside it belong to their owner alone.

    Raises:
        StartFailed: one of them is a link.
        OSError: the database cannot be made.
    """
    os.close(open_private(path))
    for ending in SIDE_FILES:
        beside = path.with_name(f"{path.name}{ending}")
        check_no_link(beside)
        if beside.exists():
            os.close(open_private(beside))


def check_no_link(path: Path) -> None:
    """
    Refuse a symbolic link.

    Raises:
        StartFailed: it is one.
    """
    if path.is_symlink():
        raise StartFailed(
            f"{path} is a symbolic link, which is not followed: set `path` to the file itself"
        )
