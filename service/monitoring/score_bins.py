"""Where a score lies between deciles of the calibration scores, and how many operating points reject it: one number.

Of one predicted class the thresholds rise as alpha falls, so that who is rejected by one operating point is rejected by
all that promise less: how many they are says which.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from scoring.conformal import FloatArray
from scoring.groups import ByClass
from service.monitoring.psi import Counts

DECILES = np.arange(1, 10) / 10


class ScoreBins:
    """Bins (edge, next edge], the first and the last one without end, each as often as operating points may reject.

    Args:
        calibration_scores: in any order (image).
        thresholds: by operating point, then by predicted class; of each class in the same order of points.

    Attributes:
        count: how many bins there are.
        levels: of rejection in each decile: by no operating point, by one, ..., by all.
        level_of: by operating point; it rejects the images of this level and of those above.
        expected: calibration images by decile, fewer than ten where scores are often the same (decile).
    """

    def __init__(self, calibration_scores: FloatArray, thresholds: Mapping[str, ByClass]) -> None:
        deciles = np.unique(np.quantile(calibration_scores, DECILES, method="inverted_cdf"))
        self._edges: list[float] = deciles[deciles < calibration_scores.max()].tolist()  # above it nothing is expected
        ascending = sorted(thresholds, key=lambda name: float(thresholds[name].sum()))
        self._limits = [*zip(*(thresholds[name].tolist() for name in ascending), strict=True)]  # by class
        self.levels = 1 + len(ascending)
        self.level_of = {name: 1 + place for place, name in enumerate(ascending)}
        self.count = (len(self._edges) + 1) * self.levels
        found = np.searchsorted(self._edges, calibration_scores, side="left")
        self.expected: Counts = np.bincount(found, minlength=len(self._edges) + 1)

    def find(self, score: float, class_index: int) -> int:
        """The bin of an image."""
        level = bisect_left(self._limits[class_index], score) if self._limits else 0
        return bisect_left(self._edges, score) * self.levels + level

    def by_decile(self, counts: Counts) -> Counts:
        """Sum the bins (bin) between the deciles (decile)."""
        found: Counts = counts.reshape(-1, self.levels).sum(1)
        return found

    def rejected(self, counts: Counts, point: str) -> int:
        """How many of the images in the bins (bin) an operating point rejects."""
        return int(counts.reshape(-1, self.levels)[:, self.level_of[point] :].sum())
