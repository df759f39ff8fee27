"""The reject flag and what it guarantees.

Calibration scores s_1..s_n come from held-out in-distribution images. With higher = more out-of-distribution

    p(x) = (1 + #{i: s_i >= s(x)}) / (n + 1),      reject iff p <= alpha,      so P(reject | ID) <= alpha.

As a threshold: the l-th largest calibration score, l = floor(alpha (n + 1)), and reject iff ood_score > threshold.
Given one calibration set the realised rate is Beta(l, n + 1 - l). (Vovk 2012; Bates et al. 2021, arXiv 2104.08279.)
The guarantee is about ID images wrongly rejected, never about how many OOD images are found.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from scoring.errors import TooFewImagesError

FloatArray = npt.NDArray[np.float64]


def rank(count: int, alpha: float) -> int:
    """The largest l with l / (n + 1) <= alpha, for n = count calibration scores."""
    below = math.floor(Fraction(alpha) * (count + 1))
    # 0.29 is stored as a little less, yet the p-value 29 / 100 is not above it: p-values decide.
    return below + ((below + 1) / (count + 1) <= alpha)


def images_needed(alpha: float) -> int:
    """The smallest number of calibration images with which anything may be rejected at `alpha`."""
    guess = max(math.ceil(1 / Fraction(alpha)) - 2, 0)
    return next(count for count in range(guess, guess + 4) if rank(count, alpha) >= 1)


def threshold(calibration_scores: FloatArray, alpha: float) -> float:
    """The l-th largest calibration score, above which an image is rejected.

    Raises:
        TooFewImagesError: l = 0; says how many images are needed.
    """
    count = len(calibration_scores)
    place = rank(count, alpha)
    if place < 1:
        raise TooFewImagesError(alpha, count, images_needed(alpha))
    return float(np.partition(calibration_scores, count - place)[count - place])


def p_values(scores: FloatArray, sorted_calibration_scores: FloatArray) -> FloatArray:
    """Share of calibration scores, the image's own included, that are at least as far out."""
    count = len(sorted_calibration_scores)
    below = sorted_calibration_scores.searchsorted(scores, side="left")
    found: FloatArray = (1 + count - below) / (count + 1)
    return found


def reject_rate_interval(count: int, alpha: float, level: float = 0.9) -> tuple[float, float]:
    """Central interval of the realised false-reject rate over the draw of the calibration set."""
    place = rank(count, alpha)
    tail = (1 - level) / 2
    law = beta(place, count + 1 - place)
    return float(law.ppf(tail)), float(law.ppf(1 - tail))
