"""What share of in-distribution images an operating point rejects, where predicted classes have their own thresholds.

Group g of classes (`scoring.groups`) has n_g calibration images, its threshold is their l_g-th largest score: of images
predicted into it R_g ~ Beta(l_g, n_g + 1 - l_g) are rejected, of all of them R = sum_g w_g R_g with shares w_g.

    bound       the largest of the R_g's quantiles at 1 - delta / G: by Bonferroni no R_g exceeds it with probability
                1 - delta, and so no mixture of them does, whatever the w_g of a stream are
    expected    with the w_g of the calibration images, of whose streams nothing else is known
    interval    of m images, BetaBinomial of the Beta that has the mean and the variance of R
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import beta

from scoring.groups import ByGroup, ClassGroups
from scoring.metadata import OperatingPoint
from service.monitoring.rates import RejectLaw, beta_binomial_interval

MOST = 1e9  # images that a Beta stands for: beyond, it is a single rate


@dataclass(frozen=True, eq=False)
class MixedLaw:
    """The law of R.

    Attributes:
        ranks: l_g.
        sizes: n_g.
        shares: w_g.
    """

    ranks: ByGroup
    sizes: ByGroup
    shares: Float64[np.ndarray, "group"]

    @property
    def expected(self) -> float:
        """The mean of R."""
        return float((self.shares * self.ranks / (self.sizes + 1)).sum())

    def bound(self, delta: float) -> float:
        """What R exceeds with a share of at most `delta` of the calibration sets, whatever is predicted."""
        return float(np.max(beta.isf(delta / len(self.ranks), self.ranks, self.sizes + 1 - self.ranks)))

    def interval(self, images: int) -> tuple[float, float]:
        """Between what the rejected share of `images` images lies, as for `RejectLaw`."""
        mean, variance = (
            self.expected,
            float((self.shares**2 * beta.var(self.ranks, self.sizes + 1 - self.ranks)).sum()),
        )
        total = min(mean * (1 - mean) / variance - 1, MOST)
        return beta_binomial_interval(mean * total, (1 - mean) * total, images)


def law_of(point: OperatingPoint, groups: ClassGroups) -> RejectLaw | MixedLaw:
    """That of an operating point with the thresholds of these groups."""
    if len(groups.group_sizes) == 1:
        return RejectLaw.of(point, int(groups.group_sizes[0]))
    shares = np.bincount(groups.group_of, groups.counts, len(groups.group_sizes)) / groups.counts.sum()
    return MixedLaw(point.ranks_of(groups), groups.group_sizes, shares)
