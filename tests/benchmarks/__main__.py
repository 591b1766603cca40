"""
`make bench`: side-by-side benchmarks, each against what one would use instead, in one run.

Prints JSON lines: {"benchmark", "case", "value", "unit", "peer", "peer_value", "ratio", "budget",
"within"}. A ratio above 1 is in our favour; a budget is what we promise (docs/explanation/benchmarks.md).
Machines are noisy: values are medians or bests of many rounds, and only ratios of one run compare.
"""

import argparse
import importlib
import json
import os
import platform
import sys

BENCHMARKS = (
    "documents",
    "insert",
    "imports",
    "lookup",
    "hotpath",
    "receive",
    "ml",
    "redaction",
    "workers",
    "batch",
    "asgi",
    "celery_task",
)


def main() -> int:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--spans", type=int, default=1_000_000, help="spans in the lookup stores")
    parser.add_argument("--short", action="store_true", help="few rounds, to see that it works")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    print(json.dumps({"benchmark": "environment", **machine}), flush=True)
    for name in options.names or BENCHMARKS:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        for result in module.run(options):
            print(json.dumps({"benchmark": name, **result}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
