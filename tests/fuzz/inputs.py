"""
What the fuzzers feed: a corpus and mutations of it, all from one seed.

The corpus is made of the golden samples, the small bodies of the bad-input catalogue, and the files
in `corpus/`: inputs that once found something. `<words>.<signal>.<protobuf|json>` is their name.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from collector.model import Signal
from collector.otlp import Encoding
from tests.collector.receivers.otlp.bad_inputs import JSON
from tests.collector.receivers.otlp.catalogue import CASES

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "otlp"
SMALL = 3_000
"""Larger bodies are slow and say nothing that smaller ones do not."""

Input = tuple[Signal, Encoding, bytes]

TOKENS = [
    *(bytes([tag, 0]) for tag in (0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x4A, 0x5A, 0x6A)),
    b"\xff" * 10,
    b"\x80" * 9 + b"\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x7f",
    b"\x0b\x0c",
    b"\x0b",
    b"\xed\xa0\x80",
    b"\x00",
    b'"',
    b"{}",
    b"[[[[",
    b"]]]]",
    b"null",
    b"NaN",
    b"1e999",
    b"-0",
    b"18446744073709551615",
    b"\\ud800",
    b'"traceId"',
    b'"intValue":',
    b",",
]


def corpus() -> list[Input]:
    """Every input that mutations start from."""
    found: list[Input] = []
    for signal in Signal:
        found.append((signal, "protobuf", (GOLDEN / f"{signal}.binpb").read_bytes()))
        found.append((signal, "json", (GOLDEN / f"{signal}.json").read_bytes()))
    for file in sorted((HERE / "corpus").iterdir()):
        _, signal, encoding = file.name.rsplit(".", 2)
        found.append(
            (Signal(signal), "json" if encoding == "json" else "protobuf", file.read_bytes())
        )
    for case in CASES.values():
        if case.how == "raw" or case.path or "Content-Encoding" in case.headers or case.times > 1:
            continue
        if case.id.startswith(("B08", "B09", "B10", "B11", "B18", "B19")) or "0000" in case.id:
            continue  # large ones
        body = case.body(case.id)
        if len(body) <= SMALL:
            found.append((case.signal, "json" if case.kind == JSON else "protobuf", body))
    return found


class Mutator:
    """
    An endless stream of inputs.

    Args:
        seed: equal seeds make equal streams.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.corpus = corpus()

    def __iter__(self) -> Iterator[Input]:
        yield from self.corpus  # as they are, first
        while True:
            signal, encoding, data = self.chance.choice(self.corpus)
            yield signal, encoding, self.mutated(data)

    def mutated(self, data: bytes) -> bytes:
        """One to six changes."""
        made = bytearray(data)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 6))):
            self.change(made)
        return bytes(made)

    def change(self, data: bytearray) -> None:
        """One change in place."""
        chance = self.chance
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randint(1, 16))
        match chance.randrange(12):
            case 0 | 8 | 9 if data:
                data[at - 1] ^= 1 << chance.randrange(8)
            case 1 | 10 | 11 if data:
                data[at - 1] = chance.randrange(256)
            case 2:
                data[at:end] = b""
            case 3:
                data[at:at] = data[at:end] * chance.randint(1, 8)
            case 4:
                data[at:at] = chance.choice(TOKENS)
            case 5:
                data[at:end] = chance.choice(TOKENS)
            case 6:
                _, _, other = chance.choice(self.corpus)
                start = chance.randrange(len(other) + 1)
                data[at:end] = other[start : start + chance.randint(1, 64)]
            case _:
                del data[at:]
