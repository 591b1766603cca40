"""psi: drift from bucket counts alone."""

import math
import re

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


EDGES = np.unique(np.r_[np.arange(500, 10_001, 500), 3000, 6000]).astype(float)
"""The boundaries of `risk.score.value`, as an Ensemble of 10,000 points has them."""


def histogram(values):
    return np.bincount(np.searchsorted(EDGES, values, side="left"), minlength=len(EDGES) + 1)


@pytest.mark.parametrize(("now", "reference"), [(200, 200), (200, 20_000), (500, 500)])
@pytest.mark.parametrize("shape", ["normal", "uniform", "beta", "heavy"])
def test_noise_is_no_drift(shape, now, reference):
    """Issue 19.6: of 300 windows from the reference's own distribution at most three are watch or alert."""
    chance = np.random.default_rng(11)
    draw = {
        "normal": lambda n: chance.normal(4500, 1500, n).clip(0, 10_000),
        "uniform": lambda n: chance.uniform(0, 10_000, n),
        "beta": lambda n: chance.beta(2, 5, n) * 10_000,
        "heavy": lambda n: np.minimum(chance.pareto(1.5, n) * 500, 10_000),
    }[shape]
    verdicts = [psi(histogram(draw(now)), histogram(draw(reference))).verdict for _ in range(300)]
    assert sum(verdict != "stable" for verdict in verdicts) <= 3


@pytest.mark.parametrize("size", [200, 500, 5000])
def test_a_real_shift_is_seen(size):
    """Issue 19.6: a shift by one standard deviation is an alert, also in a small window."""
    chance = np.random.default_rng(12)
    windows = [histogram(chance.normal(mean, 1500, size)) for mean in (6000, 4500)]
    assert psi(*windows).verdict == "alert"


def test_the_limit_is_the_quantile_of_chi_square():
    """Issue 19.6: two buckets ask for 10.83, five for 18.47, as the tables have them (99.9 %)."""

    def statistic(now, reference):
        table = np.array([now, reference], float)
        expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
        return ((table - expected) ** 2 / expected).sum()

    for now, reference, quantile in (
        ([80, 120], [112, 88], 10.828),
        ([62, 20, 48, 35, 35], [50, 44, 40, 33, 33], 18.467),
    ):
        found = psi(now, reference)
        assert found.verdict == "stable"
        assert found.value >= 0.1
        numbers = re.findall(r"chi-square ([\d.]+), and more than ([\d.]+)", found.reason)
        said, limit = map(float, numbers[0])
        assert said == pytest.approx(statistic(now, reference), abs=0.06)
        assert limit == pytest.approx(quantile, rel=0.04)
