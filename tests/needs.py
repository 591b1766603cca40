"""
What `make test` needs of the machine: said in one line before it starts, with the command that helps.

    python -m tests.needs

The bundled mongod is built for a common distribution and needs a few of its libraries; a bare Debian
has not all of them, and hundreds of tests would fail with the same line of the loader.
"""

import os
import re
import shutil
import subprocess
import sys

PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
}
"""Library -> its package on Debian and Ubuntu."""


def missing_libraries(binary: str) -> list[str]:
    """The shared libraries that the loader does not find for a program."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    done = subprocess.run([ldd, binary], capture_output=True, text=True, check=False, timeout=60)
    return sorted(set(re.findall(r"(\S+) => not found", done.stdout)))


def problem() -> str:
    """One line with what lacks and the command; empty when everything is there."""
    from tests import servers

    wanted = {"mongod": servers.mongod_binary(), "redis-server": servers.redis_binary()}
    if "MONGODB_URI" in os.environ:
        del wanted["mongod"]
    if "REDIS_URL" in os.environ:
        del wanted["redis-server"]
    lacking = {
        library: name
        for name, binary in wanted.items()
        if binary
        for library in missing_libraries(binary)
    }
    if not lacking:
        return ""
    packages = " ".join(sorted({PACKAGES.get(library, library) for library in lacking}))
    programs = ", ".join(sorted(set(lacking.values())))
    variables = " or ".join(
        {"mongod": "MONGODB_URI", "redis-server": "REDIS_URL"}[name]
        for name in sorted(set(lacking.values()))
    )
    return (
        f"make: the bundled {programs} lacks {', '.join(sorted(lacking))};"
        f" on Debian: apt-get install {packages} (or set {variables} to your own), then make test"
    )


if __name__ == "__main__":
    sys.exit(problem() or 0)
