"""
A risk-analysis worker: a queue of wallets, an async handler, a synchronous calculator.

    opentelemetry-instrument --service_name risk-worker python examples/risk_worker/main.py
    ... main.py --rounds 600        for ten minutes, so that a dashboard has something to draw

Each analysis has a correlation id of its own, under which everything about it can be asked for:
the steps as log lines, the score with all its parts, the inference with its stages. Nothing waits
for the collector: recording is an append to a queue in memory, and the results below are printed
whether a collector runs or not. No full wallet address leaves the process.
"""

import argparse
import asyncio
import hashlib
from dataclasses import dataclass

import risk

from telemetry import LogContext, get_logger, log_context, ml, new_correlation_id

logger = get_logger("risk_worker")

WORKERS = 3


@dataclass(frozen=True)
class Message:
    """What the queue carries."""

    task_id: str
    tenant_id: str
    wallet: str
    activity: risk.Activity


def wallet(number: int) -> str:
    return "0x" + hashlib.sha256(f"wallet {number}".encode()).hexdigest()[:40]


def activity(age: float, count: float, balance: float, defi: float, mixer: float) -> risk.Activity:
    return dict(zip(risk.SCALES, (age, count, balance, defi, mixer), strict=True))


MESSAGES = [
    Message("task-1", "bank-1", wallet(1), activity(900, 1400, 12.0, 5, 0)),
    Message("task-2", "bank-1", wallet(2), activity(400, 300, 2.5, 0, 0)),  # no DeFi: threshold
    Message("task-3", "bank-2", wallet(3), activity(12, 9, 0.05, 1, 2)),
    Message("task-4", "bank-2", wallet(4), activity(60, 40, 0.4, 2, 0) | {"model_is_down": 1}),
    Message("task-5", "bank-1", wallet(1), activity(905, 1420, 0.01, 5, 1)),  # met a mixer since
]


async def handle(message: Message) -> str:
    """Analyse one wallet; the line that tells the result."""
    correlation_id = new_correlation_id()
    short = ml.shorten(message.wallet)
    ids = {"correlation_id": correlation_id, "tenant_id": message.tenant_id}
    with log_context(**ids, task_id=message.task_id), LogContext("risk.analysis") as analysis:
        logger.info("processing risk analysis", wallet=short)
        await asyncio.sleep(0.01)  # fetching the activity from the chain
        logger.info("blockchain data fetched", wallet=short, fields=len(message.activity))
        result = await asyncio.to_thread(risk.calculate, message.wallet, message.activity)
        analysis.add_metric("risk.score.final", result.final)
        logger.info(
            "risk analysis completed",
            wallet=short,
            risk_score=result.final,
            risk_band=result.band,
            confidence=result.confidence,
        )
    return f"{short}  {result.final:6.0f}  {result.band:6}  collector trace {correlation_id}"


async def work(queue: asyncio.Queue[Message]) -> list[str]:
    """Handle messages until there are none."""
    results = []
    while not queue.empty():
        results.append(await handle(queue.get_nowait()))
    return results


async def main(rounds: int) -> None:
    for number in range(rounds):
        queue: asyncio.Queue[Message] = asyncio.Queue()
        for message in MESSAGES:
            queue.put_nowait(message)
        finished = await asyncio.gather(*(work(queue) for _ in range(WORKERS)))
        for line in sorted(line for lines in finished for line in lines):
            print(line, flush=True)
        if number + 1 < rounds:
            await asyncio.sleep(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Analyse five wallets.")
    parser.add_argument("--rounds", type=int, default=1, help="how often, once a second")
    asyncio.run(main(parser.parse_args().rounds))
