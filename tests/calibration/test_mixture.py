"""Intervals of the realised rate of several groups, against whole calibrations that are simulated score by score."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta, betabinom

from calibration.mixture import Mixture
from scoring.groups import ClassGroups

Array = npt.NDArray[np.float64]
COUNTS = (20, 60, 400)  # calibration images predicted as each class
IMAGES = (500, 30, 100)  # to come
ALPHA = 0.1


def groups_of(counts: tuple[int, ...]) -> ClassGroups:
    """Every class alone."""
    predicted = np.repeat(np.arange(len(counts)), counts)
    return ClassGroups(np.random.default_rng(0).random(len(predicted)), predicted, len(counts), 19)


def mixture(counts: tuple[int, ...] = COUNTS, images: tuple[int, ...] = IMAGES) -> Mixture:
    groups = groups_of(counts)
    return Mixture.of(groups, groups.ranks(ALPHA), np.array(images))


def simulated_rates(draws: int) -> Array:
    """The rate of each class under calibrations of uniform scores: what is above the l-th largest; none is a Beta."""
    random, found = np.random.default_rng(5), []
    for count in COUNTS:
        place = next(n for n in range(count, -1, -1) if n / (count + 1) <= ALPHA)
        found.append(1 - np.sort(random.random((draws, count)), 1)[:, count - place])
    return np.stack(found, 1)  # (draws, K)


def test_rate_interval() -> None:
    """It holds 90 % of simulated rates, and misses as many at either end."""
    rates = simulated_rates(20_000) @ np.array(IMAGES) / sum(IMAGES)
    low, high = mixture().rate_interval()
    assert np.mean(rates < low) == pytest.approx(0.05, abs=0.012)  # three standard errors of 4000 draws, and of these
    assert np.mean(rates > high) == pytest.approx(0.05, abs=0.012)
    matched = beta(*_matched(rates)).ppf(0.05)
    assert np.mean(rates < matched) < 0.035  # a Beta of the same mean and variance would not do


def test_share_interval() -> None:
    """It holds 90 % of the shares of images that are rejected one by one, and little more: shares are few numbers."""
    random, rates = np.random.default_rng(6), simulated_rates(20_000)
    shares = random.binomial(IMAGES, rates).sum(1) / sum(IMAGES)
    low, high = mixture().share_interval()
    assert np.mean(shares < low) == pytest.approx(0.05, abs=0.015)
    assert np.mean(shares > high) == pytest.approx(0.05, abs=0.015)
    assert low < mixture().rate_interval()[0]


@pytest.mark.parametrize("counts", [(1000,), (19,)])
def test_one_group_is_its_law(counts: tuple[int, ...]) -> None:
    """To the last digit, and not from draws."""
    place = int(ALPHA * (counts[0] + 1))
    one = mixture(counts, (80,))
    assert one.rate_interval() == pytest.approx(beta(place, counts[0] + 1 - place).ppf([0.05, 0.95]), rel=1e-12)
    law = betabinom(80, place, counts[0] + 1 - place)
    assert one.share_interval() == pytest.approx(law.ppf([0.05, 0.95]) / 80, rel=1e-12)


def test_groups_without_images_do_not_count() -> None:
    """Where all images fall into one of the groups, the rate is that of this group."""
    assert mixture(images=(0, 70, 0)).rate_interval() == mixture((60,), (70,)).rate_interval()


def test_pooled_classes_are_one_group() -> None:
    """Classes that share a threshold share its draw: two of them are as uncertain as one of their size."""
    predicted = np.repeat([0, 1, 2], [300, 18, 18])
    groups = ClassGroups(np.random.default_rng(0).random(336), predicted, 3, 19)
    found = Mixture.of(groups, groups.ranks(ALPHA), np.array([0, 40, 2])).rate_interval()
    assert found == pytest.approx(beta(3, 34).ppf([0.05, 0.95]), rel=1e-12)


def test_is_the_same_again() -> None:
    """The draws are seeded: a report of the same artifact says the same."""
    assert mixture().rate_interval() == mixture().rate_interval()
    assert mixture().share_interval() == mixture().share_interval()


def test_a_thousand_classes_take_a_second() -> None:
    """No more than a few, on a slow machine."""
    many = mixture((40,) * 1000, (10,) * 1000)
    started = time.monotonic()
    low, high = many.rate_interval()
    assert time.monotonic() - started < 5
    assert 4 / 41 - 0.004 < low < 4 / 41 < high < 4 / 41 + 0.004


def _matched(rates: Array) -> tuple[float, float]:
    mean, variance = rates.mean(), rates.var()
    total = mean * (1 - mean) / variance - 1
    return float(mean * total), float((1 - mean) * total)
