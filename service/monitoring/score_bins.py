"""Where a score lies between deciles of the calibration scores and thresholds: one look-up answers for both."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from scoring.conformal import FloatArray
from service.monitoring.psi import Counts

DECILES = np.arange(1, 10) / 10


class ScoreBins:
    """Bins (edge, next edge], the first and the last one without end.

    Args:
        calibration_scores: ascending (image).
        thresholds: by operating point.

    Attributes:
        count: how many bins there are.
        rejects_above: by operating point; a score is rejected iff its bin is above this one.
        expected: calibration images by decile, fewer than ten where scores are often the same (decile).
    """

    def __init__(self, calibration_scores: FloatArray, thresholds: Mapping[str, float]) -> None:
        deciles = np.unique(np.quantile(calibration_scores, DECILES, method="inverted_cdf"))
        deciles = deciles[deciles < calibration_scores[-1]]  # nothing expected is above the largest
        self._edges: list[float] = sorted({*deciles.tolist(), *thresholds.values()})
        self._starts = [0, *(self._edges.index(edge) + 1 for edge in deciles.tolist())]
        self.count = len(self._edges) + 1
        self.rejects_above = {name: self._edges.index(threshold) for name, threshold in thresholds.items()}
        found = np.searchsorted(self._edges, calibration_scores, side="left")
        self.expected = self.by_decile(np.bincount(found, minlength=self.count))

    def find(self, score: float) -> int:
        """The bin of a score."""
        return bisect_left(self._edges, score)

    def by_decile(self, counts: Counts) -> Counts:
        """Sum the bins (bin) between the deciles (decile)."""
        return np.add.reduceat(counts, self._starts)

    def rejected(self, counts: Counts, point: str) -> int:
        """How many of the images in the bins (bin) an operating point rejects."""
        return int(counts[self.rejects_above[point] + 1 :].sum())
