"""The reject flag and what it guarantees.

Calibration scores s_1..s_n come from held-out in-distribution images. With higher = more out-of-distribution

    p(x) = (1 + #{i: s_i >= s(x)}) / (n + 1)
    threshold = the l-th largest calibration score,    reject iff ood_score > threshold, that is iff p <= l / (n + 1)

    marginal    l = floor(alpha (n + 1)), so reject iff p <= alpha:    P(reject | ID) <= alpha
    pac         l = the largest with P(Beta(l, n + 1 - l) <= alpha) >= 1 - delta:
                with probability 1 - delta over the draw of the calibration set, the realised rate is <= alpha

Given one calibration set the realised rate is Beta(l, n + 1 - l), and with ties it is stochastically less; it averages
l / (n + 1). (Vovk 2012, arXiv 1209.2673; Bates et al. 2021, arXiv 2104.08279.)
The guarantee is about ID images wrongly rejected, never about how many OOD images are found.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc
from scipy.stats import beta

from scoring.errors import TooFewImagesError

FloatArray = npt.NDArray[np.float64]
Guarantee = Literal["marginal", "pac"]
DELTA = 0.05  # share of calibration sets with which a PAC threshold may fail


def marginal_rank(count: int, alpha: float) -> int:
    """The largest l with l / (n + 1) <= alpha, for n = count calibration scores."""
    below = math.floor(Fraction(alpha) * (count + 1))
    # 0.29 is stored as a little less, yet the p-value 29 / 100 is not above it: p-values decide.
    return below + ((below + 1) / (count + 1) <= alpha)


def pac_rank(count: int, alpha: float, delta: float) -> int:
    """The largest l with P(Beta(l, n + 1 - l) > alpha) <= delta; 0 where there is none."""
    if count < images_needed(alpha, "pac", delta):
        return 0
    # The probability rises with l: halving finds the last l that keeps it, of a million images in twenty steps.
    places = range(1, count + 1)
    return max(1, bisect_right(places, delta, key=lambda place: float(betaincc(place, count + 1 - place, alpha))))


def rank(count: int, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA) -> int:
    """l, of which the l-th largest of `count` calibration scores is the threshold; 0: none can keep the promise."""
    return marginal_rank(count, alpha) if guarantee == "marginal" else pac_rank(count, alpha, delta)


def images_needed(alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA, *, place: int = 1) -> int:
    """The smallest number of calibration images with which the rank is `place`: with 1 anything may be rejected."""
    if place > 1:
        # The rank never falls with more images, and of `place` times as many it is `place`, or is a little later.
        counts = range(4 * place * images_needed(alpha, guarantee, delta))
        return bisect_left(counts, place, key=lambda count: rank(count, alpha, guarantee, delta))
    if guarantee == "pac":  # l = 1: the largest of n scores, and (1 - alpha)^n <= delta; fractions never overflow
        return math.ceil(Fraction(math.log(delta)) / Fraction(math.log1p(-alpha)))
    guess = max(math.ceil(1 / Fraction(alpha)) - 2, 0)
    return next(count for count in range(guess, guess + 4) if marginal_rank(count, alpha) >= 1)


def demand_rank(count: int, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA) -> int:
    """The rank, where there is one.

    Raises:
        TooFewImagesError: l = 0; says how many images are needed.
    """
    place = rank(count, alpha, guarantee, delta)
    if place < 1:
        needed = images_needed(alpha, guarantee, delta)
        raise TooFewImagesError(alpha, count, needed, None if guarantee == "marginal" else images_needed(alpha))
    return place


def threshold(
    calibration_scores: FloatArray, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA
) -> float:
    """The l-th largest calibration score, above which an image is rejected.

    Raises:
        TooFewImagesError: l = 0; says how many images are needed.
    """
    count = len(calibration_scores)
    place = count - demand_rank(count, alpha, guarantee, delta)
    return float(np.partition(calibration_scores, place)[place])


def p_values(scores: FloatArray, sorted_calibration_scores: FloatArray) -> FloatArray:
    """Share of calibration scores, the image's own included, that are at least as far out."""
    count = len(sorted_calibration_scores)
    below = sorted_calibration_scores.searchsorted(scores, side="left")
    found: FloatArray = (1 + count - below) / (count + 1)
    return found


def reject_rate_interval(
    count: int, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA, *, level: float = 0.9
) -> tuple[float, float]:
    """Central interval of the realised false-reject rate over the draw of the calibration set.

    Raises:
        TooFewImagesError: there is no threshold.
    """
    place = demand_rank(count, alpha, guarantee, delta)
    tail = (1 - level) / 2
    law = beta(place, count + 1 - place)
    return float(law.ppf(tail)), float(law.ppf(1 - tail))
