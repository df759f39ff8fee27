"""What became of the promised false-reject rate: at the operating points, and over all rates that could be promised.

With n calibration scores and l of them above the threshold, the true rate is Beta(l, n + 1 - l) over the draw of the
calibration set; the share of m fresh ID images that are rejected is BetaBinomial(m, l, n + 1 - l).
(Bates et al. 2021, arXiv 2104.08279.) Higher = more out-of-distribution; rejected is what is above the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import betabinom

from scoring import conformal
from scoring.conformal import FloatArray
from scoring.metadata import OperatingPoint

ALPHAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
LEVEL = 0.9


@dataclass(frozen=True)
class RejectRate:
    """What became of the promised false-reject rate on the ID images.

    Attributes:
        realised: share of ID images rejected.
        interval: 90 % interval of the true rate, over the draw of the calibration set.
        ood: share of images rejected, by OOD folder; nothing is promised of these.
    """

    operating_point: str
    alpha: float
    realised: float
    interval: tuple[float, float]
    ood: dict[str, float]


@dataclass(frozen=True)
class Reliability:
    """A rate that could have been promised, and what would have become of it.

    Attributes:
        alpha: target false-reject rate.
        realised: share of ID images above the threshold of `alpha`.
        interval: 90 % interval of the true rate, over the draw of the calibration set.
        realised_interval: 90 % interval of `realised`, over the draw of these ID images, too.
    """

    alpha: float
    realised: float
    interval: tuple[float, float]
    realised_interval: tuple[float, float]


def reject_rates(
    points: Sequence[OperatingPoint], calibration_images: int, inside: FloatArray, outside: Mapping[str, FloatArray]
) -> list[RejectRate]:
    """A row for each operating point, from the scores of ID images and of each OOD folder."""
    return [
        RejectRate(
            operating_point=point.name,
            alpha=point.alpha,
            realised=_above(inside, point.threshold),
            interval=point.interval(calibration_images),
            ood={name: _above(scores, point.threshold) for name, scores in outside.items()},
        )
        for point in points
    ]


def reliability(calibration_scores: FloatArray, inside: FloatArray) -> list[Reliability]:
    """A row for each of `ALPHAS` that so many calibration scores can keep."""
    count = len(calibration_scores)
    return [
        Reliability(
            alpha=alpha,
            realised=_above(inside, conformal.threshold(calibration_scores, alpha)),
            interval=conformal.reject_rate_interval(count, alpha, level=LEVEL),
            realised_interval=_realised_interval(count, alpha, len(inside)),
        )
        for alpha in ALPHAS
        if conformal.rank(count, alpha) >= 1
    ]


def _realised_interval(count: int, alpha: float, images: int) -> tuple[float, float]:
    place, tail = conformal.rank(count, alpha), (1 - LEVEL) / 2
    low, high = betabinom(images, place, count + 1 - place).ppf([tail, 1 - tail]) / images
    return float(low), float(high)


def _above(scores: FloatArray, threshold: float) -> float:
    return float(np.mean(scores > threshold))
