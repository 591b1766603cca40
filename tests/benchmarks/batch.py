"""
What a batch costs (L9): BackgroundProcessor against a bare asyncio loop with a semaphore.

Both work on the same 1,000 items of 20 ms each, 8 at a time. Wall-clock overhead is what a user
waits; it depends on how many items run at once, since they share one thread (8 at a time and 100 us
of processor time for each item more are 0.8 ms in 20 ms, 4 %), and asyncio's timers have steps of
1 ms. So the processor time per item is given too: that is what the code costs, on any machine.
"""

import argparse
import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import telemetry
from telemetry.batch import BackgroundProcessor
from tests.benchmarks.measure import best_of, result

ITEMS = 1000
ITEM_S = 0.02
ROUNDS = 10
WORKERS = 8
SINK = """
import asyncio

async def answer(reader, writer):
    with __import__("contextlib").suppress(Exception):
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\\r\\n")[0]
            await reader.readexactly(int(length or 0))
            kind = b"Content-Type: application/x-protobuf\\r\\n"
            writer.write(b"HTTP/1.1 200 OK\\r\\n" + kind + b"Content-Length: 0\\r\\n\\r\\n")
            await writer.drain()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
"""Takes OTLP in a process of its own and says that all is well."""


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The address of a running sink."""
    process = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip() if process.stdout is not None else ""
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def work(item: int, _: Any = None) -> int:
    """An item: 20 ms of waiting for somebody else."""
    await asyncio.sleep(ITEM_S)
    return item


def bare() -> None:
    """The same items in a loop that remembers and tells nothing."""

    async def main() -> None:
        semaphore = asyncio.Semaphore(WORKERS)

        async def one(item: int) -> int:
            async with semaphore:
                return await work(item)

        await asyncio.gather(*(one(item) for item in range(ITEMS)))

    asyncio.run(main())


def compared(case: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Wall-clock overhead, and processor time per item, with journal, progress and logs."""
    numbers = itertools.count()

    def ours() -> None:
        place = folder / str(next(numbers))
        processor = BackgroundProcessor(
            "benchmark",
            work,
            key=str,
            concurrency=WORKERS,
            journal=place / "journal.jsonl",
            logs=place / "logs",
            display="off",
        )
        processor.run(range(ITEMS))

    ours()
    best = best_of(ROUNDS, ours=ours, bare=bare)
    overhead = (best["ours"] / best["bare"] - 1) * 100
    title = f"{ITEMS} items of 20 ms, {WORKERS} at a time, {case}"
    yield result(f"{title}: overhead", overhead, "%", at_most=5)
    spent = [(cpu_us(ours), cpu_us(bare)) for _ in range(ROUNDS)]
    yield result(
        f"{title}: CPU per item, all threads",
        min(mine for mine, _ in spent),
        "us",
        peer="bare asyncio loop",
        peer_value=min(theirs for _, theirs in spent),
    )


def cpu_us(side: Callable[[], None]) -> float:
    """Processor time of one round, per item."""
    start = time.process_time()
    side()
    return (time.process_time() - start) * 1e6 / ITEMS


def run(_: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Without telemetry configured, and with everything exported to a process that takes it."""
    with tempfile.TemporaryDirectory() as folder, sink() as address:
        yield from compared("no telemetry", Path(folder) / "bare")
        telemetry.configure(endpoint=address, exit_timeout=1.0, log_format="none")
        yield from compared("telemetry exported", Path(folder) / "exported")
        telemetry.shutdown()
