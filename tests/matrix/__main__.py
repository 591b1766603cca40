"""
`make test-matrix`: every Python of this machine with every OpenTelemetry train, one row each.

    python -m tests.matrix                          all of them
    python -m tests.matrix --train 1.39 --python 3.13
    python -m tests.matrix --frameworks             FastAPI, Celery and Django of five years instead

Exit code 1 when a cell failed or nothing could be run. A Python that is not here is named.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.matrix import cells, frameworks, pythons
from tests.matrix.trains import TRAINS


def main() -> int:
    """Run what the arguments choose and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("--python", action="append", choices=pythons.WANTED)
    parser.add_argument("--train", action="append", choices=list(TRAINS))
    parser.add_argument("--frameworks", action="store_true")
    chosen = parser.parse_args()
    have = pythons.found()
    for version in pythons.WANTED:
        if version not in have and version in (chosen.python or pythons.WANTED):
            print(f"{version:8}not on this machine; OTELIER_PYTHONS=/path/to/python names one")
    if chosen.frameworks:
        return _frameworks(next(iter(have.values())))
    bad = ran = 0
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        folder = Path(name)
        wheel = cells.build_wheel(folder)
        print(wheel.name, flush=True)
        with cells.receiver(folder) as (endpoint, arrived):
            for version, path in have.items():
                if chosen.python and version not in chosen.python:
                    continue
                for train in TRAINS.values():
                    if chosen.train and train.name not in chosen.train:
                        continue
                    cell = cells.run_cell((version, path), train, wheel, endpoint, arrived)
                    ran += 1
                    bad += not cell.good
                    _show(cell)
    print(f"{ran - bad} of {ran} cells passed")
    return 1 if bad or not ran else 0


def _frameworks(python: str) -> int:
    bad = 0
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        wheel = cells.build_wheel(Path(name))
        for year, pins in frameworks.YEARS.items():
            found = frameworks.problems(python, year, wheel)
            bad += bool(found)
            print(
                f"{year:13}{' '.join(pins):50}{'FAILED' if found else 'passed'}",
                *found,
                sep="\n        ",
                flush=True,
            )
    return 1 if bad else 0


def _show(cell: cells.Cell) -> None:
    sdk = cell.versions.get("opentelemetry-sdk", "?")
    contrib = cell.versions.get("opentelemetry-instrumentation-asgi", "?")
    words = "passed" if cell.good else "FAILED"
    row = f"{cell.python:8}{cell.train:13}sdk {sdk:11}contrib {contrib:9}{words}"
    print("\n".join([row, *(f"        {text}" for text in cell.problems)]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
