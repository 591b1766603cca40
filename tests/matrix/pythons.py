"""
The interpreters of this machine that the wheel promises to serve.

They are looked for on PATH, where pyenv and uv keep theirs, and in OTELIER_PYTHONS (paths with `:`
between). One that is not there is named in every report: a matrix with a silent hole proves nothing.
"""

import os
import shutil
import subprocess
from pathlib import Path

WANTED = ("3.11", "3.12", "3.13", "3.14", "3.14t")
_ASK = (
    "import sys, sysconfig; "
    "print('%d.%d' % sys.version_info[:2] + ('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''))"
)
_KEPT = ("~/.pyenv/versions/*/bin/python", "~/.local/share/uv/python/*/bin/python")


def found() -> dict[str, str]:
    """Version (`3.14t` is the free-threaded one) -> path, oldest first."""
    given = [path for path in os.environ.get("OTELIER_PYTHONS", "").split(":") if path]
    on_path = [shutil.which(f"python{version}") for version in WANTED]
    kept = [
        str(path)
        for pattern in _KEPT
        for path in sorted(Path("~").expanduser().glob(pattern.removeprefix("~/")), reverse=True)
    ]
    answers: dict[str, str] = {}
    for path in [*given, *on_path, *kept]:
        version = _version(path) if path else ""
        if version in WANTED:
            answers.setdefault(version, path)
    return {version: answers[version] for version in WANTED if version in answers}


def missing() -> list[str]:
    """The wanted versions that this machine does not have."""
    have = found()
    return [version for version in WANTED if version not in have]


def _version(path: str) -> str:
    """`3.12` or `3.14t`; empty when the file does not run (a shim without a version, say)."""
    try:
        done = subprocess.run(
            [path, "-c", _ASK], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
