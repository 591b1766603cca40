"""
The program: `telemetry` and `python -m telemetry`.

The library needs no command line, so `pip install otelier` brings none: what the program is made of
is in the extra `cli`. Without it this is one line with the command, and no traceback.
"""

import sys
from importlib.util import find_spec
from typing import Final

NEEDED: Final = ("click", "rich")
"""The modules of the extra `cli`."""


def main() -> None:
    """Run the command line; `telemetry.cli` says what its exit codes mean."""
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(
            "telemetry: its packages are not installed"
            f' ({", ".join(lacking)}): pip install "otelier[cli]"'
        )
    from telemetry import cli  # noqa: PLC0415 - it imports what may be missing

    cli.main()


if __name__ == "__main__":
    main()
