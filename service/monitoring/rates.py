"""What share of in-distribution images an operating point rejects, as far as its calibration can tell.

The threshold is the l-th largest of n calibration scores, so the rate R that it realises is fixed once the calibration
set is drawn, and over the draw of the set (see `scoring.conformal`)

    R ~ Beta(l, n + 1 - l),  stochastically less with ties;   E[R] = l / (n + 1)

    bound       P(R <= q) >= 1 - delta with q its quantile at 1 - delta; Clopper and Pearson's upper bound for the
                l - 1 of n scores above the threshold is the same number
    interval    of m images as independent as the calibration's, the rejected ones are BetaBinomial(m, l, n + 1 - l)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betaln, gammaln
from scipy.stats import beta

from scoring import conformal
from scoring.metadata import OperatingPoint

LEVEL = 0.95  # of the intervals
DEVIATIONS = 12  # as far from the mean as a count is considered: beyond lies less than any of our digits
COUNTED = 10_000  # images up to which every count is looked at: a window of an hour may have millions


@dataclass(frozen=True)
class RejectLaw:
    """The law of R, and of counts that follow from it.

    Attributes:
        rank: l.
        count: n.
    """

    rank: int
    count: int

    @classmethod
    def of(cls, point: OperatingPoint, count: int) -> RejectLaw:
        """That of an operating point that was found with `count` calibration scores."""
        return cls(conformal.demand_rank(count, point.alpha, point.guarantee, point.delta), count)

    @property
    def expected(self) -> float:
        """The mean of R."""
        return self.rank / (self.count + 1)

    def bound(self, delta: float) -> float:
        """What R exceeds with a share of at most `delta` of the calibration sets."""
        return float(beta.isf(delta, self.rank, self.count + 1 - self.rank))

    def interval(self, images: int) -> tuple[float, float]:
        """Between what the rejected share of `images` images lies with probability LEVEL, calibration set included."""
        return beta_binomial_interval(self.rank, self.count + 1 - self.rank, images)


@lru_cache(maxsize=4096)  # a window that is full has the same interval at every scrape
def beta_binomial_interval(a: float, b: float, images: int) -> tuple[float, float]:
    """Central interval of BetaBinomial(images, a, b) / images.

    Of more than COUNTED images that of the Beta with the same mean and variance: it takes the same time for any number.
    """
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if images > COUNTED:
        total = images * (a + b + 1) / (a + b + images) - 1  # the variance of a Beta is p (1 - p) / (total + 1)
        low, high = beta.ppf(tails, a * total / (a + b), b * total / (a + b))
        return float(low), float(high)
    mean, total = images * a / (a + b), a + b
    deviation = (mean * b / total * (1 + (images - 1) / (total + 1))) ** 0.5
    lowest = max(0, int(mean - DEVIATIONS * deviation))
    rejected = np.arange(lowest, min(images, int(mean + DEVIATIONS * deviation) + 1) + 1)
    ways = gammaln(images + 1) - gammaln(rejected + 1) - gammaln(images - rejected + 1)
    below = np.exp(ways + betaln(rejected + a, images - rejected + b) - betaln(a, b)).cumsum()
    low, high = rejected[np.minimum(below.searchsorted(tails), len(rejected) - 1)] / images
    return float(low), float(high)
