"""
The key of pseudonyms: from the environment, else from a file of this user, made once.

With a new random key in each process a wallet could not be found again after a restart. So the key is
kept: TELEMETRY_SUBJECT_KEY where it is set (give all machines the same one and their ids match), else
`otelier/subject.key` in the user's data folder (XDG_DATA_HOME, by default ~/.local/share), 0600,
made whole by the first process that needs it (`link` puts it there, so that two at once agree). A
file that others can read or have made is not used. Where none can be kept, the key is random and ids
match within the process and its forks; that is said.

Nothing is read or made before the first pseudonym, or before `doctor` asks.
"""

import contextlib
import functools
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from telemetry import _diagnostics, _values

KEY: Final = "TELEMETRY_SUBJECT_KEY"
BYTES: Final = 32


class SubjectKey(NamedTuple):
    """A key, and where it comes from, in words."""

    key: bytes
    source: str
    lasting: bool


@functools.cache
def current() -> SubjectKey:
    """The key of this process; made and kept where there is none yet."""
    given = os.environ.get(KEY, "").strip()
    if given:
        import hashlib  # noqa: PLC0415 - 3 ms that `import telemetry` need not pay

        key = hashlib.blake2b(given.encode(), digest_size=BYTES).digest()
        return SubjectKey(key, f"the variable {KEY}", lasting=True)
    path = file()
    try:
        kept = SubjectKey(_kept(path), f"the file {path}", lasting=True)
        _diagnostics.say("subject key", describe(kept), level="info", always=True)
    except (OSError, ValueError, RuntimeError) as error:
        why = _values.text(error, 300)
        kept = SubjectKey(os.urandom(BYTES), f"this process alone ({why})", lasting=False)
        _diagnostics.say("subject key", f"{describe(kept)}; set {KEY}", always=True)
    return kept


def describe(key: SubjectKey | None = None) -> str:
    """Where hashed ids of subjects have their key from, for people."""
    key = current() if key is None else key
    words = "hashed ids of subjects have their key from"
    how = "they match on this machine" if "the file" in key.source else "they match wherever it is"
    return f"{words} {key.source}: " + (how if key.lasting else "they match nowhere else")


def file() -> Path:
    """Where the key is kept."""
    base = os.environ.get("XDG_DATA_HOME", "").strip()
    folder = Path(base) if base.startswith("/") else Path("~/.local/share").expanduser()
    return folder / "otelier" / "subject.key"


def _kept(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(os.urandom(BYTES).hex() + "\n")
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            path.hardlink_to(made)
    finally:
        made.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor) as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise ValueError(f"{path} can be read by others, or is not ours; chmod 600 it")
        key = bytes.fromhex(file.read(4 * BYTES).strip())
    if len(key) != BYTES:
        raise ValueError(f"{path} holds no key of {BYTES} bytes; remove it")
    return key
