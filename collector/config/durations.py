"""
Durations as Go writes them: "1m30s", "1.5h", "-5s", "200ms".

Whole nanoseconds in between, so that reading and printing lose nothing; `model.Duration` holds
seconds. The error texts are Go's.
"""

import re
from typing import Final

from collector.config.problems import quote
from collector.model import Duration

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_LONGEST: Final = 2**63 - 1


def parse(text: str) -> Duration:
    """
    The seconds that a Go duration says.

    Raises:
        ValueError: with Go's text.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return Duration(0)
    total = 0
    position = 0
    while position < len(rest):
        match = _PART.match(rest, position)
        if match is None or not (match[1] or match[2]):
            break
        if not match[3]:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        unit = _UNITS.get(match[3])
        if unit is None:
            raise ValueError(f"time: unknown unit {quote(match[3])} in duration {quote(text)}")
        total += int(match[1] or "0") * unit
        if match[2]:
            total += int(match[2]) * unit // 10 ** len(match[2])
        position = match.end()
    if not rest or position < len(rest) or total > _LONGEST:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return Duration((-total if text.startswith("-") else total) / 1e9)


def text_of(seconds: float) -> str:
    """A duration in Go's form, to the nanosecond."""
    nanos = round(seconds * 1e9)
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos == 0:
        return "0s"
    for unit in ("ns", "us", "ms"):
        if nanos < _UNITS[unit] * 1_000:
            return sign + _decimal(nanos, _UNITS[unit]) + unit
    minutes, rest = divmod(nanos, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    tail = _decimal(rest, _UNITS["s"]) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{tail}"
    return f"{sign}{minutes}m{tail}" if minutes else sign + tail


def _decimal(nanos: int, unit: int) -> str:
    whole, part = divmod(nanos, unit)
    digits = str(part).rjust(len(str(unit)) - 1, "0").rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
