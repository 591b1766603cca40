"""
Population stability index of two histograms: has the distribution of scores moved?

    PSI = sum over buckets of (p - q) * ln(p / q)

with p the share of a bucket now and q its share in the reference window. An empty bucket would
make it infinite, so each share is at least 0.0001 and the shares are scaled to one again. Bucket
counts are all it takes: no score is kept, and stored metrics of last month will do.

Below 0.10 nothing has happened; from 0.20 on it is an alert, if it was so in the window before as
well: one odd quarter of an hour is no drift. With fewer than 200 values in a window chance alone
moves the index, so the answer is "no data".
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from telemetry import _values

FLOOR: Final = 0.0001
LEAST: Final = 200
BUCKETS: Final = 10_000
"""More buckets than a histogram has."""
WATCH: Final = 0.10
ALERT: Final = 0.20


class Drift(NamedTuple):
    """How far two distributions lie apart."""

    value: float | None
    """The index, or None when there is no data."""
    verdict: str
    """`stable`, `watch`, `alert` or `no data`."""
    reason: str = ""
    """Why there is no data."""


def psi(
    now: Iterable[object], reference: Iterable[object], *, before: Drift | None = None
) -> Drift:
    """
    Compare two windows of one histogram by their bucket counts.

    Example:
        drift = psi([40, 160, 300], [50, 150, 310])

    Args:
        now: counts per bucket in the window under test: counts of the window, not running totals.
        reference: counts of the same buckets in the reference window.
        before: the result of the window before this one; with it, only two windows in a row at
            0.20 or more are an alert, and one is `watch`.
    """
    try:
        p, q = _counts(now), _counts(reference)
    except Exception:
        return _none("bucket counts must be finite numbers, 0 or more")
    if len(p) != len(q) or len(p) < 2:
        return _none(f"two or more buckets, the same on both sides: got {len(p)} and {len(q)}")
    for name, counts in (("now", p), ("the reference", q)):
        if sum(counts) < LEAST:
            return _none(f"{name} has {sum(counts):g} values, and {LEAST} are needed")
    value = math.fsum(
        (new - old) * math.log(new / old) for new, old in zip(_shares(p), _shares(q), strict=True)
    )
    if value < WATCH:
        return Drift(value, "stable")
    lasting = before is None or (before.value is not None and before.value >= ALERT)
    return Drift(value, "alert" if value >= ALERT and lasting else "watch")


def _counts(given: Iterable[object]) -> list[float]:
    counts = []
    for number, count in enumerate(given):
        if number >= BUCKETS:
            raise ValueError
        cleaned = _values.clean(count)
        if isinstance(cleaned, bool) or not isinstance(cleaned, (int, float)):
            raise TypeError
        if not 0 <= cleaned < math.inf:
            raise ValueError
        counts.append(float(cleaned))
    return counts


def _shares(counts: list[float]) -> list[float]:
    total = sum(counts)
    floored = [max(count / total, FLOOR) for count in counts]
    whole = sum(floored)
    return [share / whole for share in floored]


def _none(reason: str) -> Drift:
    return Drift(None, "no data", reason)
