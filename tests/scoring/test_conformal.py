"""The reject flag: exact ranks, and the two ways to decide. Whether promises are kept: test_guarantees.py."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from scoring import conformal
from scoring.conformal import Guarantee
from scoring.errors import TooFewImagesError
from tests import reference

ALPHAS = ("0.001", "0.005", "0.01", "0.02", "0.025", "0.03", "0.05", "0.07", "0.1", "0.15", "0.29", "0.3", "0.5", "0.9")
COUNTS = [*range(400), 499, 500, 999, 1000, 1999, 4999, 5000, 9999, 10_000, 49_999, 99_999, 999_999, 1_281_166]


GUARANTEES: tuple[Guarantee, Guarantee] = ("marginal", "pac")
DELTAS = ("0.001", "0.05", "0.1", "0.25", "0.5")


def exact_rank(count: int, alpha: str) -> int:
    """The largest l with l / (n + 1) <= alpha, in rational arithmetic."""
    return math.floor(Fraction(alpha) * (count + 1))


def exact_pac_rank(count: int, alpha: str, delta: str) -> int:
    """The largest l with P(Binomial(n, alpha) < l) <= delta, summed in rational arithmetic."""
    chance, share = Fraction(0), Fraction(alpha)
    for place in range(count + 1):
        chance += math.comb(count, place) * share**place * (1 - share) ** (count - place)
        if chance > Fraction(delta):
            return place
    raise AssertionError("the chances of all ranks add up to 1")


class TestMarginalRank:
    @pytest.mark.parametrize("alpha", ALPHAS)
    def test_is_exact(self, alpha: str) -> None:
        """It is the rank of the decimal number that was typed, for every size of calibration set."""
        assert [conformal.marginal_rank(n, float(alpha)) for n in COUNTS] == [exact_rank(n, alpha) for n in COUNTS]

    @given(count=st.integers(0, 10**7), numerator=st.integers(1, 9999))
    def test_is_exact_for_any_decimal(self, count: int, numerator: int) -> None:
        """Likewise for all rates of four decimals."""
        assert conformal.marginal_rank(count, numerator / 10_000) == exact_rank(count, f"{numerator / 10_000:.4f}")

    def test_where_plain_arithmetic_fails(self) -> None:
        """0.29 * 100 is 28.999... in floating point; the rank is 29."""
        assert math.floor(0.29 * 100) == 28
        assert conformal.marginal_rank(99, 0.29) == 29


class TestPacRank:
    @pytest.mark.parametrize("delta", DELTAS)
    @pytest.mark.parametrize("alpha", ["0.01", "0.05", "0.1", "0.29", "0.5", "0.9"])
    def test_is_exact(self, alpha: str, delta: str) -> None:
        """It is the rank that rational arithmetic finds."""
        counts = [*range(40), 58, 59, 60, 100, 200, 299]
        found = [conformal.pac_rank(n, float(alpha), float(delta)) for n in counts]
        assert found == [exact_pac_rank(n, alpha, delta) for n in counts]

    @pytest.mark.parametrize(("count", "wanted"), [(58, 0), (59, 1), (1000, 39), (5000, 225)])
    def test_of_the_documented_examples(self, count: int, wanted: int) -> None:
        """At 5 % and 5 %."""
        assert conformal.pac_rank(count, 0.05, 0.05) == wanted

    @given(count=st.integers(1, 10**6), alpha=st.floats(1e-4, 0.999), delta=st.floats(1e-6, 0.5))
    def test_is_the_largest_that_keeps_the_promise(self, count: int, alpha: float, delta: float) -> None:
        """By the binomial law of how many scores lie above the true quantile: l fails at most at delta, l + 1 above."""
        place = conformal.pac_rank(count, alpha, delta)
        rounding = 1e-9 * delta
        assert place == 0 or binom.cdf(place - 1, count, alpha) <= delta + rounding
        assert place == count or binom.cdf(place, count, alpha) > delta - rounding


class TestRank:
    @given(count=st.integers(0, 10**5), alpha=st.floats(1e-4, 0.999), delta=st.floats(1e-6, 0.5))
    def test_is_that_of_the_guarantee(self, count: int, alpha: float, delta: float) -> None:
        """Each guarantee has its own; marginal is the default, for which delta is nothing."""
        assert conformal.rank(count, alpha) == conformal.marginal_rank(count, alpha)
        assert conformal.rank(count, alpha, "marginal", delta) == conformal.marginal_rank(count, alpha)
        assert conformal.rank(count, alpha, "pac", delta) == conformal.pac_rank(count, alpha, delta)


class TestImagesNeeded:
    @pytest.mark.parametrize("alpha", ALPHAS)
    def test_is_exact(self, alpha: str) -> None:
        """The smallest n with n + 1 >= 1 / alpha."""
        assert conformal.images_needed(float(alpha)) == math.ceil(1 / Fraction(alpha)) - 1

    @given(alpha=st.floats(1e-9, 1, exclude_max=True))
    def test_is_just_enough(self, alpha: float) -> None:
        """With that many a threshold can be given, with one less it cannot."""
        needed = conformal.images_needed(alpha)
        assert conformal.rank(needed, alpha) >= 1
        assert needed == 0 or conformal.rank(needed - 1, alpha) == 0

    @pytest.mark.parametrize(("alpha", "wanted"), [(0.05, 59), (0.01, 299), (0.1, 29), (0.5, 5)])
    def test_for_pac_is_exact(self, alpha: float, wanted: int) -> None:
        """The smallest n with (1 - alpha)^n <= 5 %: the largest of n scores is then a threshold, of n - 1 none is."""
        assert conformal.images_needed(alpha, "pac") == wanted
        assert (conformal.pac_rank(wanted - 1, alpha, 0.05), conformal.pac_rank(wanted, alpha, 0.05)) == (0, 1)

    @pytest.mark.parametrize("guarantee", GUARANTEES)
    @pytest.mark.parametrize("alpha", [1e-12, 1e-17, 1e-300, 5e-324])
    def test_of_a_rate_next_to_nothing_is_a_number(self, alpha: float, guarantee: Guarantee) -> None:
        """However small the rate, the answer is a count, so that the refusal can name it."""
        assert conformal.images_needed(alpha, guarantee) >= 10**11


class TestThreshold:
    def test_is_the_lth_largest(self) -> None:
        """Of 99 scores at 5 %: the fifth largest, in whatever order the scores come."""
        scores = np.random.default_rng(0).permutation(99).astype(np.float64)
        assert conformal.threshold(scores, 0.05) == 94

    def test_leaves_the_scores_as_they_are(self) -> None:
        """The caller's array is not reordered."""
        scores = np.random.default_rng(0).permutation(99).astype(np.float64)
        before = scores.copy()
        conformal.threshold(scores, 0.05)
        assert (scores == before).all()

    @pytest.mark.parametrize(("count", "alpha", "needed"), [(18, 0.05, 19), (0, 0.05, 19), (98, 0.01, 99), (1, 0.3, 3)])
    def test_refuses_too_few_images_and_says_how_many(self, count: int, alpha: float, needed: int) -> None:
        """The message and the error's fields carry rate, found and needed."""
        with pytest.raises(
            TooFewImagesError, match=rf"alpha = {alpha:g} needs at least {needed} .*found {count}: "
        ) as caught:
            conformal.threshold(np.arange(count, dtype=np.float64), alpha)
        assert (caught.value.alpha, caught.value.found, caught.value.needed) == (alpha, count, needed)
        conformal.threshold(np.arange(needed, dtype=np.float64), alpha)

    def test_of_pac_is_further_out(self) -> None:
        """Of 1000 scores at 5 %: the 39th largest, where the marginal one is the 50th."""
        scores = np.random.default_rng(0).permutation(1000).astype(np.float64)
        assert conformal.threshold(scores, 0.05, "pac", 0.05) == 1000 - 39
        assert conformal.threshold(scores, 0.05) == 1000 - 50

    def test_refuses_too_few_images_for_pac_and_names_the_other_guarantee(self) -> None:
        """How many are missing, and with how many the marginal guarantee would do."""
        wanted = (
            "at least 59 held-out images for PAC, found 40: give 19 more .*marginal guarantee, which needs 19 images"
        )
        with pytest.raises(TooFewImagesError, match=wanted) as caught:
            conformal.threshold(np.arange(40.0), 0.05, "pac")
        assert (caught.value.alpha, caught.value.found, caught.value.needed) == (0.05, 40, 59)

    @given(
        scores=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
        tested=st.integers(-4, 4),
        alpha=st.sampled_from([0.05, 0.1, 0.3, 0.5]),
    )
    def test_of_pac_decides_as_p_values_do(self, scores: list[int], tested: int, alpha: float) -> None:
        """`score > threshold` and `p <= l / (n + 1)` are the same decision, ties included; l / (n + 1) <= alpha."""
        calibration = np.sort(np.array(scores, dtype=np.float64))
        place = conformal.pac_rank(len(scores), alpha, 0.2)
        p = conformal.p_values(np.array([tested], dtype=np.float64), calibration)[0]
        if place:
            reject = tested > conformal.threshold(calibration, alpha, "pac", 0.2)
            assert reject == (p <= place / (len(scores) + 1))
            assert p <= alpha or not reject

    @given(
        scores=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
        tested=st.integers(-4, 4),
        alpha=st.sampled_from([float(alpha) for alpha in ALPHAS]),
    )
    def test_decides_as_p_values_do(self, scores: list[int], tested: int, alpha: float) -> None:
        """`score > threshold` and `p <= alpha` are the same decision, ties included."""
        calibration = np.sort(np.array(scores, dtype=np.float64))
        p = conformal.p_values(np.array([tested], dtype=np.float64), calibration)[0]
        if conformal.rank(len(scores), alpha) < 1:
            assert p > alpha  # no threshold, and no p-value either, can reject
        else:
            assert (tested > conformal.threshold(calibration, alpha)) == (p <= alpha)

    @pytest.mark.parametrize("alpha", [float(alpha) for alpha in ALPHAS])
    @pytest.mark.parametrize("count", [999, 1000, 1999])
    def test_decides_as_p_values_do_on_the_scores_themselves(self, count: int, alpha: float) -> None:
        """Each score, and the next number above it, is decided alike; exactly l - 1 of the scores are rejected."""
        calibration = np.sort(np.random.default_rng(count).normal(size=count))
        tested = np.concatenate([calibration, np.nextafter(calibration, np.inf)])
        reject = tested > conformal.threshold(calibration, alpha)
        assert (reject == (conformal.p_values(tested, calibration) <= alpha)).all()
        assert reject[:count].sum() == exact_rank(count, str(alpha)) - 1


class TestPValues:
    @given(
        scores=st.lists(st.integers(-3, 3), max_size=30),
        tested=st.lists(st.integers(-4, 4), min_size=1, max_size=5),
    )
    def test_equal_the_oracle(self, scores: list[int], tested: list[int]) -> None:
        """(1 + how many are at least as far out) / (n + 1), ties counted."""
        calibration = np.sort(np.array(scores, dtype=np.float64))
        found = conformal.p_values(np.array(tested, dtype=np.float64), calibration)
        assert found.tolist() == [reference.p_value(each, calibration.tolist()) for each in tested]

    def test_span_from_one_over_n_plus_one_to_one(self) -> None:
        """Further out than all calibration images: 1 / (n + 1), never 0; less far out than all: 1."""
        calibration = np.arange(9, dtype=np.float64)
        assert conformal.p_values(np.array([np.inf, 100.0, -1.0, -np.inf]), calibration).tolist() == [0.1, 0.1, 1, 1]


class TestRejectRateInterval:
    def test_in_closed_form(self) -> None:
        """Of 19 images the threshold is the largest score: the rate stays below x with probability 1 - (1 - x)^19."""
        found = conformal.reject_rate_interval(19, 0.05, level=0.8)
        assert found == pytest.approx((1 - 0.9 ** (1 / 19), 1 - 0.1 ** (1 / 19)), rel=1e-9)

    def test_of_the_documented_examples(self) -> None:
        """A thousand images at 5 %, 90 % of cases: marginal 3.9 to 6.2 %; PAC, with 5 % above, 2.9 to 5.0 %."""
        marginal, pac = (conformal.reject_rate_interval(1000, 0.05, guarantee) for guarantee in GUARANTEES)
        assert [round(100 * bound, 1) for bound in (*marginal, *pac)] == [3.9, 6.2, 2.9, 5.0]

    def test_is_refused_where_there_is_no_threshold(self) -> None:
        """No rate is realised by no flag."""
        with pytest.raises(TooFewImagesError):
            conformal.reject_rate_interval(58, 0.05, "pac")
