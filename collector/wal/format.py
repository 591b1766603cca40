"""
The bytes of the durable log: segments of records, each of which can be checked and found again.

A segment begins with a header that is written twice, so that no single flipped bit costs its
records: magic, version, the mark of this segment, the number of the first record. A record is a
header with a checksum of its own, then its texts and the OTLP request, covered by a second
checksum. Every record begins with the segment's mark, eight random bytes: after damage the reader
searches for the mark, and because no client knows it, nothing inside a request can pose as a record.

The checksum is zlib's CRC-32. The standard library has no CRC-32C, and one in pure Python would be
a thousand times slower; both find every burst of up to 32 bits.
"""

import secrets
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from collector.model import Request, Signal

VERSION: Final = 1
MAGIC: Final = b"OTELIERQ"
CHECK: Final = zlib.crc32

_CRC: Final = struct.Struct("<I")
_SEGMENT: Final = struct.Struct("<8sHH8sQQ")  # magic, version, 0, mark, first number, created (ns)
_COPY: Final = 64
SEGMENT_HEADER: Final = 2 * _COPY

# mark, length and checksum of the body, number, received (ns), identity, key of the request, items,
# signal, lengths of transport, tenant and route
_RECORD: Final = struct.Struct("<8sIIQQ16s16sIBBHH")
RECORD_HEADER: Final = _RECORD.size + _CRC.size
MAX_BODY: Final = 1 << 30
CHUNK: Final = 1 << 20

_SIGNALS: Final = {Signal.TRACES: 1, Signal.METRICS: 2, Signal.LOGS: 3}
_BY_NUMBER: Final = {number: signal for signal, number in _SIGNALS.items()}

Read = Callable[[int, int], bytes]
"""(size, offset) -> up to so many bytes of a file."""


class NewerFormatError(Exception):
    """The file was written by a later version of this program."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format {version}")
        self.version = version


@dataclass(slots=True, frozen=True)
class Header:
    """
    What a segment says about itself.

    Args:
        mark: what each of its records begins with.
        first: the number of its first record; all lower ones are in segments before it.
        created_unix_nano: when.
    """

    mark: bytes
    first: int
    created_unix_nano: int


@dataclass(slots=True, frozen=True)
class Record:
    """
    One request in the log.

    Args:
        number: its place in the log; numbers only grow.
        identity: equal for the same data on the same route, for deduplication.
        signal: what `payload` is.
        request: where it came from.
        route: which exporters it is for: the id of a pipeline, or `@` and the id of an exporter.
        items: how many spans, points or log records it holds.
        payload: the OTLP request as protobuf.
    """

    number: int
    identity: bytes
    signal: Signal
    request: Request
    route: str
    items: int
    payload: bytes


@dataclass(slots=True, frozen=True)
class Bad:
    """
    A part of a segment that holds no valid record.

    Args:
        start: where it begins.
        stop: where the next valid record begins, or the end.
        last: whether nothing valid follows.
    """

    start: int
    stop: int
    last: bool


@dataclass(slots=True, frozen=True)
class Head:
    """The fixed part of a record; `stop` is the offset behind the record."""

    number: int
    received_at: int
    identity: bytes
    key: bytes
    items: int
    signal: Signal
    transport: int
    tenant: int
    route: int
    body: int
    check: int
    stop: int


def new_header(first: int, created_unix_nano: int) -> tuple[Header, bytes]:
    """A header for a new segment, and its bytes."""
    header = Header(secrets.token_bytes(8), first, created_unix_nano)
    data = _SEGMENT.pack(MAGIC, VERSION, 0, header.mark, first, created_unix_nano)
    copy = (data + _CRC.pack(CHECK(data))).ljust(_COPY, b"\0")
    return header, copy * 2


def read_header(data: bytes) -> Header | None:
    """
    The header of a segment, from its first bytes; None when both copies are damaged.

    Raises:
        NewerFormatError: a later version wrote it.
    """
    versions = []
    for at in (0, _COPY):
        copy = data[at : at + _COPY]
        if len(copy) < _COPY:
            return None
        magic, version, _, mark, first, created = _SEGMENT.unpack_from(copy)
        if magic != MAGIC:
            continue
        versions.append(version)
        good = _CRC.unpack_from(copy, _SEGMENT.size)[0] == CHECK(copy[: _SEGMENT.size])
        if version == VERSION and good:
            return Header(mark, first, created)
    if len(versions) == 2 and versions[0] == versions[1] > VERSION:  # not a flipped bit
        raise NewerFormatError(versions[0])
    return None


def pack(record: Record, mark: bytes) -> bytes:
    """The bytes of a record in the segment with this mark."""
    request = record.request
    transport = request.transport.encode()[:255]
    tenant, route = request.tenant.encode(), record.route.encode()
    body = b"".join((transport, tenant, route, record.payload))
    head = _RECORD.pack(
        mark,
        len(body),
        CHECK(body),
        record.number,
        request.received_at_unix_nano,
        record.identity,
        request.key,
        record.items,
        _SIGNALS[record.signal],
        len(transport),
        len(tenant),
        len(route),
    )
    return b"".join((head, _CRC.pack(CHECK(head)), body))


def head(data: bytes, at: int, mark: bytes) -> Head | None:
    """
    The fixed part of a record; None when there is none.

    Args:
        data: at least `RECORD_HEADER` bytes.
        at: the offset of `data` in the file.
        mark: of the segment.
    """
    if len(data) < RECORD_HEADER or data[:8] != mark:
        return None
    if _CRC.unpack_from(data, _RECORD.size)[0] != CHECK(data[: _RECORD.size]):
        return None
    _, body, check, number, received_at, identity, key, items, signal, a, b, c = (
        _RECORD.unpack_from(data)
    )
    if signal not in _BY_NUMBER or a + b + c > body or body > MAX_BODY:
        return None
    stop = at + RECORD_HEADER + body
    return Head(
        number, received_at, identity, key, items, _BY_NUMBER[signal], a, b, c, body, check, stop
    )


def unpack(found: Head, body: bytes) -> Record | None:
    """The record; None when its body is not what the header says."""
    if len(body) != found.body or CHECK(body) != found.check:
        return None
    tenant_at, route_at = found.transport, found.transport + found.tenant
    payload_at = route_at + found.route
    request = Request(
        received_at_unix_nano=found.received_at,
        key=found.key,
        tenant=body[tenant_at:route_at].decode(),
        transport=body[:tenant_at].decode(errors="replace"),
    )
    return Record(
        found.number,
        found.identity,
        found.signal,
        request,
        body[route_at:payload_at].decode(),
        found.items,
        body[payload_at:],
    )


def walk(read: Read, at: int, end: int, mark: bytes) -> Iterator[tuple[int, Record | Bad]]:
    """
    What stands in a segment between two offsets.

    Yields:
        (offset behind it, record or damaged part), in the order of the file. Damage is never at
        the same time silent and final: what follows it is found by its mark.
    """
    chunk, base = b"", at
    while at < end:
        if at < base or at + RECORD_HEADER > base + len(chunk):
            chunk, base = read(min(CHUNK, end - at), at), at
        found = head(chunk[at - base : at - base + RECORD_HEADER], at, mark)
        record = None
        if found is not None and found.stop <= end:
            start = at - base + RECORD_HEADER
            body = chunk[start : start + found.body]
            if len(body) < found.body:
                body = read(found.body, at + RECORD_HEADER)
            record = unpack(found, body)
        if found is None or record is None:
            stop = search(read, at + 1, end, mark)
            yield (
                end if stop is None else stop,
                Bad(at, end if stop is None else stop, stop is None),
            )
            at = end if stop is None else stop
            continue
        at = found.stop
        yield at, record


def heads(read: Read, at: int, end: int, mark: bytes) -> Iterator[tuple[Head, str]]:
    """The fixed parts and routes of records, without reading and checking requests; ends at damage."""
    while at + RECORD_HEADER <= end:
        data = read(RECORD_HEADER + 1024, at)
        found = head(data, at, mark)
        if found is None or found.stop > end:
            at_next = search(read, at + 1, end, mark)
            if at_next is None:
                return
            at = at_next
            continue
        start = RECORD_HEADER + found.transport + found.tenant
        if start + found.route > len(data):
            data = read(start + found.route, at)
        yield found, data[start : start + found.route].decode(errors="replace")
        at = found.stop


def search(read: Read, at: int, end: int, mark: bytes) -> int | None:
    """The offset of the next whole, valid record; None when there is none."""
    while at < end:
        chunk = read(min(CHUNK, end - at), at)
        if not chunk:
            return None
        spot = chunk.find(mark)
        if spot < 0:
            if len(chunk) < len(mark):
                return None
            at += len(chunk) - len(mark) + 1
            continue
        found = head(read(RECORD_HEADER, at + spot), at + spot, mark)
        if found is not None and found.stop <= end:
            body = read(found.body, at + spot + RECORD_HEADER)
            if unpack(found, body) is not None:
                return at + spot
        at += spot + 1
    return None
