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
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORES = ("telemetry/_core.abi3.so", "collector/_core.abi3.so")
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

    servers_of_tests = {
        "mongod": ("MONGODB_URI", servers.mongod_binary()),
        "redis-server": ("REDIS_URL", servers.redis_binary()),
    }
    lacking, packages = [], set()
    for name, (variable, binary) in servers_of_tests.items():
        if variable in os.environ or binary is None:
            continue
        if libraries := missing_libraries(binary):
            lacking.append(f"the bundled {name} lacks {', '.join(libraries)} (or set {variable})")
            packages |= {PACKAGES.get(library, library) for library in libraries}
    if not all((ROOT / core).exists() for core in CORES):
        lacking.append("the native cores, which tests compare with Python, need a C compiler")
        packages |= {"gcc", "libc6-dev", "python3-dev"}
    if not lacking:
        return ""
    fix = f"on Debian: apt-get install {' '.join(sorted(packages))}; then make test"
    return f"make: {'; '.join(lacking)}; {fix}"


if __name__ == "__main__":
    sys.exit(problem() or 0)
