"""What one pass over the data leaves behind: sums a class, and the distribution of feature values.

Float64 sums and integer counts: constant memory in the number of images, and two halves merged are the whole.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from scoring.errors import DatasetError
from scoring.types import ClassCounts, Classes, ClassMeans, Features

DROPPED_BITS = 12  # of a float32's 23 bits of mantissa: the histogram's bins are 2^-11 wide, relative to the value
BINS = 2 ** (32 - DROPPED_BITS)


class FeatureStatistics:
    """Running statistics of features (class, feature).

    Args:
        class_count: K.
        feature_count: D.
    """

    def __init__(self, class_count: int, feature_count: int) -> None:
        self.counts: ClassCounts = torch.zeros(class_count, dtype=torch.int64)
        self._sums: ClassMeans = torch.zeros(class_count, feature_count, dtype=torch.float64)
        self._abs_sums: ClassMeans = torch.zeros_like(self._sums)
        self._histogram = np.zeros(BINS, dtype=np.int64)
        self.has_negative = False

    def update(self, features: Features, labels: Classes) -> None:
        """Add a batch.

        Raises:
            DatasetError: a feature is NaN or infinite.
        """
        values = features.float().cpu()
        if not bool(values.isfinite().all()):
            raise DatasetError("the classifier computed features that are NaN or infinite: nothing can be calibrated")
        self.counts += labels.bincount(minlength=len(self.counts))
        self._sums.index_add_(0, labels, values.double())
        self._abs_sums.index_add_(0, labels, values.double().abs())
        np.add.at(self._histogram, _bins(values), 1)
        self.has_negative |= bool((values < 0).any())

    def merge(self, other: FeatureStatistics) -> None:
        """Add what another pass over other images has seen."""
        self.counts += other.counts
        self._sums += other._sums
        self._abs_sums += other._abs_sums
        self._histogram += other._histogram
        self.has_negative |= other.has_negative

    @property
    def means(self) -> ClassMeans:
        """Class means of h; NaN for a class without images."""
        return self._sums / self.counts[:, None]

    @property
    def abs_means(self) -> ClassMeans:
        """Class means of |h|; NaN for a class without images."""
        return self._abs_sums / self.counts[:, None]

    def quantile(self, q: float) -> float:
        """The q-quantile of all feature values, within a relative error of 2^-12 (middle of its bin)."""
        cumulated = self._histogram.cumsum()
        place = int(np.searchsorted(cumulated, q * (cumulated[-1] - 1), side="right"))
        low, high = _edges(place)
        return 0.0 if low == 0 else (low + high) / 2  # more than half of what a ReLU leaves is exactly 0


def _bins(values: Features) -> Int64[np.ndarray, "count"]:
    # The bits of a float, read as an integer, grow with its size: their upper part is a logarithmic bin.
    bits = values.contiguous().numpy().view(np.int32).ravel()
    ordered = np.where(bits >= 0, bits, np.int32(-(2**31)) - bits)  # negative floats, in ascending order
    bins: Int64[np.ndarray, "count"] = (ordered.astype(np.int64) >> DROPPED_BITS) + BINS // 2
    return bins


def _edges(place: int) -> tuple[float, float]:
    first = (place - BINS // 2) << DROPPED_BITS
    last = first + (1 << DROPPED_BITS) - 1
    return _from_ordered(first), _from_ordered(last)


def _from_ordered(ordered: int) -> float:
    bits = ordered if ordered >= 0 else -(2**31) - ordered
    return float(np.array([bits], dtype=np.int64).astype(np.int32).view(np.float32)[0])


def top_1(logits: Tensor, labels: Classes) -> int:
    """Number of images whose most probable class is the right one."""
    return int((logits.argmax(1).cpu() == labels).sum())
