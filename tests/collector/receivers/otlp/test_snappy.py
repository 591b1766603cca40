"""Bodies in snappy, as a block or framed: read within limits, refused when they are none (R6, B01)."""

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed, TooLarge
from collector.receivers.otlp.compression import decompress

CAP = 1 << 20
BLOCK = cramjam.snappy.compress_raw
FRAMED = cramjam.snappy.compress


@pytest.mark.parametrize("pack", [BLOCK, FRAMED], ids=["block", "framed"])
@pytest.mark.parametrize("name", ["snappy", "x-snappy-framed"])
@pytest.mark.parametrize("body", [b"x", b"log line " * 50_000, bytes(range(256)) * 300])
def test_both_forms_under_both_names(pack, name, body):
    """Senders mean either by either name."""
    assert decompress(name, bytes(pack(body)), CAP) == body
    assert decompress(name, bytes(BLOCK(b"")), CAP) == b""


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", Malformed),
        (b"\xff" * 9, Malformed),
        (b"\x05ab", Malformed),
        (b"\xff\xff\xff\xff\x0f", TooLarge),  # says that it is 4 GiB
        (bytes(BLOCK(b"x" * (CAP + 1))), TooLarge),
        (bytes(FRAMED(b"x" * (CAP + 1))), TooLarge),
        (bytes(FRAMED(b"x" * 1000))[:-3], Malformed),
        (bytes(FRAMED(b"x")) + b"\x02\x00\x00\x00", Malformed),
        (bytes(FRAMED(b"x")) + b"\x00\x08\x00\x00crc_" + b"\xff\xff\x7f\x00", Malformed),
    ],
)
def test_what_is_none_or_too_much(body, error):
    """A clear answer, and never more memory than the limit."""
    with pytest.raises(error):
        decompress("snappy", body, CAP)


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(body):
    """Garbage behind the magic of frames, or alone, raises nothing but our errors."""
    for sent in (body, b"\xff\x06\x00\x00sNaPpY" + body):
        try:
            assert len(decompress("snappy", sent, CAP)) <= CAP
        except (Malformed, TooLarge):
            continue
