"""
500 leads, classified by rule, by sound, and by a language model where both know nothing.

    opentelemetry-instrument --service_name lead-batch python examples/lead_batch/main.py --leads 500

The models are a stand-in on this machine (model.py), unless MODEL_URL names something else that
speaks as it does. Stop it with Ctrl-C, with SIGTERM or with `kill -9`, and run the same command
again: it goes on with what is left, and pays for nothing twice. In the background:

    nohup opentelemetry-instrument --service_name lead-batch \
        python examples/lead_batch/main.py --leads 500 > lead-batch.out 2>&1 &
    telemetry progress lead-batch/progress.json --follow

Results are in lead-batch/journal.jsonl, logs below lead-batch/logs. At the end it prints what to ask
the collector; without one the batch works all the same.
"""

import argparse
import contextlib
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import classify
import leads

from telemetry import llm, log_context, track
from telemetry.batch import BackgroundProcessor, Limits, Rate, Report, Retry, Stop

NAME = "lead-classification"
MODEL = Path(__file__).with_name("model.py")


def main() -> int:
    given = arguments()
    # Log lines go to the files and to the collector; on the terminal, progress is enough.
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
    logging.getLogger("lead_batch").setLevel(logging.DEBUG)
    with models() as url:
        processor = BackgroundProcessor(
            NAME,
            classify.Classifier(url),
            key=lambda lead: lead.id,
            fingerprint=classify.FINGERPRINT,
            concurrency=8,
            rate=Rate(given.rate, burst=8),
            retry=Retry(attempts=4, backoff=(0.1, 2.0)),
            attempt_timeout=10,
            deadline=given.deadline,
            limits=Limits(cost=given.budget, failures=0.10, consecutive_failures=20),
            journal=given.folder / "journal.jsonl",
            progress_file=given.folder / "progress.json",
            logs=given.folder / "logs",
            stop=Stop(grace=10),
        )
        code = processor.main(leads.generate(given.leads))
    if processor.report is not None:
        tell(processor.report, given.folder)
    return code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify generated leads in a batch.")
    parser.add_argument("--leads", type=int, default=500, help="how many (default: 500)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("lead-batch"),
        help="for all files (default: lead-batch)",
    )
    parser.add_argument("--rate", type=float, default=100, help="leads per second (default: 100)")
    parser.add_argument("--deadline", type=float, help="seconds; then it ends with what it has")
    parser.add_argument("--budget", type=float, default=1.0, help="USD for models (default: 1)")
    return parser.parse_args()


@contextlib.contextmanager
def models() -> Iterator[str]:
    """MODEL_URL, else a stand-in of our own; it ends with this process, however that ends."""
    if given := os.environ.get("MODEL_URL"):
        yield given
        return
    server = subprocess.Popen(
        [sys.executable, str(MODEL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for the batch, which goes on asking until it is done
    )
    try:
        yield server.stdout.readline().strip() if server.stdout is not None else ""
    finally:
        server.communicate()


def tell(report: Report, folder: Path) -> None:
    """What came of it: for people, and as an event of the business."""
    methods = Counter(_method(outcome.result) for outcome in report.outcomes if outcome.result)
    with log_context(batch_run_id=report.run_id, correlation_id=report.run_id):
        track("leads.classified", leads=report.total, cost_usd=report.cost.amount, **methods)
    print(report)
    print(", ".join(f"by {method} {count}" for method, count in sorted(methods.items())))
    for row in llm.totals():
        print(
            f"{row['provider']}/{row['model']}: {row['calls']} calls, {row['failures']} failed, "
            f"{row['fallbacks']} as fallback, {row['input_tokens']} + {row['output_tokens']} tokens, "
            f"{row['cost'].get('USD', 0):.6f} USD"
        )
    print(f"collector trace {report.run_id}")
    print(f"collector logs --batch-run-id {report.run_id} --level warning")
    print(f"telemetry progress {folder / 'progress.json'}")


def _method(result: Any) -> str:
    """How a result was found; one of an earlier run comes from the journal, as a dict."""
    return str(result["method"] if isinstance(result, dict) else result.method)


if __name__ == "__main__":
    sys.exit(main())
