"""Numbers of each class, counted image by image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from calibration.classes import ClassRow, class_rows, worst

NAMES = ["a", "b", "c", "never"]


@pytest.mark.parametrize("seed", range(5))
def test_counts(seed: int) -> None:
    """Each class's accuracy is over the images labelled so, its reject rate over those predicted so."""
    generator = np.random.default_rng(seed)
    labels, predicted = generator.integers(0, 3, (2, 60))
    rejected = generator.random(60) < 0.3
    rows = class_rows(NAMES, np.array([5, 0, 7, 1]), labels, predicted, rejected)
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
    assert rows[3] == ClassRow(3, "never", 1, 0, None, 0, 0, None, (0, 1))


def test_unknown_labels() -> None:
    """Without labels no class has an accuracy, and everything else is counted."""
    (row,) = class_rows(["a"], np.array([2]), None, np.zeros(4, np.int64), np.array([True, True, True, True]))
    exact = binomtest(4, 4).proportion_ci(0.95, method="exact")
    assert row == ClassRow(0, "a", 2, None, None, 4, 4, 1, row.reject_interval)
    assert row.reject_interval == pytest.approx((exact.low, 1))


def test_worst() -> None:
    """30 of 50 images rejected are worse than 1 of 1; ties keep the order of the classes."""
    predicted = np.repeat([0, 1, 2, 3], [1, 50, 50, 10])
    rejected = np.concatenate([[True], np.arange(50) < 30, np.zeros(50, bool), np.zeros(10, bool)])
    rows = class_rows(NAMES, np.ones(4, np.int64), None, predicted, rejected)
    assert [row.name for row in worst(rows, 3)] == ["b", "a", "c"]


def test_never_predicted() -> None:
    """A class that is never predicted is shown last where all are shown, and not where there is no room for all."""
    rows = class_rows(NAMES, np.ones(4, np.int64), None, np.array([2, 2, 0]), np.array([True, False, False]))
    assert [row.name for row in worst(rows, 4)] == ["c", "a", "b", "never"]
    assert [row.name for row in worst(rows, 3)] == ["c", "a"]
