"""
The program: `collector` and `python -m collector`. Only this module ends the process.

`pip install otelier` brings the library alone, and this program's name with it; what the program
needs is in the extra `collector`. So it looks first whether that is there: one line with the
command, instead of a traceback about a package that the user never named.
"""

import sys
from importlib.util import find_spec
from typing import Final

NEEDED: Final = (
    "click",
    "rich",
    "yaml",
    "msgspec",
    "google.protobuf",
    "google.rpc",
    "grpc",
    "httptools",
    "pymongo",
    "re2",
    "starlette",
    "uvicorn",
    "websockets",
    "zstandard",
)
"""The modules of the extra `collector`."""


def missing() -> list[str]:
    """The modules of the extra that are not installed."""
    return [name for name in NEEDED if not _found(name)]


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package above it is not there
        return False


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed or not found, 2 usage."""
    if lacking := missing():
        sys.exit(
            "collector: its packages are not installed"
            f' ({", ".join(lacking)}): pip install "otelier[collector]"'
        )
    from collector.cli import main as run_cli  # noqa: PLC0415 - it imports what may be missing

    sys.exit(run_cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
