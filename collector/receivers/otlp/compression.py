"""
Content encodings of OTLP/HTTP, undone within limits.

A body of 8 KB can stand for 256 MiB, so nothing here is a one-shot call: output comes in pieces of
64 KiB and stops at the cap, or at 100 times its input once it is above 4 MiB. `zlib` stops after
the first member of a gzip file and python-zstandard ends quietly inside a frame that was cut short,
so both are looped and checked here.
"""

import io
import zlib
from typing import Final

import zstandard

from collector.errors import Malformed, TooLarge

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
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def decompress(name: str, body: bytes, cap: int) -> bytes:
    """
    Undo one content encoding.

    Args:
        name: gzip, zlib, deflate (which means zlib, too) or zstd.
        body: the compressed bytes, whole.
        cap: the most bytes that may come out.

    Raises:
        TooLarge: more than the cap, or a ratio or window that no honest sender needs.
        Malformed: the stream is broken, cut short, or followed by something else.
    """
    out = _Output(cap)
    if name == "zstd":
        _zstd(body, out)
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
