"""The reject flag: exact ranks, the two ways to decide, and the guarantee by simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import conformal
from scoring.errors import TooFewImagesError
from tests import reference

ALPHAS = ("0.001", "0.005", "0.01", "0.02", "0.025", "0.03", "0.05", "0.07", "0.1", "0.15", "0.29", "0.3", "0.5", "0.9")
COUNTS = [*range(400), 499, 500, 999, 1000, 1999, 4999, 5000, 9999, 10_000, 49_999, 99_999, 999_999, 1_281_166]


def exact_rank(count: int, alpha: str) -> int:
    """The largest l with l / (n + 1) <= alpha, in rational arithmetic."""
    return math.floor(Fraction(alpha) * (count + 1))


class TestRank:
    @pytest.mark.parametrize("alpha", ALPHAS)
    def test_is_exact(self, alpha: str) -> None:
        """It is the rank of the decimal number that was typed, for every size of calibration set."""
        assert [conformal.rank(n, float(alpha)) for n in COUNTS] == [exact_rank(n, alpha) for n in COUNTS]

    @given(count=st.integers(0, 10**7), numerator=st.integers(1, 9999))
    def test_is_exact_for_any_decimal(self, count: int, numerator: int) -> None:
        """Likewise for all rates of four decimals."""
        assert conformal.rank(count, numerator / 10_000) == exact_rank(count, f"{numerator / 10_000:.4f}")

    def test_where_plain_arithmetic_fails(self) -> None:
        """0.29 * 100 is 28.999... in floating point; the rank is 29."""
        assert math.floor(0.29 * 100) == 28
        assert conformal.rank(99, 0.29) == 29


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

    @pytest.mark.parametrize("alpha", [1e-12, 1e-17, 1e-300, 5e-324])
    def test_of_a_rate_next_to_nothing_is_a_number(self, alpha: float) -> None:
        """However small the rate, the answer is a count, so that the refusal can name it."""
        assert conformal.images_needed(alpha) >= 10**11


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


class TestGuarantee:
    @pytest.mark.parametrize(("count", "alpha"), [(19, 0.05), (50, 0.05), (99, 0.1), (7, 0.3)])
    def test_id_images_are_rejected_at_most_at_alpha(self, count: int, alpha: float) -> None:
        """Over calibration sets and images together the rate is l / (n + 1), which is at most alpha."""
        random = np.random.default_rng(1)
        draws = 20_000
        rejected = sum(
            int(image > conformal.threshold(scores, alpha))
            for scores, image in zip(random.normal(size=(draws, count)), random.normal(size=draws), strict=True)
        )
        wanted = exact_rank(count, str(alpha)) / (count + 1)
        deviation = math.sqrt(wanted * (1 - wanted) / draws)
        assert wanted <= alpha
        assert abs(rejected / draws - wanted) < 4 * deviation

    @pytest.mark.parametrize(("count", "alpha", "level"), [(200, 0.05, 0.9), (1000, 0.05, 0.9), (100, 0.1, 0.5)])
    def test_realised_rate_falls_into_its_interval(self, count: int, alpha: float, level: float) -> None:
        """The rate given one calibration set lies in the interval as often as promised, and misses both sides alike."""
        random = np.random.default_rng(2)
        draws = 4000
        # Scores uniform on 0..1: the realised rate of a threshold t is exactly 1 - t.
        rates = np.array([1 - conformal.threshold(scores, alpha) for scores in random.random((draws, count))])
        low, high = conformal.reject_rate_interval(count, alpha, level)
        tail = (1 - level) / 2
        deviation = math.sqrt(tail * (1 - tail) / draws)
        assert abs((rates < low).mean() - tail) < 4 * deviation
        assert abs((rates > high).mean() - tail) < 4 * deviation

    def test_interval_in_closed_form(self) -> None:
        """Of 19 images the threshold is the largest score: the rate stays below x with probability 1 - (1 - x)^19."""
        found = conformal.reject_rate_interval(19, 0.05, level=0.8)
        assert found == pytest.approx((1 - 0.9 ** (1 / 19), 1 - 0.1 ** (1 / 19)), rel=1e-9)

    def test_interval_of_the_documented_example(self) -> None:
        """A thousand images at 5 %: 3.9 to 6.2 % in 90 % of cases."""
        low, high = conformal.reject_rate_interval(1000, 0.05)
        assert (round(low, 3), round(high, 3)) == (0.039, 0.062)
