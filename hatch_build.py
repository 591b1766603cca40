"""
Build step: compile the two native cores when there is a C compiler.

One file each, Python's stable ABI, no build system beyond `cc`: the wheel then serves every CPython from
3.11. Without a compiler the package is complete and slower (collector/documents/schema.py and
telemetry/_native.py do the same in Python), so a failure here is told and is no error. `OTELIER_PURE_PYTHON=1` skips it.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORES = ("collector/_core", "telemetry/_core")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the core in place (for editable installs) and puts it into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Run before hatchling collects the files of the wheel."""
        root = Path(self.root)
        if os.environ.get("OTELIER_PURE_PYTHON") == "1":
            return
        for core in CORES:
            if compile_core(root, core):
                build_data["pure_python"] = False
                build_data["tag"] = f"cp311-abi3-{platform_tag()}"
                target = f"{core}.abi3.so"
                build_data["force_include"][str(root / target)] = target


def platform_tag() -> str:
    """The wheel's platform, such as linux_x86_64."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def compile_core(root: Path, core: str) -> bool:
    """Compile next to the source, by a rename, so that a running program keeps its copy."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        sys.stderr.write(f"no C compiler ({compiler[0]}): the slower pure-Python core is used\n")
        return False
    target = root / f"{core}.abi3.so"
    fresh = root / f"{core}.abi3.so.{os.getpid()}"
    command = [
        *compiler,
        *("-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden"),
        f"-I{sysconfig.get_path('include')}",
        str(root / f"{core}.c"),
        "-o",
        str(fresh),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        fresh.unlink(missing_ok=True)
        sys.stderr.write(f"the native core did not compile, Python is used:\n{done.stderr}\n")
        return False
    fresh.rename(target)
    return True
