"""Bins, groups and the index over them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.monitoring.neighbourhoods import GROUPS, Neighbourhoods
from service.monitoring.psi import Shift
from service.monitoring.score_bins import ScoreBins

THRESHOLDS = {"strict": np.array([11.0, 7.5]), "default": np.array([8.0, 7.0])}  # of two classes


def test_psi_is_the_formulas() -> None:
    """A case by hand: half an image more in every bin."""
    shift = Shift.between(np.array([9, 0]), np.array([4, 5]))
    own, other = (0.95, 0.05), (0.45, 0.55)
    wanted = sum((a - e) * math.log(a / e) for a, e in zip(own, other, strict=True))
    assert shift.noise == pytest.approx(1 / 9 + 1 / 9)
    assert shift.psi + shift.noise == pytest.approx(wanted)


@pytest.mark.parametrize("images", [500, 1000, 10_000])
def test_psi_without_shift_is_zero_in_the_mean(images: int) -> None:
    """And as wide as the chi-square law says."""
    random, calibration = np.random.default_rng(images), 500
    shares = np.full(10, 0.1)
    found = [
        Shift.between(random.multinomial(images, shares), random.multinomial(calibration, shares)) for _ in range(4000)
    ]
    values, noise = np.array([shift.psi for shift in found]), found[0].noise
    assert noise == pytest.approx(9 / images + 9 / calibration)
    assert abs(values.mean()) < 0.05 * noise
    assert values.std() == pytest.approx(noise * (2 / 9) ** 0.5, rel=0.1)


def test_psi_sees_a_shift() -> None:
    """Scores half a standard deviation further out are above 0.1, a whole one above 0.25."""
    random = np.random.default_rng(0)
    bins = ScoreBins(np.sort(random.normal(size=2000)), {})

    def psi(shift: float) -> float:
        places = [bins.find(score, 0) for score in random.normal(shift, size=1000)]
        return Shift.between(bins.by_decile(np.bincount(places, minlength=bins.count)), bins.expected).psi

    assert psi(0) < 0.05
    assert 0.1 < psi(0.5) < psi(1)
    assert psi(1) > 0.25


IMAGES = st.lists(st.tuples(st.integers(-1, 13), st.integers(0, 1)), max_size=30)


@given(st.lists(st.integers(0, 12).map(float), min_size=30, max_size=60), IMAGES)
def test_bins_know_rejects_and_deciles(calibration: list[float], images: list[tuple[int, int]]) -> None:
    """Also with many equal scores: rejects are those above their class's threshold."""
    bins = ScoreBins(np.array(calibration), THRESHOLDS)
    counts = np.bincount([bins.find(*image) for image in images], minlength=bins.count)
    for point, thresholds in THRESHOLDS.items():
        wanted = [score > thresholds[own] for score, own in images]
        assert bins.rejected(counts, point) == sum(wanted)
        assert [bins.find(*image) % bins.levels >= bins.level_of[point] for image in images] == wanted
    assert bins.by_decile(counts).sum() == len(images)
    assert bins.expected.sum() == len(calibration)
    assert bins.expected.min() > 0


def test_deciles_are_tenths_of_the_calibration() -> None:
    """Ten bins with a tenth of the images each, whatever thresholds lie between."""
    bins = ScoreBins(np.arange(200.0), {"a": np.array([190.0]), "b": np.array([45.5])})
    assert bins.expected.tolist() == [20] * 10


@example([1] * GROUPS + [0])
@given(st.lists(st.integers(0, 50), min_size=1, max_size=200).filter(any))
def test_groups_are_neighbours_with_even_shares(counts: list[int]) -> None:
    """At most GROUPS, in the order of the classes; no group of several classes has more than two even shares."""
    groups = Neighbourhoods(np.array(counts))
    assert groups.of == sorted(groups.of)
    assert set(groups.of) == set(range(groups.count))
    assert groups.count <= GROUPS
    for group in range(groups.count):
        own = [count for count, other in zip(counts, groups.of, strict=True) if other == group]
        assert groups.expected[group] == sum(own)
        assert sum(own) - max(own) <= sum(counts) / GROUPS + max(own)


def test_few_classes_stand_alone() -> None:
    """With as many images of each, up to GROUPS classes are told apart."""
    assert Neighbourhoods(np.full(GROUPS, 7)).of == list(range(GROUPS))
    assert Neighbourhoods(np.full(1000, 1)).expected.tolist() == [50] * GROUPS
