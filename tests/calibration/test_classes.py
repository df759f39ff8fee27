"""Numbers of each class, counted image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta, binomtest

from calibration.classes import ClassRow, class_rows, worst
from calibration.rates import Judged
from scoring.groups import ClassGroups
from scoring.metadata import OperatingPoint

NAMES = ["a", "b", "c", "never"]
POINT = OperatingPoint(name="p", alpha=0.1, guarantee="marginal", delta=0.05, threshold=None)


def rows_of(
    names: Sequence[str],
    mask_images: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64] | None,
    predicted: npt.NDArray[np.int64],
    rejected: npt.NDArray[np.bool_],
) -> list[ClassRow]:
    """Rows under one threshold, of 0.5, that rejects just these."""
    groups = ClassGroups(np.full(19, 0.5), np.zeros(19, np.int64), len(names), None)
    return class_rows(names, mask_images, labels, Judged(rejected.astype(np.float64), predicted), groups, POINT)


@pytest.mark.parametrize("seed", range(5))
def test_counts(seed: int) -> None:
    """Each class's accuracy is over the images labelled so, its reject rate over those predicted so."""
    generator = np.random.default_rng(seed)
    labels, predicted = generator.integers(0, 3, (2, 60))
    rejected = generator.random(60) < 0.3
    rows = rows_of(NAMES, np.array([5, 0, 7, 1]), labels, predicted, rejected)
    assert [(row.index, row.name, row.mask_images) for row in rows] == [
        *((0, "a", 5), (1, "b", 0), (2, "c", 7), (3, "never", 1))
    ]
    images = list(zip(labels.tolist(), predicted.tolist(), rejected.tolist(), strict=True))
    for row in rows[:3]:
        own = [p == row.index for y, p, _ in images if y == row.index]
        fate = [r for _, p, r in images if p == row.index]
        assert (row.labelled, row.accuracy) == (len(own), sum(own) / len(own))
        assert (row.predicted, row.rejected, row.reject_rate) == (len(fate), sum(fate), sum(fate) / len(fate))
        exact = binomtest(sum(fate), len(fate)).proportion_ci(0.95, method="exact")
        assert row.reject_interval == pytest.approx((exact.low, exact.high))
    assert rows[3] == ClassRow(3, "never", 1, 0, None, 0, 0, None, (0, 1), 0.5, 19, None)


def test_unknown_labels() -> None:
    """Without labels no class has an accuracy, and everything else is counted."""
    (row,) = rows_of(["a"], np.array([2]), None, np.zeros(4, np.int64), np.array([True, True, True, True]))
    exact = binomtest(4, 4).proportion_ci(0.95, method="exact")
    assert row == ClassRow(0, "a", 2, None, None, 4, 4, 1, row.reject_interval, 0.5, 19, None)
    assert row.reject_interval == pytest.approx((exact.low, 1))


def test_worst() -> None:
    """30 of 50 images rejected are worse than 1 of 1; ties keep the order of the classes."""
    predicted = np.repeat([0, 1, 2, 3], [1, 50, 50, 10])
    rejected = np.concatenate([[True], np.arange(50) < 30, np.zeros(50, bool), np.zeros(10, bool)])
    rows = rows_of(NAMES, np.ones(4, np.int64), None, predicted, rejected)
    assert [row.name for row in worst(rows, 3)] == ["b", "a", "c"]


def test_never_predicted() -> None:
    """A class that is never predicted is shown last where all are shown, and not where there is no room for all."""
    rows = rows_of(NAMES, np.ones(4, np.int64), None, np.array([2, 2, 0]), np.array([True, False, False]))
    assert [row.name for row in worst(rows, 4)] == ["c", "a", "b", "never"]
    assert [row.name for row in worst(rows, 3)] == ["c", "a"]


def test_thresholds_by_class() -> None:
    """A class that stands alone has its own threshold and the interval of its true rate, pooled ones have no interval.

    Class a has scores 0 .. 99, classes b and c share 100 .. 129, none is predicted as the last.
    """
    predicted = np.repeat([0, 1, 2], [100, 20, 10])
    groups = ClassGroups(np.arange(130.0), predicted, 4, 25)
    inside = Judged(np.array([91.0, 90, 120, 128, 127]), np.array([0, 0, 1, 1, 2]))
    rows = class_rows(NAMES, np.ones(4, np.int64), None, inside, groups, POINT)
    assert [(row.predicted, row.rejected) for row in rows] == [(2, 1), (2, 1), (1, 0), (0, 0)]
    assert [(row.threshold, row.calibration_images) for row in rows] == [(90, 100), (127, 30), (127, 30), (127, 30)]
    assert rows[0].expected_interval == pytest.approx(beta(10, 91).ppf([0.05, 0.95]))
    assert [row.expected_interval for row in rows[1:]] == [None] * 3
