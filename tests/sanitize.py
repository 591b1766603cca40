"""
The native code under AddressSanitizer and UndefinedBehaviorSanitizer: `python tests/sanitize.py`.

The tree is copied to a temporary folder and both cores are compiled there with the sanitizers, so the
installed ones stay as they are. Then the tests run that compare each native loop with its equal in
Python, and the fuzz corpus. A finding ends the interpreter with a report: file, line and values.

Needs gcc or clang with their sanitizer libraries (Debian: `gcc`). Without one, or where a core does
not compile, it says so and fails. More arguments go to pytest: `python tests/sanitize.py -k weights`.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLAGS = (
    *("-g", "-O1", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
)
TESTS = (
    "tests/telemetry/test_native.py",
    "tests/telemetry/export/test_otlp_encoder.py",
    "tests/telemetry/export/test_pending.py",
    "tests/collector/stores/test_native_core.py",
    "tests/collector/stores/sqlite/test_rows_from_wire.py",
    "tests/collector/otlp/test_limits.py",
    "tests/collector/documents/test_build.py",
    "tests/fuzz/test_fuzz.py",
)


def main() -> int:
    """Compile and run; the exit status of pytest, or 2."""
    sys.path.insert(0, str(ROOT))
    import hatch_build

    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        print(f"no C compiler ({compiler[0]}): install one (Debian: gcc libc6-dev python3-dev)")
        return 2
    with tempfile.TemporaryDirectory(prefix="otelier-sanitize-") as folder:
        copy = Path(folder)
        copy_tree(copy)
        for core in hatch_build.CORES:
            command = [
                *compiler,
                *FLAGS,
                *(f"-D{name}=_{name}_SizeT" for name in hatch_build.SIZED),
                f"-I{sysconfig.get_path('include')}",
                *map(str, hatch_build.sources(copy, core)),
                *("-o", str(copy / f"{core}.abi3.so")),
            ]
            if subprocess.run(command, check=False).returncode != 0:
                print(f"{core} does not compile with {' '.join(FLAGS)}")
                return 2
        return run(copy, compiler, sys.argv[1:])


def copy_tree(to: Path) -> None:
    """All files that git knows or would add, and nothing that was built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)


def run(copy: Path, compiler: list[str], more: list[str]) -> int:
    """Run the tests in the copy, with the sanitizers' libraries loaded first."""
    libraries = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
            *("-m", "not full", *TESTS, *more),
        ],
        cwd=copy,
        check=False,
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(libraries),
            "PYTHONPATH": str(copy),
            "PYTHONMALLOC": "malloc",  # so that objects of Python are watched too
            "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter leaves much behind on purpose
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
