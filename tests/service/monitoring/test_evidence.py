"""The bet against drift: a supermartingale to the last digit, and alarms no more often than promised.

The simulations draw streams that are long beside the delays at which a drift is seen. A bound that just holds is
missed by chance in one test of a thousand (CHANCE).
"""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks.drift import NEVER, first_alarms
from scoring import conformal
from service.monitoring.evidence import LOG_ODDS_RATIOS, STAKE_EVERY, Evidence
from service.monitoring.rates import RejectLaw

CHANCE = 1e-3
LEVEL = 0.05  # a; larger than in service, so that a bound that does not hold is seen

bounds = st.floats(1e-4, 0.9)
histories = st.lists(st.booleans(), max_size=100)


def wealth(rejects: list[bool], bound: float) -> float:
    """M by its definition, every stake followed by itself from the image before which it was made."""
    value = 1 / (1 + math.log(2 + len(rejects) // STAKE_EVERY))
    for stake in range(1 + len(rejects) // STAKE_EVERY):
        amount = 1 / (1 + math.log(1 + stake)) - 1 / (1 + math.log(2 + stake))
        for ratio in LOG_ODDS_RATIOS:
            odds = bound / (1 - bound) * math.exp(ratio)
            p, own = odds / (1 + odds), amount / len(LOG_ODDS_RATIOS)
            for rejected in rejects[stake * STAKE_EVERY :]:
                own *= p / bound if rejected else (1 - p) / (1 - bound)
            value += own
    return value


def after(rejects: list[bool], bound: float, level: float = LEVEL) -> Evidence:
    evidence = Evidence(bound, level)
    for rejected in rejects:
        evidence.observe(rejected)
    return evidence


@given(bounds, histories)
def test_value_is_the_definitions(bound: float, rejects: list[bool]) -> None:
    """Log space, stakes and images that are applied later change nothing."""
    assert after(rejects, bound).log_value == pytest.approx(math.log(wealth(rejects, bound)), abs=1e-9)


@given(bounds, histories, st.floats(0, 1))
def test_no_image_is_worth_anything_in_the_mean(bound: float, rejects: list[bool], share: float) -> None:
    """Whatever came before: at the bound the mean of the next value is this one, at lower rates it is no more."""
    now = after(rejects, bound)
    either = []
    for rejected in (False, True):
        then = copy.deepcopy(now)
        then.observe(rejected)
        either.append(math.exp(then.log_value - now.log_value))
    rate = share * bound
    assert (1 - bound) * either[0] + bound * either[1] == pytest.approx(1, abs=1e-9)
    assert (1 - rate) * either[0] + rate * either[1] <= 1 + 1e-9
    assert either[0] < 1 < either[1]  # so that only a rejected image can raise the alarm


@pytest.mark.parametrize("level", [0.5, 0.2])
def test_alarms_over_all_streams_there_are(level: float) -> None:
    """Of every sequence of 12 images, weighed with its probability at the bound, at most `level` alarm, and some do."""
    bound = 0.2
    total = 0.0
    for rejects in itertools.product([False, True], repeat=12):
        evidence = after(list(rejects), bound, level)
        total += evidence.is_alarmed * math.prod([bound if rejected else 1 - bound for rejected in rejects])
    assert 0 < total <= level


def test_alarm_is_raised_once_and_stays() -> None:
    """`observe` says it of one image, the first at which the evidence is enough; no image afterwards takes it back."""
    evidence = Evidence(0.05, LEVEL)
    raised = [index for index in range(100) if evidence.observe(True)]
    path = [math.log(wealth([True] * images, 0.05)) for images in range(1, 8)]
    assert raised == [next(index for index, value in enumerate(path) if value >= math.log(1 / LEVEL))]
    for _ in range(3000):
        assert not evidence.observe(False)
    assert evidence.log_value < 0
    assert evidence.is_alarmed


def test_simulation_is_the_programs() -> None:
    """The streams of the benchmark raise their alarm at the image at which `Evidence` raises it."""
    rates = np.full(20, 0.09)
    found = first_alarms(rates, 3000, 0.05, LEVEL, np.random.default_rng(3))
    random = np.random.default_rng(3)
    rejected = np.stack([random.random(20) < rates for _ in range(3000)])
    for stream, image in enumerate(found):
        evidence = Evidence(0.05, LEVEL)
        raised = [index + 1 for index in range(3000) if evidence.observe(bool(rejected[index, stream]))]
        assert raised == ([] if image == NEVER else [image])
    assert (found < NEVER).sum() > 0


def at_most(found: np.ndarray, chance: float) -> bool:
    """Whether so many alarms fit to a probability of `chance`."""
    return bool((found < NEVER).sum() <= binom.ppf(1 - CHANCE, len(found), chance))


class TestFalseAlarms:
    def test_at_the_worst_rate(self) -> None:
        """2000 streams of 50 000 images, all at the very bound: at most a of them alarm; and some do."""
        found = first_alarms(np.full(2000, 0.06), 50_000, 0.06, LEVEL, np.random.default_rng(0))
        assert at_most(found, LEVEL)
        assert (found < NEVER).mean() > LEVEL / 5

    def test_given_the_worst_calibration_sets(self) -> None:
        """Of sets that keep their bound, the 5 % with the highest rates: their streams, too, alarm in at most a."""
        law, delta = RejectLaw(10, 199), 0.02
        sets = np.sort(np.random.default_rng(1).beta(10, 190, 40_000))
        kept = sets[sets <= law.bound(delta)]
        worst = kept[-len(kept) // 20 :]
        found = first_alarms(worst, 10_000, law.bound(delta), LEVEL, np.random.default_rng(2))
        assert at_most(found, LEVEL)

    def test_over_calibration_sets(self) -> None:
        """A calibration set and a stream drawn together: at most a + delta."""
        law, delta = RejectLaw(10, 199), 0.02
        sets = np.sort(np.random.default_rng(4).random((2000, 199)), axis=1)
        rates = 1 - sets[:, -10]
        found = first_alarms(rates, 20_000, law.bound(delta), LEVEL, np.random.default_rng(5))
        assert at_most(found, LEVEL + delta)

    def test_the_mean_rate_is_no_bound(self) -> None:
        """Betting against l / (n + 1) instead of the PAC bound breaks the promise: half of the sets are worse."""
        law = RejectLaw(10, 199)
        rates = np.random.default_rng(6).beta(10, 190, 500)
        found = first_alarms(rates, 20_000, law.expected, LEVEL, np.random.default_rng(7))
        assert not at_most(found, LEVEL + 0.02)

    def test_rates_that_change_below_the_bound(self) -> None:
        """A stream may be as restless as it likes: day and night, at most the bound, never cost more than a."""
        rates = np.where(np.arange(20_000)[:, None] // 500 % 2, 0.0, 0.06) * np.ones(1000)
        assert at_most(first_alarms(rates, 20_000, 0.06, LEVEL, np.random.default_rng(8)), LEVEL)


class TestDelay:
    def test_a_doubled_rate_is_seen(self) -> None:
        """With 1000 calibration images at 5 %: half of the streams within 1500 images, nine tenths within 2500."""
        law = RejectLaw(conformal.rank(1000, 0.05), 1000)
        found = first_alarms(np.full(400, 2 * law.expected), 3000, law.bound(0.005), 0.005, np.random.default_rng(9))
        assert np.quantile(found, 0.5, method="higher") < 1500
        assert np.quantile(found, 0.9, method="higher") < 2500

    def test_a_hundred_million_quiet_images_do_not_make_it_blind(self) -> None:
        """What was staked on them is lost, but what is staked now is won back within thousands of images."""
        law = RejectLaw(conformal.rank(1000, 0.05), 1000)
        evidence = quiet(law.bound(0.005), 10**8, 20_000, law.expected)
        assert evidence.log_value == pytest.approx(-2.8, abs=0.3)  # the reserve: log of 1 / (1 + log(1 + 10^8 / 32))
        random = np.random.default_rng(11)
        raised = [index for index in range(8000) if evidence.observe(random.random() < 2 * law.expected)]
        assert 1000 < raised[0] < 8000

    def test_a_hundred_million_rejected_images_overflow_nothing(self) -> None:
        """Evidence is a logarithm: it grows by what an image is worth, and no further."""
        evidence = quiet(0.05, 10**8, 0, 0)
        evidence.capital = [2.99 * evidence.images] * len(LOG_ODDS_RATIOS)
        before = evidence.log_value
        for _ in range(10 * STAKE_EVERY):
            evidence.observe(True)
        odds = 0.05 / 0.95 * math.exp(LOG_ODDS_RATIOS[-1])
        assert evidence.log_value - before == pytest.approx(
            10 * STAKE_EVERY * math.log(odds / (1 + odds) / 0.05) - math.log(len(LOG_ODDS_RATIOS)), rel=1e-6
        )


def quiet(bound: float, seen: int, images: int, rate: float) -> Evidence:
    """Evidence whose stakes go on after `seen` images, all earlier ones lost, and which then sees `images` more."""
    evidence, random = Evidence(bound, 0.005), np.random.default_rng(10)
    evidence.images = seen
    evidence.capital = [-1000.0] * len(LOG_ODDS_RATIOS)
    for _ in range(images):
        evidence.observe(random.random() < rate)
    return evidence
