"""
Build step: compile the native core when there is a C compiler.

One file, Python's stable ABI, no build system beyond `cc`: the wheel then serves every CPython from
3.11. Without a compiler the package is complete and slower (collector/_schema.py does the same in
Python), so a failure here is told and is no error. `OTELIER_PURE_PYTHON=1` skips it.
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

SOURCE = "collector/_core.c"
TARGET = "collector/_core.abi3.so"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the core in place (for editable installs) and puts it into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Run before hatchling collects the files of the wheel."""
        root = Path(self.root)
        if os.environ.get("OTELIER_PURE_PYTHON") == "1" or not compile_core(root):
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform_tag()}"
        build_data["force_include"][str(root / TARGET)] = TARGET


def platform_tag() -> str:
    """The wheel's platform, such as linux_x86_64."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def compile_core(root: Path) -> bool:
    """Compile next to the source, by a rename, so that a running collector keeps its copy."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        sys.stderr.write(f"no C compiler ({compiler[0]}): the slower pure-Python core is used\n")
        return False
    fresh = root / f"{TARGET}.{os.getpid()}"
    command = [
        *compiler,
        *("-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden"),
        f"-I{sysconfig.get_path('include')}",
        str(root / SOURCE),
        "-o",
        str(fresh),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        fresh.unlink(missing_ok=True)
        sys.stderr.write(f"the native core did not compile, Python is used:\n{done.stderr}\n")
        return False
    fresh.rename(root / TARGET)
    return True
