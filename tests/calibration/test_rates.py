"""Promised and realised reject rates, counted image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta

from calibration.rates import ALPHAS, reject_rates, reliability
from scoring.metadata import OperatingPoint
from tests.reference import p_value


def test_reject_rates() -> None:
    """The share of images above the threshold, one that is on it not among them, at each operating point."""
    points = [
        OperatingPoint(name=name, alpha=alpha, guarantee="marginal", delta=0.05, threshold=threshold)
        for name, alpha, threshold in (("a", 0.1, 2), ("b", 0.05, 3))
    ]
    first, second = reject_rates(points, 1000, np.array([1.0, 2, 3, 4]), {"far": np.array([2.5, 9])})
    assert (first.operating_point, first.alpha, first.realised, first.ood) == ("a", 0.1, 0.5, {"far": 1})
    assert (second.operating_point, second.alpha, second.realised, second.ood) == ("b", 0.05, 0.25, {"far": 0.5})
    assert second.interval == pytest.approx((0.039, 0.062), abs=5e-4)  # n = 1000, alpha = 5 %: as the documents say


@pytest.mark.parametrize("seed", range(4))
def test_reliability(seed: int) -> None:
    """At each rate the realised share is that of images whose p-value, counted in a loop, is at most the rate."""
    generator = np.random.default_rng(seed)
    calibration, inside = np.sort(generator.normal(size=250)).round(2), generator.normal(size=90).round(2)
    rows = reliability(calibration, inside)
    assert [row.alpha for row in rows] == list(ALPHAS)
    for row in rows:
        rejected = [p_value(score, calibration.tolist()) <= row.alpha for score in inside]
        assert row.realised == np.mean(rejected)
        assert row.realised_interval[0] <= row.interval[0] < row.interval[1] <= row.realised_interval[1] + 1 / 90


def test_too_few_images() -> None:
    """A rate that so few calibration images cannot keep has no row."""
    assert [row.alpha for row in reliability(np.arange(19.0), np.arange(5.0))] == [a for a in ALPHAS if a >= 0.05]
    assert reliability(np.array([1.0]), np.array([1.0]))[0].alpha == 0.5
    assert reliability(np.array([]), np.array([1.0])) == []


def test_realised_interval() -> None:
    """The light band holds 90 % of shares that are simulated: a true rate from its Beta law, then the images."""
    (row,) = [row for row in reliability(np.arange(200.0), np.arange(80.0)) if row.alpha == 0.1]
    generator = np.random.default_rng(0)
    rates = beta(20, 181).rvs(40_000, random_state=generator)
    shares = generator.binomial(80, rates) / 80
    low, high = row.realised_interval
    within = np.mean((shares >= low) & (shares <= high))
    tight = np.mean((shares > low) & (shares < high))
    error = 4 * math.sqrt(0.9 * 0.1 / 40_000)
    assert tight - error <= 0.9 <= within + error
