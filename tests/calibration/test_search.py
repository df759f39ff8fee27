"""The search against a slow one in plain loops, and against ReAct and Energy on its own criterion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from calibration import search
from calibration.folds import Outliers, parts_of, split
from calibration.grid import PERCENTILES, QUANTILES, score_grid
from calibration.search import Row, Search, tune
from scoring.conformal import FloatArray
from scoring.errors import DatasetError
from scoring.types import Classes, Features, Head
from tests import reference
from tests.calibration.test_separation import slow_auroc, slow_fpr95

CLASSES, FEATURES, IMAGES = 3, 5, 41


@dataclass(frozen=True)
class Problem:
    """A small sample, outliers of some of its images, and outliers of none."""

    sample: Features
    labels: Classes
    outliers: dict[str, Outliers]
    head: Head

    def search(self) -> Search:
        return tune(self.sample, self.labels, self.outliers, self.head)


def problem(seed: int, *, negative: bool = False, classes: int = CLASSES) -> Problem:
    g = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(classes, FEATURES, generator=g), torch.randn(classes, generator=g)
    labels = torch.arange(IMAGES) % classes
    sample = weight[labels] + torch.randn(IMAGES, FEATURES, generator=g)
    made = sample[::2] + torch.randn(sample[::2].shape, generator=g)
    foreign = 1.5 * torch.randn(23, FEATURES, generator=g)
    if not negative:
        sample, made, foreign = sample.abs(), made.abs(), foreign.abs()
    outliers = {
        "made": Outliers(made, torch.arange(0, IMAGES, 2)),
        "folder": Outliers(foreign, torch.full((23,), -1)),
    }
    return Problem(sample, labels, outliers, Head(weight, bias))


def fold_of(p: Problem, kind: str) -> list[int]:
    """The fold that scores each outlier: that of its source, else in turn."""
    parts, sources = parts_of(p.labels).tolist(), p.outliers[kind].sources.tolist()
    return [parts[source] if source >= 0 else i % 5 for i, source in enumerate(sources)]


def slow_quantile(values: list[float], q: float | None) -> float | None:
    return None if q is None else sorted(values)[math.floor(q * (len(values) - 1))]


def slow_row(p: Problem, p_a: float, p_w: float, q: float | None, *, absolute: bool) -> dict[str, list[float]]:
    """Every image scored by LINe as the other folds have calibrated it; ID under the key "ID"."""
    sample, labels, parts = p.sample.tolist(), p.labels.tolist(), parts_of(p.labels).tolist()
    weight, bias = p.head.weight.tolist(), p.head.bias.tolist()
    scored = {"ID": (sample, parts)} | {k: (o.features.tolist(), fold_of(p, k)) for k, o in p.outliers.items()}
    found: dict[str, list[float]] = {name: [] for name in scored}
    for fold in range(5):
        taught = [i for i in range(IMAGES) if parts[i] != fold]
        features = [sample[i] for i in taught]
        contribution = reference.contribution(features, [labels[i] for i in taught], weight, absolute=absolute)
        learnt = reference.masks(contribution, weight, p_a, p_w)
        delta = slow_quantile([x for h in features for x in h], q)
        for name, (rows, folds) in scored.items():
            own = [h for h, its in zip(rows, folds, strict=True) if its == fold]
            found[name] += [reference.ood_score(h, weight, bias, delta, learnt) for h in own]
    return found


@pytest.mark.parametrize("negative", [False, True], ids=["signed", "absolute"])
def test_the_whole_table(negative: bool) -> None:
    """Every row of the grid is that of a search in plain loops, with images scored one at a time."""
    p = problem(1, negative=negative)
    found = p.search()
    quantiles = [q for q in QUANTILES if any(row.clip_quantile == q for row in found.rows)]
    settings = [(p_a, p_w, q) for p_a in PERCENTILES for p_w in PERCENTILES for q in quantiles]
    assert [(row.p_a, row.p_w, row.clip_quantile) for row in found.rows] == settings
    for row in found.rows:
        scores = slow_row(p, row.p_a, row.p_w, row.clip_quantile, absolute=negative)
        rounded = {kind: [round(score, 4) for score in values] for kind, values in scores.items()}
        inside = rounded.pop("ID")
        for kind, outside in rounded.items():
            assert row.fpr95[kind] == pytest.approx(slow_fpr95(inside, outside), abs=1e-9), str(row)
            assert row.auroc[kind] == pytest.approx(slow_auroc(inside, outside), abs=2e-3), str(row)
    best = max(found.rows, key=lambda row: (sum(row.auroc.values()), -sum(row.fpr95.values())))
    assert found.best == best


def criterion(p: Problem, score: dict[str, FloatArray]) -> float:
    return float(np.mean([slow_auroc(score["ID"].tolist(), score[kind].tolist()) for kind in p.outliers]))


def clipped_energy(p: Problem, q: float | None) -> dict[str, FloatArray]:
    """ReAct with δ from the other folds, or Energy, without any of LINe's masks."""
    parts = parts_of(p.labels)
    folds = {"ID": parts} | {kind: torch.tensor(fold_of(p, kind)) for kind in p.outliers}
    rows = {"ID": p.sample} | {kind: found.features for kind, found in p.outliers.items()}
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
    for fold in range(5):
        taught = sorted(p.sample[parts != fold].flatten().tolist())
        delta = torch.inf if q is None else taught[math.floor(q * (len(taught) - 1))]
        for name, features in rows.items():
            own = features[folds[name] == fold].double().clamp(max=delta)
            scores[name].append(-(own @ p.head.weight.double().T + p.head.bias).logsumexp(1))
    return {name: torch.cat(parts).numpy() for name, parts in scores.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("negative", [False, True], ids=["signed", "absolute"])
def test_never_worse_than_react_and_energy(seed: int, negative: bool) -> None:
    """On its own criterion, mean AUROC: Energy, and ReAct with the same clips, computed without LINe."""
    p = problem(seed, negative=negative)
    best = p.search().best
    for q in QUANTILES:
        assert best.mean_auroc >= criterion(p, clipped_energy(p, q)) - 1e-9


def test_deterministic() -> None:
    """The same again gives the same table and notes, threads or not."""
    first, again = problem(3).search(), problem(3).search()
    assert (first.rows, first.best, first.notes) == (again.rows, again.best, again.notes)


def test_an_image_says_nothing_about_outliers_of_itself() -> None:
    """Other features of an image move scores of outliers in each part but its own, where it is not taught.

    All of the sample but this image, and all outliers, are the same.
    """
    p = problem(4)
    changed = p.sample.clone()
    changed[6] *= 50
    own = int(parts_of(p.labels)[6])
    folds = split(p.labels, p.outliers)
    first, second = (score_grid(sample, p.labels, p.outliers, folds, p.head) for sample in (p.sample, changed))
    same = (first.energies == second.energies).all((0, 1, 2))
    fold_of_column = np.repeat(np.arange(5), [len(f.held) + sum(map(len, f.outliers.values())) for f in folds])
    is_outlier = first.kinds >= 0
    unmoved = [same[is_outlier & (fold_of_column == part)].all() for part in range(5)]
    assert unmoved == [part == own for part in range(5)]


def test_clips_at_zero_are_left_out() -> None:
    """Where most of the features are 0 their lower quantiles are no clip; a note says which are missing."""
    p = problem(5)
    sparse = p.sample * (torch.rand(p.sample.shape, generator=torch.Generator().manual_seed(0)) < 0.15)
    found = Problem(sparse, p.labels, p.outliers, p.head).search()
    assert {row.clip_quantile for row in found.rows} == {None, 0.99, 0.98, 0.97, 0.96, 0.95, 0.9}
    assert "clips at the quantiles 0.8 were left out: the features there are not above 0" in found.notes


def test_rare_classes_are_named() -> None:
    """With one image a class the masks of the cross-validation are rougher than those that are served: a note."""
    found = problem(6, classes=30).search()
    assert any("19 of 30 classes have fewer than two images" in note for note in found.notes)
    assert not any("fewer than two" in note for note in problem(6).search().notes)


def row(p_a: float, **auroc: float) -> Row:
    return Row(p_a, 0, None, {kind: 1 - value for kind, value in auroc.items()}, auroc)


def test_outliers_that_disagree() -> None:
    """A kind whose favourite is among the worst third of another is named, and what that costs; below a point not."""
    values = {0: (0.5, 0.9), 10: (0.55, 0.8), 30: (0.7, 0.1), 50: (0.4, 0.5)}
    rows = [row(p_a, near=near, far=far) for p_a, (near, far) in values.items()]
    (note,) = search._disagreements(rows, rows[0])
    assert "'near' (p_a = 30, p_w = 0, no clip)" in note
    assert "against 'far': AUROC 10.0 %; with the settings that are best on average 90.0 %" in note
    alike = [row(0, near=0.3, far=0.498), row(10, near=0.25, far=0.5), row(30, near=0.1, far=0.499)]
    assert not [*search._disagreements(alike, alike[0])]


def test_large_heads_score_fewer_images() -> None:
    """The work is bounded, down to 200 images a kind; at K = 1000, D = 2048 with seven kinds every image is scored."""
    assert search._most_scored(Head(torch.zeros(1000, 2048), torch.zeros(1000)), 7) == 1000
    assert search._most_scored(Head(torch.zeros(10000, 768), torch.zeros(10000)), 7) == 282
    assert search._most_scored(Head(torch.zeros(21000, 2048), torch.zeros(21000)), 7) == 200


def test_no_outliers() -> None:
    """Nothing can be chosen without any."""
    p = problem(0)
    with pytest.raises(DatasetError, match="outliers of one kind at least, found none"):
        tune(p.sample, p.labels, {}, p.head)
