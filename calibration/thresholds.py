"""The weight thresholds of all classes: t[c] = percentile of |C[c]| ⊙ W over its K·D entries, for each c.

To the bit those of `scoring.line.weight_threshold`, without making the products of every class. The columns of W are
sorted once. |C[c, j]| >= 0 leaves a column in its order, and products of two float32 are exact in float64, so that in
each column the products below a value end at one place, found by bisection. A sample, of one row in 32, gives two
values between which the percentile lies; only the few thousand products between them are made and searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from scoring import line
from scoring.types import ClassContribution, Contribution, HeadWeight, WeightThresholds

STRIDE = 32  # rows of the sorted columns to one of the sample
MARGIN = 2  # half the bracket's width, in √D ranks of the sample: some 7 standard deviations of their error
SMALL = 2**18  # entries of W up to which sorting them saves nothing

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def weight_thresholds(contribution: Contribution, weight: HeadWeight, p_w: float) -> WeightThresholds:
    """Thresholds of all classes; `p_w` = 0 removes nothing: -inf."""
    find = threshold_finder(weight, p_w)
    rows = tqdm(contribution, desc="weight thresholds", unit="class", disable=None)
    return torch.tensor([find(row) for row in rows], dtype=torch.float64)


def threshold_finder(weight: HeadWeight, p_w: float) -> Callable[[ClassContribution], float]:
    """What finds the threshold of one class; for several threads at once."""
    is_small = weight.numel() <= SMALL or len(weight) < STRIDE
    columns = None if p_w == 0 or is_small else SortedColumns(weight, p_w)

    def find(row: ClassContribution) -> float:
        threshold = None if columns is None else columns.threshold(row)
        return line.weight_threshold(row, weight, p_w) if threshold is None else threshold

    return find


class SortedColumns:
    """W made ready for one percentile.

    Args:
        weight: W, finite.
        p_w: the percentile.
    """

    def __init__(self, weight: HeadWeight, p_w: float) -> None:
        self._columns = np.sort(weight.double().numpy(), axis=0).T.copy()  # (D, K)
        rows = np.arange(0.5, len(weight) // STRIDE) * (len(weight) / (len(weight) // STRIDE))
        self._sample = self._columns[:, rows.astype(np.int64)].copy()
        self._starts = np.arange(0, self._columns.size, self._columns.shape[1])
        self._quantile = p_w / 100
        place = (weight.numel() - 1) * self._quantile  # numpy's arithmetic, to its last bit
        self._rank, self._share = math.floor(place), place - math.floor(place)

    def threshold(self, contribution: ClassContribution) -> float | None:
        """The threshold of one class, or None where the sample misled."""
        size = contribution.double().abs().numpy()  # (D,)
        low, high = self._bracket(size)
        below, products = self._between(size, low, high)
        rank = self._rank - below
        if not 0 <= rank < len(products) - 1:
            return None
        products.partition((rank, rank + 1))
        return _interpolate(float(products[rank]), float(products[rank + 1]), self._share)

    def _bracket(self, size: Floats) -> tuple[float, float]:
        """Two values with the percentile between them, as far as the sample can tell."""
        sample = (self._sample * size[:, None]).ravel()
        last = len(sample) - 1
        middle, margin = self._quantile * last, MARGIN * math.sqrt(len(size)) + 1
        low, high = max(0, int(middle - margin)), min(last, int(middle + margin))
        sample.partition((low, high))
        return (-math.inf if low == 0 else float(sample[low])), (math.inf if high == last else float(sample[high]))

    def _between(self, size: Floats, low: float, high: float) -> tuple[int, Floats]:
        """How many products are below `low`, and those from `low` to `high`, in no order."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a column without contribution: all its products are 0
            least, most = low / size, high / size
        # Rounded, and so taken a step further out; at the end the products themselves decide.
        first = self._below(np.where(np.isnan(least), -np.inf, np.nextafter(least, -np.inf)))
        end = self._below(np.where(np.isnan(most), np.inf, np.nextafter(most, np.inf)), or_equal=True)
        count = end - first
        shift = self._starts + first - (count.cumsum() - count)
        entries = np.repeat(shift, count) + np.arange(count.sum())
        products = self._columns.ravel()[entries] * np.repeat(size, count)
        is_below = products < low
        return int(first.sum() + is_below.sum()), products[~is_below & (products <= high)]

    def _below(self, limits: Floats, *, or_equal: bool = False) -> Places:
        """How many weights of each column are below its limit: a bisection of all columns at once."""
        compare = np.less_equal if or_equal else np.less
        flat, size = self._columns.ravel(), self._columns.shape[1]
        found = np.zeros(len(limits), dtype=np.int64)
        step = 1 << size.bit_length()
        while step := step >> 1:
            probe = found + step
            is_below = compare(flat[self._starts + np.minimum(probe, size) - 1], limits)
            found = np.where(is_below & (probe <= size), probe, found)
        return found


def _interpolate(low: float, high: float, share: float) -> float:
    """As numpy does: from the nearer end, so that the result never leaves the interval by rounding."""
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share
