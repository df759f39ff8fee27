"""Promised and realised reject rates, counted image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import beta

from calibration.rates import ALPHAS, Judged, reject_rates, reliability
from scoring.groups import ClassGroups
from scoring.metadata import OperatingPoint
from tests.reference import group_of


def judged(scores: Sequence[float], predicted: Sequence[int] | None = None) -> Judged:
    classes = [0] * len(scores) if predicted is None else predicted
    return Judged(np.array(scores, np.float64), np.array(classes, np.int64))


def one_group(scores: Sequence[float]) -> ClassGroups:
    return ClassGroups(*judged(scores), 1, None)


def points(**alphas: float) -> list[OperatingPoint]:
    return [
        OperatingPoint(name=name, alpha=alpha, guarantee="marginal", delta=0.05, threshold=None)
        for name, alpha in alphas.items()
    ]


def test_reject_rates() -> None:
    """The share of images above the threshold, one that is on it not among them, at each operating point."""
    calibration = one_group(np.arange(1000.0).tolist())  # thresholds 900 and 950
    inside, outside = judged([899, 900, 901, 951]), {"far": judged([950.5, 2000])}
    first, second = reject_rates(points(a=0.1, b=0.05), calibration, inside, outside)
    assert (first.operating_point, first.alpha, first.realised, first.ood) == ("a", 0.1, 0.5, {"far": 1})
    assert (second.operating_point, second.alpha, second.realised, second.ood) == ("b", 0.05, 0.25, {"far": 1})
    assert second.interval == pytest.approx((0.039, 0.062), abs=5e-4)  # n = 1000, alpha = 5 %: as the documents say
    assert (first.alone, first.pooled) == (None, None)


def test_reject_rates_by_class() -> None:
    """Each image above the threshold of its predicted class; those that stand alone and the pooled ones are told apart.

    Class 0 has scores 0 .. 99, classes 1 and 2 share 100 .. 129.
    """
    groups = ClassGroups(*judged(range(130), [0] * 100 + [1] * 15 + [2] * 15), 3, 19)
    inside = judged([91, 90, 200, 0, 127, 126, 92, 127], [0, 0, 0, 0, 1, 2, 2, 2])  # thresholds 90, and 127
    (rate,) = reject_rates(points(a=0.1), groups, inside, {"far": judged([95, 95], [0, 1])})
    assert (rate.realised, rate.ood) == (0.25, {"far": 0.5})
    assert rate.alone is not None and rate.pooled is not None
    assert (rate.alone.images, rate.alone.realised) == (4, 0.5)
    assert (rate.pooled.images, rate.pooled.realised) == (4, 0)
    assert rate.alone.interval == pytest.approx(beta(10, 91).ppf([0.05, 0.95]))
    assert rate.pooled.interval == pytest.approx(beta(3, 28).ppf([0.05, 0.95]))
    drawn = np.random.default_rng(0).beta([10, 3], [91, 28], (100_000, 2)).mean(1)  # half of the images in each group
    assert rate.interval == pytest.approx(np.quantile(drawn, [0.05, 0.95]), rel=0.04)


def test_parts_without_images() -> None:
    """Of classes that no ID image is predicted as, nothing is told."""
    groups = ClassGroups(*judged(range(145), [0] * 100 + [1] * 30 + [2] * 15), 3, 40)
    (rate,) = reject_rates(points(a=0.1), groups, judged([1, 2], [0, 0]), {})
    assert (rate.alone.images if rate.alone else 0, rate.pooled) == (2, None)
    (rate,) = reject_rates(points(a=0.1), groups, judged([1, 2], [1, 1]), {})
    assert (rate.alone, rate.pooled.images if rate.pooled else 0) == (None, 2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("least", [None, 39])
def test_reliability(seed: int, least: int | None) -> None:
    """At each rate the realised share is that of images whose p-value, counted in a loop, is at most the rate."""
    generator = np.random.default_rng(seed)
    calibration = judged(generator.normal(size=250).round(2).tolist(), generator.integers(0, 4, 250).tolist())
    inside = judged(generator.normal(size=90).round(2).tolist(), generator.integers(0, 4, 90).tolist())
    rows = reliability(ClassGroups(*calibration, 4, least), inside)
    images = list(zip(*(column.tolist() for column in calibration), strict=True))
    smallest = min(len(group_of(0, c, images, 251 if least is None else least)) for c in range(4))
    assert [row.alpha for row in rows] == [alpha for alpha in ALPHAS if alpha * smallest >= 1]
    for row in rows:
        rejected = []
        for score, predicted in zip(*(column.tolist() for column in inside), strict=True):
            group = group_of(score, predicted, images, 251 if least is None else least)
            rejected.append(sum(each >= score for each in group) / len(group) <= row.alpha)
        assert row.realised == np.mean(rejected)
        assert row.realised_interval[0] <= row.interval[0] < row.interval[1] <= row.realised_interval[1] + 1 / 90


def test_too_few_images() -> None:
    """A rate that so few calibration images cannot keep has no row."""
    found = [row.alpha for row in reliability(one_group(range(19)), judged(range(5)))]
    assert found == [alpha for alpha in ALPHAS if alpha >= 0.05]
    assert reliability(one_group([1]), judged([1]))[0].alpha == 0.5
    assert reliability(one_group([]), judged([1])) == []


def test_realised_interval() -> None:
    """The light band holds 90 % of shares that are simulated: a true rate from its Beta law, then the images."""
    (row,) = [row for row in reliability(one_group(range(200)), judged(range(80))) if row.alpha == 0.1]
    generator = np.random.default_rng(0)
    rates = beta(20, 181).rvs(40_000, random_state=generator)
    shares = generator.binomial(80, rates) / 80
    low, high = row.realised_interval
    within = np.mean((shares >= low) & (shares <= high))
    tight = np.mean((shares > low) & (shares < high))
    error = 4 * math.sqrt(0.9 * 0.1 / 40_000)
    assert tight - error <= 0.9 <= within + error
