"""psi: drift from bucket counts alone."""

import math

import numpy as np
import pytest

from telemetry.ml import Drift, psi

REFERENCE = [100, 200, 400, 200, 100]


def test_the_same_distribution_is_stable():
    """Equal shares give 0, however many values there are."""
    assert psi([10 * count for count in REFERENCE], REFERENCE) == Drift(0.0, "stable")


def test_the_index_of_two_buckets():
    """The number is the sum of (p - q) ln(p / q) over the shares."""
    found = psi([300, 700], [500, 500])
    expected = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert found == Drift(pytest.approx(expected), "watch")


def test_empty_buckets_are_floored_and_scaled():
    """A share is at least 0.0001, and floored shares add up to one again."""
    p = [1.0 / 1.0001, 0.0001 / 1.0001]
    expected = (p[0] - 0.5) * math.log(p[0] / 0.5) + (p[1] - 0.5) * math.log(p[1] / 0.5)
    assert psi([1000, 0], [500, 500]) == Drift(pytest.approx(expected), "alert")


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.5, "stable"), (0.63, "stable"), (0.66, "watch"), (0.75, "alert")]
)
def test_verdicts(share, verdict):
    """Below 0.10 stable, below 0.20 watch, from there on alert."""
    assert psi([share * 10_000, (1 - share) * 10_000], [5000, 5000]).verdict == verdict


def test_an_alert_needs_two_windows_in_a_row():
    """With the window before at hand, one odd window is watch and the second an alert."""
    quiet = psi(REFERENCE, REFERENCE)
    odd = psi([*REFERENCE[::-1][:4], 900], REFERENCE, before=quiet)
    assert (odd.value > 0.2, odd.verdict) == (True, "watch")
    assert psi([*REFERENCE[::-1][:4], 900], REFERENCE, before=odd).verdict == "alert"


@pytest.mark.parametrize(
    ("now", "reference", "reason"),
    [
        ([199], [200], "two or more buckets, the same on both sides: got 1 and 1"),
        ([200, 1], [200, 1, 1], "two or more buckets, the same on both sides: got 2 and 3"),
        ([100, 99], [500, 500], "now has 199 values, and 200 are needed"),
        ([500, 500], [0, 0], "the reference has 0 values, and 200 are needed"),
        ([500, -1], [500, 500], "bucket counts must be finite numbers, 0 or more"),
        ([500, math.nan], [500, 500], "bucket counts must be finite numbers, 0 or more"),
        ([500, "many"], [500, 500], "bucket counts must be finite numbers, 0 or more"),
        (None, [500, 500], "bucket counts must be finite numbers, 0 or more"),
    ],
)
def test_no_data(now, reference, reason):
    """Too few values or counts that are none give no number, and say why."""
    assert psi(now, reference) == Drift(None, "no data", reason)


def test_numpy_counts():
    """Counts may be a numpy array."""
    counts = np.array(REFERENCE, dtype=np.uint64)
    assert psi(counts, counts) == Drift(0.0, "stable")
