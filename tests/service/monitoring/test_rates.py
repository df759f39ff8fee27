"""The law of the reject rate against scipy's own distributions and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, betabinom, binom, binomtest, norm

from scoring import conformal
from scoring.conformal import Guarantee
from scoring.groups import ClassGroups
from scoring.metadata import OperatingPoint
from service.monitoring.evidence import Evidence
from service.monitoring.mixed_law import MixedLaw, law_of
from service.monitoring.rates import COUNTED, RejectLaw

CHANCE = 1e-3  # of a right program failing one of the simulations


@pytest.mark.parametrize("count", [59, 200, 1000, 5000])
@pytest.mark.parametrize("delta", [0.05, 0.005])
def test_bound_is_clopper_and_pearsons(count: int, delta: float) -> None:
    """For the l - 1 of n calibration scores that lie above the threshold."""
    law = RejectLaw(conformal.rank(count, 0.05), count)
    exact = binomtest(law.rank - 1, count, alternative="less").proportion_ci(1 - delta, method="exact")
    assert law.bound(delta) == pytest.approx(exact.high, rel=1e-9)


def test_bound_of_a_pac_threshold_is_within_alpha() -> None:
    """What `pac` promises with the same delta; one rank more would not."""
    point = OperatingPoint(name="a", alpha=0.05, guarantee="pac", delta=0.02, threshold=0.0)
    law = RejectLaw.of(point, 1000)
    assert law.bound(0.02) <= 0.05 < RejectLaw(law.rank + 1, 1000).bound(0.02)


def test_expected_is_what_calibration_sets_realise_in_the_mean() -> None:
    """The rank over n + 1, under either guarantee."""
    point = OperatingPoint(name="a", alpha=0.05, guarantee="marginal", delta=0.05, threshold=0.0)
    assert RejectLaw.of(point, 1000).expected == 50 / 1001
    scores = np.sort(np.random.default_rng(0).random((4000, 199)), axis=1)
    realised = 1 - scores[:, -RejectLaw.of(point, 199).rank]
    assert realised.mean() == pytest.approx(RejectLaw.of(point, 199).expected, abs=4 * realised.std() / 4000**0.5)


@pytest.mark.parametrize(("rank", "count"), [(1, 19), (5, 499), (25, 499), (50, 1000), (250, 5000), (900, 1000)])
@pytest.mark.parametrize("images", [1, 7, 100, 1000, 20_000])
def test_interval_is_that_of_the_beta_binomial_law(rank: int, count: int, images: int) -> None:
    """Its quantiles, as scipy has them by adding up all counts; of many images within a count."""
    law = betabinom(images, rank, count + 1 - rank)
    wanted = [float(law.ppf(tail)) / images for tail in (0.025, 0.975)]
    assert RejectLaw(rank, count).interval(images) == pytest.approx(
        wanted, abs=1e-12 if images <= COUNTED else 1 / images
    )


@pytest.mark.parametrize("images", [50, 1000])
def test_windows_fall_into_their_interval(images: int) -> None:
    """Of a calibration set and a window drawn together; an interval that forgets the calibration is too narrow."""
    random, law, draws = np.random.default_rng(images), RejectLaw(25, 499), 20_000
    rates = 1 - np.sort(random.random((draws, 499)), axis=1)[:, -25]
    shares = random.binomial(images, rates) / images
    low, high = law.interval(images)
    missed = int(((shares < low) | (shares > high)).sum())
    assert missed <= binom.ppf(1 - CHANCE, draws, 0.05)
    if images == 1000:  # where both uncertainties weigh
        naive = binom(images, law.expected).ppf([0.025, 0.975]) / images
        assert ((shares < naive[0]) | (shares > naive[1])).sum() > binom.ppf(1 - CHANCE, draws, 0.05)


GROUPS = MixedLaw(np.array([2, 5, 40]), np.array([39, 99, 800]), np.array([0.1, 0.2, 0.7]))


MANY = MixedLaw(np.full(1000, 2), np.full(1000, 45), np.full(1000, 1e-3))
MOSTLY = MixedLaw(np.array([18, 18]), np.array([20, 20]), np.array([0.5, 0.5]))  # rejected, at an alpha of 0.9


def rates_of(law: MixedLaw, random: np.random.Generator, draws: int) -> np.ndarray:
    """Of each group, for as many calibration sets: the share of fresh images above the threshold of ranks."""
    sizes = zip(law.ranks.tolist(), law.sizes.tolist(), strict=True)
    return np.array([random.beta(rank, size + 1 - rank, draws) for rank, size in sizes])


@pytest.mark.parametrize("law", [GROUPS, MANY, MOSTLY, MixedLaw(np.array([9]), np.array([10]), np.ones(1))])
def test_several_groups_exceed_their_bound_less_often_than_promised(law: MixedLaw) -> None:
    """Over calibration sets, by either of two bounds; and the lesser is at most twice as far out as an exact one."""
    random, draws, delta = np.random.default_rng(0), 20_000, 0.05
    rates = (law.shares[:, None] * rates_of(law, random, draws)).sum(0)
    for bound in (law.bernstein(delta), law.bonferroni(delta)):
        assert (rates > bound).sum() <= binom.ppf(1 - CHANCE, draws, delta)
    assert law.bound(delta) - law.expected < 2 * (np.quantile(rates, 1 - delta) - law.expected)


@pytest.mark.parametrize("rank", [1, 2, 7, 50, 500])
def test_the_inequality_behind_the_bound(rank: int) -> None:
    """One Beta exceeds what Bernstein's inequality allows it no more often than that, as its own tail says."""
    law = MixedLaw(np.array([rank]), np.array([1000]), np.ones(1))
    for delta in (0.5, 0.1, 1e-2, 1e-4, 1e-8):
        assert beta.sf(law.bernstein(delta), rank, 1001 - rank) <= delta


@pytest.mark.parametrize("guarantee", ["marginal", "pac"])
@pytest.mark.parametrize("alpha", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("least", [None, 10])
@pytest.mark.parametrize("delta", [0.05, 0.0025, 1e-9])
def test_a_bound_is_a_rate_that_can_be_bet_against(
    guarantee: Guarantee, alpha: float, least: int | None, delta: float
) -> None:
    """Below 1 with few images and a large alpha, too, for one threshold and for several: evidence begins at nothing."""
    point = OperatingPoint(name="a", alpha=alpha, guarantee=guarantee, delta=0.05, threshold=None)
    law = law_of(point, ClassGroups(np.arange(40.0), np.arange(40) % 2, 2, least))
    assert isinstance(law, RejectLaw if least is None else MixedLaw)
    assert law.expected < law.bound(delta) < 1
    assert Evidence(law.bound(delta), delta).log_value == pytest.approx(0)


def test_calibrations_by_class_keep_the_bound() -> None:
    """Drawn as they are in the field: classes that are rare, hard, pooled; the true rate against the bound of each."""
    random, delta, exceeded, sets = np.random.default_rng(1), 0.05, 0, 400
    point = OperatingPoint(name="a", alpha=0.1, guarantee="marginal", delta=0.05, threshold=None)
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.06, 0.03, 0.01])
    middles = np.array([0.0, 0.2, -0.3, 1.0, 0.5, 2.0, 4.0])  # the rarest are the hardest
    for _ in range(sets):
        predicted = random.choice(len(shares), 300, p=shares)
        groups = ClassGroups(random.normal(middles[predicted]), predicted, len(shares), 19)
        rate = float((shares * norm.sf(point.thresholds_of(groups), middles)).sum())
        exceeded += rate > law_of(point, groups).bound(delta)
    assert exceeded <= binom.ppf(1 - CHANCE, sets, delta)


@pytest.mark.parametrize("images", [50, 1000])
def test_windows_of_several_groups_fall_into_their_interval(images: int) -> None:
    """Of a calibration set and a window drawn together, each image into a group by the shares."""
    random, draws = np.random.default_rng(images), 20_000
    rates = (GROUPS.shares[:, None] * rates_of(GROUPS, random, draws)).sum(0)
    shares = random.binomial(images, rates) / images
    assert shares.mean() == pytest.approx(GROUPS.expected, abs=4 * shares.std() / draws**0.5)
    low, high = GROUPS.interval(images)
    missed = ((shares < low) | (shares > high)).mean()
    assert 0.01 < missed < 0.06


def test_one_group_is_the_plain_law() -> None:
    """And several are not: the ranks and sizes are those of the groups."""
    scores, predicted = np.arange(200.0), np.arange(200) % 4 // 3  # three quarters are class 0
    point = OperatingPoint(name="a", alpha=0.05, guarantee="marginal", delta=0.05, threshold=None)
    assert law_of(point, ClassGroups(scores, predicted, 2, None)) == RejectLaw(10, 200)
    law = law_of(point, ClassGroups(scores, predicted, 2, 40))
    assert isinstance(law, MixedLaw)
    assert sorted(zip(law.ranks, law.sizes, law.shares, strict=True)) == [(2, 50, 0.25), (7, 150, 0.75)]
