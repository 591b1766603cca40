"""
Build step: compile the two native cores when there is a C compiler.

One file each, Python's stable ABI, no build system beyond `cc`: one wheel serves every CPython from
3.11, whichever of them built it. An editable install (the clone) compiles in place, a wheel in a
folder of its own: building a wheel with another Python leaves the clone's cores alone. Without a
compiler the package is complete and slower (the same is there in Python), which is said here, at the
start of the programs and by `telemetry doctor`. `OTELIER_PURE_PYTHON=1` skips the compiler.
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
ABI = (3, 11)
"""The oldest Python that a wheel serves: `Py_LIMITED_API` in the sources says the same."""

# Before 3.13 a function that takes a length beside "#" had a second name, chosen by PY_SSIZE_T_CLEAN. Newer
# headers call the first name, which an older Python refuses; every Python exports the second one.
SIZED = ("PyArg_ParseTuple", "Py_BuildValue", "PyObject_CallFunction", "PyObject_CallMethod")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the cores: next to the source for the clone, in a folder of its own for a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run before hatchling collects the files of the wheel."""
        root = Path(self.root)
        if os.environ.get("OTELIER_PURE_PYTHON") == "1":
            self.app.display_warning("OTELIER_PURE_PYTHON=1: the slower pure-Python core is used")
            return
        for core in CORES:
            target = f"{core}.abi3.so"
            built = root / target
            if version != "editable":
                built = root / "build" / f"{platform_tag()}-{os.getpid()}" / target
                built.parent.mkdir(parents=True, exist_ok=True)
            if not compile_core(root, core, built):
                continue
            build_data["pure_python"] = False
            build_data["tag"] = f"cp{ABI[0]}{ABI[1]}-abi3-{platform_tag()}"
            if version != "editable":
                build_data["force_include"][str(built)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Run after the wheel is written."""
        if version != "editable":
            shutil.rmtree(Path(self.root) / "build" / f"{platform_tag()}-{os.getpid()}", True)


def platform_tag() -> str:
    """The wheel's platform, such as linux_x86_64."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def sources(root: Path, core: str) -> list[Path]:
    """The C files of a core: those in `native/<package>`, else the one beside its package."""
    return sorted((root / "native" / core.partition("/")[0]).glob("*.c")) or [root / f"{core}.c"]


def compile_core(root: Path, core: str, target: Path | None = None) -> bool:
    """
    Compile one core and put it in place by a rename, so that a running program keeps its copy.

    Args:
        root: the folder of pyproject.toml.
        core: the source without `.c`, from there.
        target: the file to make; next to the source by default.

    Returns:
        Whether it is there; if not, stderr says why.
    """
    target = target or root / f"{core}.abi3.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        sys.stderr.write(
            f"otelier: no C compiler ({compiler[0]}), the slower pure-Python core is used for"
            f" {core.partition('/')[0]}; install one (Debian: gcc libc6-dev python3-dev) and install again\n"
        )
        return False
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    command = [
        *compiler,
        *("-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden"),
        *(f"-D{name}=_{name}_SizeT" for name in SIZED),
        f"-I{sysconfig.get_path('include')}",
        *map(str, sources(root, core)),
        "-o",
        str(fresh),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        fresh.unlink(missing_ok=True)
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        fix = " (Debian: apt-get install python3-dev)" if "Python.h" in first else ""
        sys.stderr.write(
            f"otelier: the native core of {core.partition('/')[0]} did not compile, the slower"
            f" pure-Python one is used{fix}:\n{done.stderr}\n"
        )
        return False
    fresh.rename(target)
    return True
