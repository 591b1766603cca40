"""
Population stability index of two histograms: has the distribution of scores moved?

    PSI = sum over buckets of (p - q) * ln(p / q)

with p the share of a bucket now and q its share in the reference window. An empty bucket would
make it infinite, so each share is at least 0.0001 and the shares are scaled to one again. Bucket
counts are all it takes: no score is kept, and stored metrics of last month will do.

Below 0.10 nothing has happened; from 0.20 on it is an alert, if it was so in the window before as
well: one odd quarter of an hour is no drift. With fewer than 200 values in a window the answer is
"no data".

Chance alone moves the index too, the more so the fewer values and the more buckets there are: two
windows of 200 values in 22 buckets reach 0.20 every second time. So the verdict asks for a second
thing, the chi-square test of two samples

    X2 = sum over buckets of (a * sqrt(m / n) - b * sqrt(n / m)) ** 2 / (a + b)

with n and m values in the windows and a and b of them in a bucket. What chance gives more often than
once in a thousand windows is stable, whatever the index. The limit is the 99.9 % quantile of chi-square
with one degree of freedom less than buckets (approximated by Wilson and Hilferty). Buckets in which the
smaller window has to expect fewer than five values join their neighbour first, as the test demands.
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
EXPECTED: Final = 5
"""Values that the smaller window has to expect in a bucket, for the chi-square test to hold."""
Z: Final = 3.0902
"""The normal quantile of 99.9 %."""


class Drift(NamedTuple):
    """How far two distributions lie apart."""

    value: float | None
    """The index, or None when there is no data."""
    verdict: str
    """`stable`, `watch`, `alert` or `no data`."""
    reason: str = ""
    """Why there is no data, or why an index of 0.10 or more is no drift."""


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
    moved, limit, buckets = _chi_square(p, q)
    if moved <= limit:
        sizes = f"{buckets} buckets, {sum(p):g} and {sum(q):g} values"
        reason = (
            f"chance alone can do it: chi-square {moved:.1f}, and more than {limit:.1f} is needed"
        )
        return Drift(value, "stable", f"{reason} ({sizes})")
    lasting = before is None or (
        before.value is not None and before.value >= ALERT and before.verdict != "stable"
    )
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


def _chi_square(now: list[float], reference: list[float]) -> tuple[float, float, int]:
    """The statistic of two samples, its 99.9 % quantile, and the buckets that it compares."""
    n, m = sum(now), sum(reference)
    share = min(n, m) / (n + m)
    pairs: list[tuple[float, float]] = []
    a = b = 0.0
    for more, other in zip(now, reference, strict=True):
        a, b = a + more, b + other
        if (a + b) * share >= EXPECTED:
            pairs.append((a, b))
            a = b = 0.0
    if pairs:
        last = pairs.pop()
        pairs.append((last[0] + a, last[1] + b))
    freedom = len(pairs) - 1
    if freedom < 1:
        return 0.0, 0.0, len(pairs)
    ratio, spread = math.sqrt(m / n), 2 / (9 * freedom)
    moved = math.fsum((a * ratio - b / ratio) ** 2 / (a + b) for a, b in pairs)
    return moved, freedom * (1 - spread + Z * math.sqrt(spread)) ** 3, len(pairs)


def _none(reason: str) -> Drift:
    return Drift(None, "no data", reason)
