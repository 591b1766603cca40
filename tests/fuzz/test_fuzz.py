"""
R10: any bytes at the decoder and at a real receiver: answered, never a crash, twins equal.

A few thousand inputs from one seed (three seconds) run always; two minutes, from a new seed each
time, in `make test-full`. What was run is printed at the end of the tests.
"""

import contextlib
import http.client
import socket
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from collector import otlp
from collector.documents.build import documents, dumps
from collector.documents.schema import NATIVE, _walk, read
from collector.errors import Malformed, TooLarge
from collector.model import Request, Signal
from collector.otlp import Limits, decode, encode, encode_json
from collector.otlp.sizing import native, walked
from collector.receivers.otlp.compression import decompress
from tests.collector.receivers.otlp.bad_inputs import JSON, PATHS, PROTOBUF, plain
from tests.collector.receivers.otlp.test_catalogue import SERVICES
from tests.fuzz.inputs import Mutator
from tests.programs import Collector

SEED = 20_261_122
LONG_S = 120.0
REQUEST = Request(received_at_unix_nano=1_790_000_000_000_000_000, key=bytes(16))
STATUSES = {200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 431}
CODES = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}

lengths = pytest.mark.parametrize(
    ("share", "seed"),
    [
        pytest.param(None, SEED, id="short"),
        pytest.param(0.5, None, id="long", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)


def stream(few, share, seed):
    """So many inputs, or as many as the time allows; and the seed that they are from."""
    seed = time.time_ns() if seed is None else seed
    over = None if share is None else time.monotonic() + LONG_S * share

    def inputs():
        for number, one in enumerate(Mutator(seed)):
            if number >= few and (over is None or time.monotonic() > over):
                return
            yield one

    return seed, inputs()


def one_decoded(signal, encoding, data):
    """Run one input through everything that sees bytes of strangers; a word for the outcome."""
    if encoding == "protobuf":
        found = native(signal, data, otlp.SHAPES[signal], Limits())
        try:
            expected = walked(signal, data, otlp.SHAPES[signal], Limits())
        except Malformed:
            expected = None
        assert found in (expected, None)
    try:
        decoded = decode(signal, data, encoding=encoding, request=REQUEST)
    except Malformed:
        return "malformed"
    except TooLarge:
        return "too large"
    wire = encode(decoded.batch)
    message = decoded.batch.message
    read(wire, message)  # as it came
    fields = read(message.SerializeToString(), message)
    assert dumps(fields, ordered=True) == dumps(_walk(message), ordered=True)
    for document in documents(decoded.batch):
        dumps(document)
    again = decode(signal, wire, encoding="protobuf", request=REQUEST)
    assert (again.accepted, again.rejected) == (decoded.accepted, 0)
    in_json = decode(signal, encode_json(decoded.batch, signal), encoding="json", request=REQUEST)
    assert (in_json.accepted, in_json.rejected) == (decoded.accepted, 0)
    return "repaired" if decoded.repaired or decoded.rejected else "taken"


@lengths
def test_r10_the_decoder_answers_any_bytes(share, seed, record_property):
    """R10: decoding, counting, documents and both encodings survive any input, and the twins agree."""
    assert NATIVE, "the native core was not built: is there a C compiler?"
    seed, inputs = stream(2_500, share, seed)
    outcomes = Counter()
    for one in inputs:
        try:
            outcomes[one_decoded(*one)] += 1
        except Exception as error:
            error.add_note(f"seed {seed}, input {outcomes.total()}: {one}")
            raise
    assert {"taken", "repaired", "malformed"} <= set(outcomes)
    record_property("figures", f"seed {seed}, {outcomes.total()} inputs: {dict(outcomes)}")


@lengths
def test_r10_decompression_answers_any_bytes(share, seed, record_property):
    """R10: a damaged stream is decompressed, or refused as malformed or too large."""
    import gzip
    import zlib

    import zstandard

    share = None if share is None else share / 10
    seed, inputs = stream(1_500, share, seed)
    mutator = Mutator(seed)
    packers = {
        "gzip": lambda data: gzip.compress(data, 1),
        "zlib": zlib.compress,
        "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    }
    outcomes = Counter()
    for number, (_, _, data) in enumerate(inputs):
        name = list(packers)[number % 3]
        packed = packers[name](data)
        try:
            decompress(name, mutator.mutated(packed) if number % 4 else packed, 1 << 20)
        except (Malformed, TooLarge) as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["taken"] += 1
    assert {"Malformed", "taken"} <= set(outcomes)
    record_property("figures", f"seed {seed}, {outcomes.total()} streams: {dict(outcomes)}")


CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: 127.0.0.1:0}
      http: {endpoint: 127.0.0.1:0, read_header_timeout: 5s, read_timeout: 5s}
exporters:
  file: {path: stored.jsonl}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [file]}
    metrics: {receivers: [otlp], exporters: [file]}
    logs: {receivers: [otlp], exporters: [file]}
"""


class Receiver:
    """A collector process, and one input at a time over either transport or as raw bytes."""

    def __init__(self, folder, stack):
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG)
        self.collector = stack.enter_context(Collector(folder, sets=(), config=config))
        self.collector.wait_for("Everything is ready")
        host, _, port = self.collector.address("otlp", "http").rpartition(":")
        self.address = host, int(port)
        self.channel = stack.enter_context(
            grpc.insecure_channel(self.collector.address("otlp", "grpc"))
        )

    def over_http(self, signal, encoding, data):
        kind = PROTOBUF if encoding == "protobuf" else JSON
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=30)) as client:
            client.request("POST", PATHS[signal], data, {"Content-Type": kind})
            return client.getresponse().status

    def over_grpc(self, signal, data):
        try:
            self.channel.unary_unary(f"/{SERVICES[signal]}/Export")(data, timeout=30)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    def raw(self, data):
        """The statuses of everything that is answered to these bytes."""
        received = b""
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(self.address, timeout=30) as client,
        ):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                received += piece
        return [
            int(line[9:12])
            for line in received.split(b"\r\n")
            if line.startswith(b"HTTP/1.1 ") and line[9:12].isdigit()
        ]


def as_request(mutator, signal, encoding, data):
    """A damaged HTTP request around an input."""
    kind = PROTOBUF if encoding == "protobuf" else JSON
    whole = (
        f"POST {PATHS[signal]} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    ).encode() + data
    return mutator.mutated(whole)


@pytest.mark.e2e
@lengths
def test_r10_the_receiver_answers_any_bytes(share, seed, tmp_path, record_property):
    """R10: over HTTP, gRPC and as raw bytes each input is answered as the specification has it."""
    with contextlib.ExitStack() as stack:
        receiver = Receiver(tmp_path, stack)
        seed, inputs = stream(700, share, seed)
        mutator = Mutator(seed)
        outcomes = Counter()
        for number, (signal, encoding, data) in enumerate(inputs):
            if number % 3 == 0:
                statuses = receiver.raw(as_request(mutator, signal, encoding, data))
                assert set(statuses) <= STATUSES, (seed, number, statuses)
                outcomes.update(statuses or ["closed"])
            elif encoding == "protobuf" and number % 3 == 1:
                code = receiver.over_grpc(signal, data)
                assert code in CODES, (seed, number, signal, data)
                outcomes[code] += 1
            else:
                status = receiver.over_http(signal, encoding, data)
                assert status in (200, 400, 413), (seed, number, signal, encoding, data)
                outcomes[status] += 1
        clean = plain()("after-the-fuzz")
        assert receiver.over_http(Signal.LOGS, "protobuf", clean) == 200
        assert (tmp_path / "stored.jsonl").read_text().count("after-the-fuzz") == 2
        assert receiver.collector.stop() == 0
        assert "Traceback" not in receiver.collector.text
    assert {200, 400, "OK", "INVALID_ARGUMENT"} <= set(outcomes)
    record_property("figures", f"seed {seed}, {outcomes.total()} answers: {dict(outcomes)}")
