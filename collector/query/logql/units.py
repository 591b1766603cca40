"""
Durations and sizes as LogQL writes them, and numbers as it shows them.

Three readers meet here: literals of the query, values of labels that a filter compares, and values
that `unwrap` turns into samples. They share one grammar, so that `250ms` means the same in all
three. Durations are whole nanoseconds, sizes whole bytes.
"""

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Final

NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
    "y": 31_536_000_000_000_000,
}
DURATION: Final = r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h|d|w|y))+"
SIZE: Final = r"[0-9]+(?:\.[0-9]*)?(?:[kKmMgGtTpPeE][iI]?)?[bB]"
MAX_NANOSECONDS: Final = 2**63 - 1

_DURATION: Final = re.compile(r"[+-]?" + DURATION)
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|μs|ms|s|m|h|d|w|y)")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?) ?([kKmMgGtTpPeE]?)([iI]?)[bB]?")
_PRINTED: Final = (
    ("h", NANOSECONDS["h"]),
    ("m", NANOSECONDS["m"]),
    ("s", NANOSECONDS["s"]),
    ("ms", NANOSECONDS["ms"]),
    ("us", NANOSECONDS["us"]),
    ("ns", 1),
)
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:inf(?:inity)?|nan))"
)
_LONGEST: Final = 64
"""No duration, size or number that means something is longer; longer texts are not looked at."""


def duration(text: str) -> int | None:
    """Nanoseconds of a duration such as `1h30m`, `1.5s`, `-2d`, `0`; None for anything else."""
    if text in ("0", "+0", "-0"):
        return 0
    if len(text) > _LONGEST or not _DURATION.fullmatch(text):
        return None
    try:
        total = sum(
            (Decimal(value) * NANOSECONDS[unit] for value, unit in _PART.findall(text)), Decimal(0)
        )
    except InvalidOperation:
        return None
    if total > MAX_NANOSECONDS:
        return None
    return -int(total) if text.startswith("-") else int(total)


def size(text: str) -> int | None:
    """Bytes of a size such as `10KB`, `1.5MiB`, `512`; KB is 1000, KiB 1024; None otherwise."""
    found = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    value, prefix, binary = found.groups()
    power = " kmgtpe".index(prefix.lower()) if prefix else 0
    if binary and not prefix:
        return None
    total = int(Decimal(value) * (1024 if binary else 1000) ** power)
    return total if total < 2**64 else None


def number(text: str) -> float | None:
    """The value of a number such as `12`, `1.5e3`, `NaN`, `+Inf`; None for anything else."""
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    return float(text)


def print_duration(nanoseconds: int) -> str:
    """A duration as the parser reads it back: `1h30m`, `1s500ms`, `0s`."""
    rest = abs(nanoseconds)
    parts = ["-"] if nanoseconds < 0 else []
    for unit, length in _PRINTED:
        if rest >= length:
            parts.append(f"{rest // length}{unit}")
            rest %= length
    return "".join(parts) if rest != abs(nanoseconds) else "0s"


def print_number(value: float) -> str:
    """A number as Go writes it, which is what clients of Loki read: `5`, `0.1`, `+Inf`, `NaN`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    if not e:
        return text
    if int(exponent) < -6 or int(exponent) >= 21:
        return text
    return f"{Decimal(mantissa).scaleb(int(exponent)):f}"
