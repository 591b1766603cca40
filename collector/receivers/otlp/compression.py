"""
Content encodings of OTLP/HTTP, undone within limits.

A body of 8 KB can stand for 256 MiB, so nothing here is a one-shot call: output comes in pieces of
64 KiB and stops at the cap, or at 100 times its input once it is above 4 MiB. `zlib` stops after
the first member of a gzip file and python-zstandard ends quietly inside a frame that was cut short,
so both are looped and checked here.
"""

import io
import zlib
from importlib import import_module
from typing import Any, Final

import zstandard

from collector.errors import Malformed, TooLarge, Unsupported

PIECE: Final = 64 << 10
FREE: Final = 4 << 20
"""Below 4 MiB of output any ratio is taken: logs do compress well."""
RATIO: Final = 100
MEMBERS: Final = 1_000
"""Members of a gzip file, or zstd frames, in one body."""
WINDOW: Final = 8 << 20
"""The largest zstd window (RFC 8878 asks decoders for 8 MiB)."""

GZIP: Final = 31
ZLIB: Final = 15
DECODED: Final = ("gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed")
"""The content encodings that can be undone."""
SNAPPY: Final = frozenset({"snappy", "x-snappy-framed"})
SNAPPY_MAGIC: Final = b"\xff\x06\x00\x00sNaPpY"
SNAPPY_CHUNK: Final = 64 << 10
"""The most bytes that one chunk of a framed body stands for."""
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def decompress(name: str, body: bytes, cap: int) -> bytes:
    """
    Undo one content encoding.

    Args:
        name: gzip, zlib, deflate (which means zlib, too), zstd, snappy or x-snappy-framed.
        body: the compressed bytes, whole.
        cap: the most bytes that may come out.

    Raises:
        TooLarge: more than the cap, or a ratio or window that no honest sender needs.
        Malformed: the stream is broken, cut short, or followed by something else.
    """
    out = _Output(cap)
    if name == "zstd":
        _zstd(body, out)
    elif name in SNAPPY:
        _snappy(body, out)
    else:
        _zlib(name, body, GZIP if name == "gzip" else ZLIB, out)
    return b"".join(out.pieces)


class _Output:
    """What has come out so far, and the limits on it."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.size = 0
        self.pieces: list[bytes] = []

    def add(self, piece: bytes, consumed: int) -> None:
        """Keep a piece that came out after `consumed` bytes went in."""
        self.size += len(piece)
        if self.size > self.cap:
            raise TooLarge(f"the body is larger than {self.cap} bytes when decompressed")
        if self.size > FREE and self.size > RATIO * consumed:
            raise TooLarge(f"the body is compressed more than {RATIO}:1")
        self.pieces.append(piece)


def _zlib(name: str, body: bytes, window_bits: int, out: _Output) -> None:
    """All members of a gzip file, or one zlib stream."""
    stream = zlib.decompressobj(window_bits)
    members = 1
    try:
        for start in range(0, len(body), PIECE):
            data = body[start : start + PIECE]
            consumed = start + len(data)
            while data:
                if stream.eof:
                    if window_bits != GZIP:
                        raise Malformed(f"the {name} body goes on behind its end")
                    members += 1
                    if members > MEMBERS:
                        raise TooLarge(f"the gzip body has more than {MEMBERS} members")
                    stream = zlib.decompressobj(window_bits)
                out.add(stream.decompress(data, PIECE), consumed)
                data = stream.unused_data if stream.eof else stream.unconsumed_tail
            while not stream.eof and (piece := stream.decompress(b"", PIECE)):
                out.add(piece, consumed)
    except zlib.error as error:
        raise Malformed(f"the body is not {name}: {error}") from error
    if not stream.eof:
        raise Malformed(f"the {name} body is cut short")


def _zstd(body: bytes, out: _Output) -> None:
    """All frames of a zstd body."""
    try:
        _check_frames(body)
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(
            io.BytesIO(body), read_size=PIECE, read_across_frames=True
        )
        while piece := reader.read(PIECE):
            # How far the reader is inside its input is not to be had: the ratio is that of the end.
            out.add(piece, len(body))
    except zstandard.ZstdError as error:
        raise Malformed(f"the body is not zstd: {error}") from error


def _check_frames(body: bytes) -> None:
    """Walk the frames by their block headers (RFC 8878): whole, few, and with small windows."""
    pos = frames = 0
    if not body:
        raise Malformed("the zstd body is cut short")
    while pos < len(body):
        frames += 1
        if frames > MEMBERS:
            raise TooLarge(f"the zstd body has more than {MEMBERS} frames")
        head = body[pos : pos + 18]
        if head[:4] != ZSTD_MAGIC:
            raise Malformed("the body is not zstd, or goes on behind its end")
        frame = zstandard.get_frame_parameters(head)
        if frame.window_size > WINDOW:
            raise TooLarge(
                f"the zstd window is larger than {WINDOW} bytes; compress at level 19 or below"
            )
        pos += zstandard.frame_header_size(head)
        last = False
        while not last:
            block = int.from_bytes(body[pos : pos + 3], "little")
            pos += 3
            last = bool(block & 1)
            pos += 1 if block >> 1 & 3 == 1 else block >> 3
            if pos > len(body):
                raise Malformed("the zstd body is cut short")
        pos += 4 if frame.has_checksum else 0
        if pos > len(body):
            raise Malformed("the zstd body is cut short")


def _snappy(body: bytes, out: _Output) -> None:
    """
    One block, or the chunks of the framing format.

    Senders call both `snappy`. A block says first how long it is, so nothing is made before that is
    judged. The checksums of chunks are not looked at: TCP has its own, and protobuf a structure.
    """
    if not body.startswith(SNAPPY_MAGIC):
        _snappy_block(body, out, len(body))
        return
    at = 0
    while at < len(body):
        if at + 4 > len(body):
            raise Malformed("the snappy body is cut short")
        kind, size = body[at], int.from_bytes(body[at + 1 : at + 4], "little")
        chunk = body[at + 4 : at + 4 + size]
        at += 4 + size
        if len(chunk) < size:
            raise Malformed("the snappy body is cut short")
        if kind == 0:
            _snappy_block(chunk[4:], out, at, SNAPPY_CHUNK)
        elif kind == 1:
            out.add(chunk[4:], at)
        elif kind < 0x80:
            raise Malformed(f"the snappy body has a chunk of the unknown type {kind}")


def _snappy_block(block: bytes, out: _Output, consumed: int, most: int | None = None) -> None:
    length = shift = 0
    for byte in block[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise Malformed("the body is not snappy")
    if not length and len(block) == 1:
        return
    if most is not None and length > most:
        raise Malformed("the body is not snappy: a chunk is too large")
    if out.size + length > out.cap or (length > FREE and length > RATIO * consumed):
        raise TooLarge(
            f"the body is larger than {out.cap} bytes when decompressed, or over {RATIO}:1"
        )
    try:
        cramjam: Any = import_module("cramjam")
    except ImportError as error:
        raise Unsupported("snappy needs the package cramjam; use gzip or zstd") from error
    try:
        plain = bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise Malformed("the body is not snappy") from error
    out.add(plain, consumed)
