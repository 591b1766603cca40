"""The program: `collector` and `python -m collector`. Only this module ends the process."""

import sys

from collector.cli import main as run_cli


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed or not found, 2 usage."""
    sys.exit(run_cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
