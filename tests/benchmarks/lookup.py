"""A trace by its id in a store of a million spans, on both stores."""

import argparse
import asyncio
import logging
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.documents.build import Document, documents, moment
from collector.model import Batch, Host, Request, Secret, Signal
from collector.query.trace import trace
from collector.stats import Stats
from collector.stores.mongodb.store import MongoDB
from collector.stores.sqlite.store import SQLite
from tests.benchmarks.documents import request
from tests.benchmarks.measure import result
from tests.servers import mongod

CHUNK = 1000
WRITES = 8
SPANS_PER_TRACE = 10
QUESTIONS = 300


def chunk(index: int, template: list[Document]) -> list[Document]:
    """A thousand spans in a hundred traces, different in every chunk."""
    dice = random.Random(index)
    spans: list[Document] = []
    trace_id = parent = ""
    for number, document in enumerate(template):
        root = number % SPANS_PER_TRACE == 0
        if root:
            trace_id = dice.randbytes(16).hex()
        span_id = dice.randbytes(8).hex()
        start = document["start_unix_nano"] + index * 1_000_000_000
        span = {
            **document,
            "_id": f"{start // 1_000_000_000:08x}{dice.randbytes(8).hex()}",
            "trace_id": trace_id,
            "span_id": span_id,
            "start": moment(start),
            "start_unix_nano": start,
            "end_unix_nano": document["end_unix_nano"] + index * 1_000_000_000,
            "context": {"correlation_id": trace_id[:16]},
        }
        if root:
            parent = span_id
            del span["parent_span_id"]
        else:
            span["parent_span_id"] = parent
        spans.append(span)
    return spans


async def fill_and_ask(name: str, store: Any, spans: int) -> AsyncIterator[dict[str, Any]]:
    """Write the spans, then ask for traces at random, one after the other."""
    wire = request(CHUNK)
    message = ExportTraceServiceRequest.FromString(wire)
    template = documents(Batch(Signal.TRACES, message, Request(time.time_ns(), bytes(16)), wire))
    dice = random.Random(7)
    known: list[str] = []
    start = time.perf_counter()
    chunks = max(1, spans // CHUNK)
    for index in range(0, chunks, WRITES):
        batches = [chunk(each, template) for each in range(index, min(index + WRITES, chunks))]
        await asyncio.gather(*(store.write(Signal.TRACES, batch) for batch in batches))
        known += [span["trace_id"] for batch in batches for span in dice.sample(batch, 2)]
        sys.stderr.write(f"\r{name}: {(index + len(batches)) * CHUNK:,} spans written")
    sys.stderr.write("\n")
    wrote = time.perf_counter() - start
    yield result(f"{name}: generate and store {chunks * CHUNK:,} spans", wrote, "s")
    times = []
    for trace_id in dice.sample(known, min(QUESTIONS, len(known))):
        start = time.perf_counter()
        answer = await trace(store, trace_id)
        times.append((time.perf_counter() - start) * 1e3)
        if not answer.found:
            message = f"{name} lost trace {trace_id}"
            raise RuntimeError(message)
    times.sort()
    case = f"{name}: trace by id among {chunks * CHUNK:,} spans"
    yield result(f"{case}, median", statistics.median(times), "ms", at_most=10)
    yield result(f"{case}, p99", times[int(len(times) * 0.99)], "ms")


@asynccontextmanager
async def opened(store: Any) -> AsyncIterator[Any]:
    """A store, open; MongoDB's indexes are built before the first write."""
    async with store:
        yield store


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Both stores, one after the other."""
    host = Host("store", Stats(), logging.getLogger("benchmark"))

    async def collect(name: str, store: Any) -> list[dict[str, Any]]:
        async with opened(store):
            return [line async for line in fill_and_ask(name, store, options.spans)]

    with tempfile.TemporaryDirectory() as folder:
        config = SQLite.Config(path=str(Path(folder) / "telemetry.db"))
        yield from asyncio.run(collect("sqlite", SQLite(config, host)))
        with mongod(Path(folder)) as uri:
            mongo = MongoDB.Config(uri=Secret(uri), database=f"t_{uuid.uuid4().hex}")
            yield from asyncio.run(collect("mongodb", MongoDB(mongo, host)))
