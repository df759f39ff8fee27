"""What one pass over the data leaves behind: sums a class, and the distribution of feature values.

Float64 sums and integer counts: constant memory in the number of images. Written down and read again, the sums go on as
if nothing had been between.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from scoring.types import ClassCounts, Classes, ClassMeans, Features

DROPPED_BITS = 12  # of a float32's 23 bits of mantissa: the histogram's bins are 2^-11 wide, relative to the value
BINS = 2 ** (32 - DROPPED_BITS)

Rows = Float32[np.ndarray, "batch feature"]


class FeatureStatistics:
    """Running statistics of features (class, feature).

    Args:
        class_count: K.
        feature_count: D.
    """

    def __init__(self, class_count: int, feature_count: int) -> None:
        self.counts: ClassCounts = torch.zeros(class_count, dtype=torch.int64)
        self._sums: ClassMeans = torch.zeros(class_count, feature_count, dtype=torch.float64)
        self._abs_sums: ClassMeans | None = None  # the same as the sums, until a feature is negative
        self._histogram: Int64[Tensor, "bins"] = torch.zeros(BINS, dtype=torch.int64)

    @classmethod
    def of(cls, features: Features, labels: Classes, class_count: int) -> FeatureStatistics:
        """Those of features that are at hand."""
        statistics = cls(class_count, features.shape[1])
        statistics.update(features, labels)
        return statistics

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FeatureStatistics:
        """What `tensors` gave, to go on with."""
        restored = cls(*tensors["sums"].shape)
        restored.counts, restored._sums = tensors["counts"], tensors["sums"]
        restored._abs_sums, restored._histogram = tensors.get("abs_sums"), tensors["histogram"]
        return restored

    def tensors(self) -> dict[str, Tensor]:
        """All that has been counted; not copies."""
        found = {"counts": self.counts, "sums": self._sums, "histogram": self._histogram}
        return found if self._abs_sums is None else found | {"abs_sums": self._abs_sums}

    @property
    def has_negative(self) -> bool:
        """Whether a feature below zero was met."""
        return self._abs_sums is not None

    def update(self, features: Features, labels: Classes) -> None:
        """Add a batch of finite features.

        In numpy: torch would wake its threads for each of these small steps, and the decoders have the cores.
        """
        values = features.float().cpu().contiguous().numpy()
        self.counts += labels.bincount(minlength=len(self.counts))
        if self._abs_sums is None and (values < 0).any():
            self._abs_sums = self._sums.clone()
        _add_rows(self._sums, values, labels)
        if self._abs_sums is not None:
            _add_rows(self._abs_sums, np.abs(values), labels)
        np.add.at(self._histogram.numpy(), _bins(values), 1)

    @property
    def means(self) -> ClassMeans:
        """Class means of h; NaN for a class without images."""
        return self._sums / self.counts[:, None]

    @property
    def abs_means(self) -> ClassMeans:
        """Class means of |h|; NaN for a class without images."""
        return self.means if self._abs_sums is None else self._abs_sums / self.counts[:, None]

    def quantile(self, q: float) -> float:
        """The q-quantile of all feature values, within a relative error of 2^-12 (middle of its bin)."""
        cumulated = self._histogram.numpy().cumsum()
        place = int(np.searchsorted(cumulated, q * (cumulated[-1] - 1), side="right"))
        low, high = _edges(place)
        return 0.0 if low == 0 else (low + high) / 2  # more than half of what a ReLU leaves is exactly 0


def _add_rows(sums: ClassMeans, values: Rows, labels: Classes) -> None:
    # One image after the other, in their order, which a sum of floats depends on; np.add.at takes 50 times as long.
    own = sums.numpy()
    for row, label in zip(values, labels.tolist(), strict=True):
        own[label] += row


def _bins(values: Rows) -> Int64[np.ndarray, "count"]:
    # The bits of a float, read as an integer, grow with its size: their upper part is a logarithmic bin.
    bits = values.view(np.int32).ravel()
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
