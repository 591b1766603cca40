"""Cases of size, compression and structure: B01 to B19."""

import gzip
import zlib
from collections.abc import Callable

import zstandard

from collector.model import Signal
from tests.collector.receivers.otlp.bad_inputs import (
    JSON,
    MIB,
    Body,
    add,
    around,
    attribute,
    both,
    fine,
    framed,
    good,
    in_json,
    owner_of,
    plain,
    set_attribute,
    spoilt,
)


def zeros(name: str) -> bytes:
    data = bytes(32 * MIB)
    if name == "gzip":
        return gzip.compress(data, 1)
    if name == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return zlib.compress(data, 1)


def packed(name: str, data: bytes) -> bytes:
    if name == "gzip":
        return gzip.compress(data, 1)
    if name == "zstd":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return zlib.compress(data, 1)


def wrapped(name: str, change: Callable[[bytes], bytes] = lambda data: data) -> Body:
    """A good request, compressed, and then changed."""
    return lambda mark: change(packed(name, plain()(mark)))


def frameless(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(data) + stream.flush()


def wide_window(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor(level=22).compressobj()
    return stream.compress(data) + stream.flush()


for encoding, row in (("gzip", "B01"), ("zlib", "B02"), ("deflate", "B02"), ("zstd", "B03")):
    at = {"headers": {"Content-Encoding": encoding}}
    add(
        row,
        "http",
        f"bomb-{encoding}",
        lambda _, e=encoding: zeros(e),
        413,
        text="more than 100:1",
        **at,
    )
    add("B05", "http", f"good-{encoding}", wrapped(encoding), 200, **at)
    add(
        "B05",
        "http",
        f"garbage-behind-{encoding}",
        wrapped(encoding, lambda d: d + b"garbage"),
        400,
        **at,
    )
    add("B06", "http", f"cut-short-{encoding}", wrapped(encoding, lambda d: d[:-1]), 400, **at)
    add("B06", "http", f"half-{encoding}", wrapped(encoding, lambda d: d[: len(d) // 2]), 400, **at)
    add(
        "B06",
        "http",
        f"checksum-{encoding}",
        wrapped(encoding, lambda d: d[:-2] + bytes([d[-2] ^ 1, d[-1] ^ 1])),
        400,
        **at,
    )
    add("B06", "http", f"empty-{encoding}", lambda _: b"", 400, **at)
    add("B06", "http", f"not-{encoding}", plain(), 400, **at)

add(
    "B03",
    "http",
    "bomb-zstd-unsized",
    lambda _: frameless(bytes(32 * MIB)),
    413,
    headers={"Content-Encoding": "zstd"},
)
add(
    "B04",
    "http",
    "window",
    lambda mark: wide_window(plain()(mark)),
    413,
    text="zstd window",
    headers={"Content-Encoding": "zstd"},
)
add(
    "B05",
    "http",
    "members",
    lambda mark: packed("gzip", plain()(mark)[:9]) + packed("gzip", plain()(mark)[9:]),
    200,
    headers={"Content-Encoding": "gzip"},
)
add(
    "B05",
    "http",
    "frames",
    lambda mark: packed("zstd", plain()(mark)[:9]) + packed("zstd", plain()(mark)[9:]),
    200,
    headers={"Content-Encoding": "zstd"},
)
add(
    "B05",
    "http",
    "flood-of-members",
    lambda _: gzip.compress(b"") * 1_001,
    413,
    text="members",
    headers={"Content-Encoding": "gzip"},
)
for encoding in (
    "br",
    "lz4",
    "compress",
    "gzip, gzip",
    "gzip, zstd",
    "identity, gzip",
    "gzip;q=1",
    "x",
):
    add(
        "B07",
        "http",
        encoding.replace(", ", "+"),
        wrapped("gzip"),
        415,
        text="one of: identity",
        headers={"Content-Encoding": encoding},
    )
add("B07", "http", "identity", plain(), 200, headers={"Content-Encoding": "identity"})
add(
    "B08",
    "grpc",
    "bomb",
    lambda _: bytes(32 * MIB),
    "RESOURCE_EXHAUSTED",
    headers={"compression": "gzip"},
)
add("B08", "grpc", "over-the-limit", lambda _: bytes(20 * MIB + 1), "RESOURCE_EXHAUSTED")
add(
    "B09",
    "http",
    "over-the-limit",
    lambda _: bytes(20 * MIB + 1),
    413,
    text="larger than 20971520 bytes",
)
add(
    "B09",
    "http",
    "over-the-limit-chunked",
    lambda _: bytes(20 * MIB + 1),
    413,
    headers={"Transfer-Encoding": "chunked"},
)

for signal in Signal:
    record = {Signal.METRICS: framed(0x12, framed(0x2A, b"\x0a\x00" * 50_001))}.get(
        signal, b"\x12\x00" * 50_001
    )
    both(
        "B10",
        f"{signal}",
        lambda _, r=record: framed(0x0A, framed(0x12, r)),
        413,
        "RESOURCE_EXHAUSTED",
        signal=signal,
        text="more than 50000 items",
    )
    add(
        "B10",
        "http",
        f"4-mib-{signal}",
        lambda _: framed(0x0A, framed(0x12, b"\x12\x00" * (2 * MIB))),
        413,
        signal=signal,
    )
add(
    "B10",
    "http",
    "20-mib-logs",
    lambda _: framed(0x0A, framed(0x12, b"\x12\x00" * (10 * MIB - 10))),
    413,
)
add(
    "B10",
    "http",
    "20-mib-logs-gzip",
    lambda _: gzip.compress(framed(0x0A, framed(0x12, b"\x12\x00" * (2 * MIB))), 1),
    413,
    headers={"Content-Encoding": "gzip"},
)
add(
    "B10",
    "http",
    "json",
    lambda _: b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * MIB + b"{}]}]}]}",
    413,
    kind=JSON,
)

FLOODS = {
    "resources": (Signal.LOGS, lambda: b"\x0a\x00" * 10_001),
    "scopes": (Signal.LOGS, lambda: framed(0x0A, b"\x12\x00" * 10_001)),
    "attributes": (Signal.LOGS, lambda: flood(0x32)),
    "resource-attributes": (
        Signal.LOGS,
        lambda: framed(0x0A, framed(0x0A, b"\x0a\x00" * (MIB + 1))),
    ),
    "array-values": (
        Signal.LOGS,
        lambda: framed(
            0x0A, framed(0x12, framed(0x12, framed(0x2A, framed(0x2A, b"\x0a\x00" * (MIB + 1)))))
        ),
    ),
    "span-attributes": (Signal.TRACES, lambda: flood(0x4A)),
    "events": (Signal.TRACES, lambda: flood(0x5A)),
    "links": (Signal.TRACES, lambda: flood(0x6A)),
    "exemplars": (
        Signal.METRICS,
        lambda: framed(
            0x0A, framed(0x12, framed(0x12, framed(0x2A, framed(0x0A, b"\x2a\x00" * (MIB + 1)))))
        ),
    ),
    "quantiles": (
        Signal.METRICS,
        lambda: framed(
            0x0A, framed(0x12, framed(0x12, framed(0x5A, framed(0x0A, b"\x32\x00" * (MIB + 1)))))
        ),
    ),
    "unknown-fields": (Signal.LOGS, lambda: b"\x78\x00" * (4 * MIB)),
}


def flood(tag: int) -> bytes:
    """A request with one record that is full of empty messages."""
    return framed(0x0A, framed(0x12, framed(0x12, bytes([tag, 0]) * (MIB + 1))))


for words, (signal, build) in FLOODS.items():
    add("B11", "http", words, lambda _, b=build: b(), 413, signal=signal, text="more than")
    if words in ("resources", "events", "exemplars"):
        add(
            "B11",
            "grpc",
            words,
            lambda _, b=build: b(),
            "RESOURCE_EXHAUSTED",
            signal=signal,
            text="more than",
        )

add(
    "B13",
    "http",
    "fifty-bombs",
    lambda _: zeros("gzip"),
    413,
    headers={"Content-Encoding": "gzip"},
    times=50,
)


def nested(depth: int, inner: str) -> bytes:
    """An AnyValue with so many arrays or maps inside each other."""
    value = b"\x0a\x01x"
    for _ in range(depth):
        if inner == "array":
            value = framed(0x2A, framed(0x0A, value))
        else:
            value = framed(0x32, framed(0x0A, b"\x0a\x01k" + framed(0x12, value)))
    return value


def deep_item(signal: Signal, depth: int, inner: str) -> bytes:
    """A record with an attribute that is nested so deeply."""
    pair = b"\x0a\x01k" + framed(0x12, nested(depth, inner))
    if signal is Signal.TRACES:
        return good(signal, "") + framed(0x4A, pair)
    if signal is Signal.METRICS:
        return b"\x0a\x01m" + framed(0x2A, framed(0x0A, framed(0x3A, pair)))
    return framed(0x32, pair)


for signal in Signal:
    for inner in ("array", "map"):
        for number, depth in enumerate((24, 31, 32, 47, 64, 100, 10_000)):
            how = ("http", "grpc")[(number + (inner == "map")) % 2]
            add(
                "B14",
                how,
                f"{signal}-{inner}-{depth}",
                lambda mark, s=signal, d=depth, i=inner: around(s, deep_item(s, d, i))(mark),
                200 if how == "http" else "OK",
                signal=signal,
            )
fine("B14", "log-body-100", around(Signal.LOGS, framed(0x2A, nested(100, "array"))))
fine(
    "B14",
    "event-attribute-100",
    around(
        Signal.TRACES,
        good(Signal.TRACES, "")
        + framed(0x5A, framed(0x1A, b"\x0a\x01k" + framed(0x12, nested(100, "map")))),
    ),
    signal=Signal.TRACES,
)


def deep_json(depth: int) -> str:
    return (
        '{"body":' + '{"arrayValue":{"values":[' * depth + '{"intValue":"1"}' + "]}}" * depth + "}"
    )


for depth, expected in ((24, 200), (64, 200), (100, 200), (400, (200, 400)), (100_000, 400)):
    add(
        "B15",
        "http",
        f"known-{depth}",
        in_json(Signal.LOGS, deep_json(depth)),
        expected,
        kind=JSON,
        **({"stored": -1} if isinstance(expected, tuple) else {}),
    )
    add(
        "B15",
        "http",
        f"unknown-{depth}",
        in_json(Signal.LOGS, "{}", more=',"future":' + "[" * depth + "]" * depth),
        expected,
        kind=JSON,
        **({"stored": -1} if isinstance(expected, tuple) else {}),
    )

for signal in Signal:
    fine(
        "B18",
        f"10000-attributes-{signal}",
        spoilt(
            signal,
            lambda _g, _s, r, s=signal: (
                [attribute(owner_of(s, r), f"k{n}", int_value=n) for n in range(10_000)] and None
            ),
        ),
        signal=signal,
    )
    fine(
        "B18",
        f"key-64-kib-{signal}",
        spoilt(signal, set_attribute(signal, "k" * 65_536, int_value=1)),
        signal=signal,
    )
    fine(
        "B18",
        f"value-1-mib-{signal}",
        spoilt(signal, set_attribute(signal, "k", string_value="v" * MIB)),
        signal=signal,
    )
    fine(
        "B19",
        f"record-3-mib-{signal}",
        spoilt(
            signal,
            lambda _g, _s, r, s=signal: (
                [attribute(owner_of(s, r), f"k{n}", string_value="v" * 60_000) for n in range(50)]
                and None
            ),
        ),
        signal=signal,
    )
fine(
    "B19",
    "body-2-mib",
    spoilt(Signal.LOGS, lambda _g, _s, r: setattr(r.body, "string_value", "\u00e9" * MIB)),
)
fine(
    "B19",
    "record-of-the-future",
    around(Signal.LOGS, framed(0x7A, bytes(2 * MIB))),
    rejected=1,
    text="larger than 1048576 bytes",
)
both(
    "B19",
    "large-resource-of-many",
    lambda _: framed(
        0x0A,
        framed(
            0x0A,
            b"".join(
                framed(0x0A, framed(0x0A, b"k%d" % n) + framed(0x12, framed(0x0A, b"v" * 60_000)))
                for n in range(15)
            ),
        )
        + framed(0x12, b"\x12\x00" * 5_000),
    ),
    413,
    "RESOURCE_EXHAUSTED",
    text="send smaller resources",
)
