"""What share of in-distribution images an operating point rejects, where predicted classes have their own thresholds.

Group g of classes (`scoring.groups`) has n_g calibration images, its threshold is their l_g-th largest score: of images
predicted into it R_g ~ Beta(l_g, n_g + 1 - l_g) are rejected, of all of them R = sum_g w_g R_g, the R_g independent.

    bound       P(R > q) <= delta, the lesser of two, either of which would do (no score has a say in which it is):
                Bernstein's inequality for Beta variables (Skorski, Modern Stochastics 2023):
                q = E R + e with e = C L / 3 + sqrt((C L / 3)^2 + 2 V L), L = log(1 / delta),
                V = sum_g w_g^2 Var R_g and C = max_g w_g c_g, where for Beta(a, b) c = 2 (b - a) / ((a + b)(a + b + 2))
                Bonferroni's: q = sum_g w_g q_g with P(R_g > q_g) = delta / G for each of G groups. It is below 1, as R
                is, where with few images or a large alpha the other is not
    expected    E R
    interval    of m images, BetaBinomial of the Beta that has the mean and the variance of R

The shares w_g are those of the calibration images, taken as known. So all of this is of streams whose predicted classes
are distributed as the calibration's: one that sees mostly a single class has that class's rate, which its few images of
the calibration leave less certain. And R_g of a pool is its classes' together: one of them may be rejected more often.
"""

from __future__ import annotations

import math
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
        """What R exceeds with a share of at most `delta` of the calibration sets; below 1."""
        return min(self.bernstein(delta), self.bonferroni(delta))

    def bernstein(self, delta: float) -> float:
        """The bound that knows the groups to be independent."""
        total = self.sizes + 1
        scales = 2 * (total - 2 * self.ranks) / (total * (total + 2))
        log_inverse = -math.log(delta)
        linear = max(float((self.shares * scales).max()), 0.0) * log_inverse / 3
        return self.expected + linear + math.sqrt(linear**2 + 2 * self._variance * log_inverse)

    def bonferroni(self, delta: float) -> float:
        """The bound of all groups' own bounds together."""
        of_groups = beta.isf(delta / len(self.sizes), self.ranks, self.sizes + 1 - self.ranks)
        return float((self.shares * of_groups).sum())

    def interval(self, images: int) -> tuple[float, float]:
        """Between what the rejected share of `images` images lies, as for `RejectLaw`."""
        mean = self.expected
        total = min(mean * (1 - mean) / self._variance - 1, MOST)
        return beta_binomial_interval(mean * total, (1 - mean) * total, images)

    @property
    def _variance(self) -> float:
        return float((self.shares**2 * beta.var(self.ranks, self.sizes + 1 - self.ranks)).sum())


def law_of(point: OperatingPoint, groups: ClassGroups) -> RejectLaw | MixedLaw:
    """That of an operating point with the thresholds of these groups."""
    if len(groups.group_sizes) == 1:
        return RejectLaw.of(point, int(groups.group_sizes[0]))
    shares = np.bincount(groups.group_of, groups.counts, len(groups.group_sizes)) / groups.counts.sum()
    return MixedLaw(point.ranks_of(groups), groups.group_sizes, shares)
