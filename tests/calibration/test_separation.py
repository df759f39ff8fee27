"""Measures of separation against their definitions in plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from calibration.bootstrap import bootstrap
from calibration.separation import Separation, mean_separation, separate, separate_all


def slow_fpr95(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The lowest threshold that accepts 95 % of the ID images, tried one by one, and what it accepts of the others."""
    for threshold in sorted([*inside, *outside]):
        accepted = sum(score <= threshold for score in inside)
        if 100 * accepted >= 95 * len(inside):
            return sum(score <= threshold for score in outside) / len(outside)
    raise AssertionError


def slow_auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """How often an OOD image scores higher than an ID image, over all pairs; a tie is half."""
    won = sum((o > i) + 0.5 * (o == i) for i in inside for o in outside)
    return won / (len(inside) * len(outside))


def slow_aupr(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Precision at each threshold, weighted by the recall gained there; positives score high."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        true = sum(score >= threshold for score in positive)
        false = sum(score >= threshold for score in negative)
        recall = true / len(positive)
        area += (recall - recall_before) * true / (true + false)
        recall_before = recall
    return area


def some_scores(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    count_in, count_out = generator.integers(1, 80, 2)
    inside, outside = generator.normal(0, 1, count_in), generator.normal(generator.normal(), 1.5, count_out)
    if kind == "ties":
        inside, outside = np.round(inside), np.round(outside)
    if kind == "all the same":
        inside, outside = inside * 0, outside * 0
    return inside, outside


@pytest.mark.parametrize("kind", ["distinct", "ties", "all the same"])
@pytest.mark.parametrize("seed", range(10))
def test_separate(seed: int, kind: str) -> None:
    """FPR95, AUROC and both AUPRs are those of the definitions, with higher = more OOD."""
    inside, outside = some_scores(seed, kind)
    row = separate("line", "far", inside, outside)
    assert (row.method, row.ood) == ("line", "far")
    assert row.fpr95 == pytest.approx(slow_fpr95(inside, outside), abs=1e-12)
    assert row.auroc == pytest.approx(slow_auroc(inside, outside), abs=1e-12)
    assert row.aupr_in == pytest.approx(slow_aupr(-inside, -outside), abs=1e-12)
    assert row.aupr_out == pytest.approx(slow_aupr(outside, inside), abs=1e-12)


@pytest.mark.parametrize("count", [19, 20, 21, 39, 40, 41, 100, 1000])
def test_fpr95_at_the_edge(count: int) -> None:
    """Exactly 95 % of the ID images are enough, one fewer is not, for counts where the share is and is not exact."""
    inside = np.arange(count, dtype=np.float64)
    outside = inside + 0.5
    assert separate("line", "far", inside, outside).fpr95 == (math.ceil(0.95 * count - 1e-9) - 1) / count


def test_perfect_and_reversed() -> None:
    """All OOD images above all ID images is perfect; below, the opposite."""
    low, high = np.linspace(0, 1, 30), np.linspace(2, 3, 50)
    best = separate("line", "far", low, high)
    assert (best.fpr95, best.auroc) == (0, 1)
    assert (best.aupr_in, best.aupr_out) == pytest.approx((1, 1))
    worst = separate("line", "far", high, low)
    assert (worst.fpr95, worst.auroc) == (1, 0)


def test_mean() -> None:
    """The mean of a method is over its own rows alone."""
    rows = [
        Separation("line", "near", 0.4, 0.8, 0.7, 0.6),
        Separation("msp", "near", 1, 0, 0, 0),
        Separation("line", "far", 0.2, 1, 0.9, 0.8),
    ]
    found = mean_separation(rows, "line")
    assert (found.method, found.ood) == ("line", "mean")
    assert (found.fpr95, found.auroc, found.aupr_in, found.aupr_out) == pytest.approx((0.3, 0.9, 0.8, 0.7))


def test_separate_all() -> None:
    """Rows are those of each pair alone, with intervals of their resamples; a mean's are of the resamples' means."""
    inside = {"b": np.random.default_rng(0).normal(0, 1, 90), "a": np.random.default_rng(1).normal(0, 1, 90)}
    outside = {
        name: {method: np.random.default_rng(len(name)).normal(1, 1, 40) for method in inside} for name in ("x", "near")
    }
    rows = separate_all(inside, outside)
    pairs = [(method, name) for method in ("b", "a") for name in ("x", "near")]
    assert [(row.method, row.ood) for row in rows] == [*pairs, ("b", "mean"), ("a", "mean")]
    draws = bootstrap(inside, outside)
    for row in rows:
        if row.ood == "mean":
            wanted = mean_separation(rows[:4], row.method)
            fpr95, auroc = (draws[row.method, "x"] + draws[row.method, "near"]) / 2
        else:
            wanted = separate(row.method, row.ood, inside[row.method], outside[row.ood][row.method])
            fpr95, auroc = draws[row.method, row.ood]
        assert (row.fpr95, row.auroc, row.aupr_in) == (wanted.fpr95, wanted.auroc, wanted.aupr_in)
        assert [row.fpr95_low, row.fpr95_high] == pytest.approx(np.percentile(fpr95, [2.5, 97.5]).tolist())
        assert [row.auroc_low, row.auroc_high] == pytest.approx(np.percentile(auroc, [2.5, 97.5]).tolist())
        assert (row.auroc_low or 0) < row.auroc < (row.auroc_high or 0)
