"""Between what the realised false-reject rate lies, over the draw of the calibration scores, with thresholds by class.

Given the predicted classes of the calibration images, group g has n_g of them and its threshold is their l_g-th largest
score. Of m_g images to come that are predicted into it, m in all,

    true rate        sum_g m_g Beta_g(l_g, n_g + 1 - l_g) / m                       each group draws its own Beta
    share rejected   sum_g BetaBinomial_g(m_g, l_g, n_g + 1 - l_g) / m              the images are drawn, too

With one group it is that law. With several there is no closed form: a Beta of the same mean and variance would miss the
long tail of a small group beside a large one. So the intervals are quantiles of DRAWS seeded draws, of which their ends
are known to a thirtieth of the standard deviation, or better. Two approximations: the mix of classes in the pool is
taken to be that of its calibration images, and a class with just as many images as stand alone is in the pool, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import beta, betabinom

from scoring.groups import ByGroup, ClassGroups, Counts

LEVEL = 0.9
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
DRAWS = 4000
SEED = 0

Interval = tuple[float, float]


class Mixture(NamedTuple):
    """The groups that images are predicted into, each with l, n + 1 - l, and its images."""

    ranks: Int64[np.ndarray, "group"]
    others: Int64[np.ndarray, "group"]
    images: Int64[np.ndarray, "group"]

    @classmethod
    def of(cls, groups: ClassGroups, ranks: ByGroup, images: Counts) -> Mixture:
        """Of images by predicted class; some at least."""
        by_group = np.bincount(groups.group_of, images, len(ranks)).astype(np.int64)
        used = by_group > 0
        return cls(ranks[used], (groups.group_sizes + 1 - ranks)[used], by_group[used])

    def rate_interval(self) -> Interval:
        """Central interval of the true rate."""
        if len(self.images) == 1:
            return _ends(beta(self.ranks[0], self.others[0]).ppf(ENDS))
        random, total = np.random.default_rng(SEED), np.zeros(DRAWS)
        for rank, other, images in self._rows():
            total += images * random.beta(rank, other, DRAWS)
        return _ends(np.quantile(total / self.images.sum(), ENDS))

    def share_interval(self) -> Interval:
        """Central interval of the share of these images that are rejected."""
        count = int(self.images.sum())
        if len(self.images) == 1:
            return _ends(betabinom(count, self.ranks[0], self.others[0]).ppf(ENDS) / count)
        random, total = np.random.default_rng(SEED), np.zeros(DRAWS)
        for rank, other, images in self._rows():
            total += random.binomial(images, random.beta(rank, other, DRAWS))
        return _ends(np.quantile(total / count, ENDS, method="inverted_cdf"))

    def _rows(self) -> list[tuple[int, int, int]]:
        return list(zip(self.ranks.tolist(), self.others.tolist(), self.images.tolist(), strict=True))


def _ends(pair: Float64[np.ndarray, "2"]) -> Interval:
    low, high = pair.tolist()
    return low, high
