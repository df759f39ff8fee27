"""The search for LINe's p_a, p_w and clip, on features of one pass: every setting of a grid, cross-validated.

    grid        p_a, p_w in PERCENTILES; δ at the QUANTILES of the features, or none; see `calibration.grid`
    criterion   AUROC averaged over the kinds of outliers; mean FPR95 decides between equals, and then what removes less

p_a = p_w = 0 is ReAct, and without a clip it is Energy. Both are in the grid, so that on this criterion what is found
can never be worse than either. FPR95 is one quantile, which the hardest kinds decide: it misled where AUROC did not,
see docs/tuning.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.folds import SCORED, Fold, Outliers, split
from calibration.grid import PERCENTILES, QUANTILES, Grid, score_grid
from calibration.separation import separate
from calibration.settings import LineSettings
from scoring.errors import DatasetError
from scoring.types import Classes, Features, Head

WORK = 5e12  # multiplications, three minutes on two cores: where there would be more, fewer images are scored,
LEAST = 200  # but never fewer than these
WORST = 2 / 3  # of the settings are better than one: it is among the worst third
POINT = 0.01  # of AUROC: less than that is no disagreement


@dataclass(frozen=True)
class Row:
    """One setting of the grid: FPR95 and AUROC by kind of outliers, each between 0 and 1."""

    p_a: float
    p_w: float
    clip_quantile: float | None
    fpr95: dict[str, float]
    auroc: dict[str, float]

    @property
    def mean_auroc(self) -> float:
        """The criterion."""
        return float(np.mean([*self.auroc.values()]))

    @property
    def mean_fpr95(self) -> float:
        """What decides between equals."""
        return float(np.mean([*self.fpr95.values()]))

    @property
    def settings(self) -> LineSettings:
        """The same, for `calibrate`."""
        return LineSettings(p_a=self.p_a, p_w=self.p_w, clip=None, clip_quantile=self.clip_quantile)

    def __str__(self) -> str:
        clip = "no clip" if self.clip_quantile is None else f"clip at the {self.clip_quantile:g} quantile"
        return f"p_a = {self.p_a:g}, p_w = {self.p_w:g}, {clip}"


@dataclass(frozen=True, eq=False)
class Search:
    """What a search has found.

    Attributes:
        rows: the whole grid, what removes least first.
        best: the row with the greatest mean AUROC.
        folds: what was scored by what, for other methods to be scored alike.
        notes: what to know before relying on it.
    """

    rows: tuple[Row, ...]
    best: Row
    folds: tuple[Fold, ...]
    notes: tuple[str, ...]


def tune(sample: Features, labels: Classes, outliers: Mapping[str, Outliers], head: Head) -> Search:
    """Search.

    Args:
        sample: features of ID images, neither those of the thresholds nor those of a test.
        labels: their classes.
        outliers: by kind; made of the sample, or of a validation folder.
        head: W and b of the classifier.

    Raises:
        DatasetError: too few images, too few outliers of a kind, or none at all.
    """
    if not outliers:
        raise DatasetError("tuning needs outliers of one kind at least, found none")
    head = Head(head.weight.cpu(), head.bias.cpu())
    folds = split(labels, outliers, _most_scored(head, len(outliers)))
    grid = score_grid(sample.cpu(), labels, outliers, folds, head)
    rows = tuple(rows_of(grid))
    best = max(rows, key=lambda row: (row.mean_auroc, -row.mean_fpr95))
    notes = (*_notes_on_data(grid, labels, head), *_disagreements(rows, best))
    return Search(rows, best, tuple(folds), notes)


def _most_scored(head: Head, kinds: int) -> int:
    """ID images, and outliers of a kind, that WORK allows for."""
    settings = len(PERCENTILES) ** 2 * len(QUANTILES)
    affordable = int(WORK / (settings * head.weight.numel() * (1 + kinds)))
    return min(SCORED, max(LEAST, affordable))


def rows_of(grid: Grid) -> Iterator[Row]:
    """Every setting with what it separates, what removes least first."""
    for p_a in PERCENTILES:
        for p_w in PERCENTILES:
            for quantile in grid.quantiles:
                inside, outside = grid.scores(p_a, p_w, quantile)
                found = [separate("line", kind, inside, scores) for kind, scores in outside.items()]
                fpr95, auroc = {row.ood: row.fpr95 for row in found}, {row.ood: row.auroc for row in found}
                yield Row(p_a, p_w, quantile, fpr95, auroc)


def _notes_on_data(grid: Grid, labels: Classes, head: Head) -> Iterator[str]:
    left_out = [f"{quantile:g}" for quantile in QUANTILES if quantile not in grid.quantiles and quantile is not None]
    if left_out:
        yield f"clips at the quantiles {', '.join(left_out)} were left out: the features there are not above 0"
    counts = labels.bincount(minlength=len(head.bias))
    rare = int((counts < 2).sum())
    if rare:
        yield (
            f"{rare} of {len(counts)} classes have fewer than two images to tune on: where such an image is scored, "
            "the masks of its class come from the mean over the other classes, rougher than those to be served"
        )


def _disagreements(rows: Sequence[Row], best: Row) -> Iterator[str]:
    """One note for each kind whose favourite fails against another kind."""
    for kind in best.auroc:
        favourite = max(rows, key=lambda row: (row.auroc[kind], -row.fpr95[kind]))
        lost = {other: best.auroc[other] - value for other, value in favourite.auroc.items()}
        worst = max(lost, key=lambda other: lost[other])
        ahead = np.mean([row.auroc[worst] > favourite.auroc[worst] for row in rows])
        if lost[worst] > POINT and ahead >= WORST:
            yield (
                f"the outliers disagree: what is best against {kind!r} ({favourite}) is among the worst third against "
                f"{worst!r}: AUROC {100 * favourite.auroc[worst]:.1f} %; with the settings that are best on average "
                f"{100 * best.auroc[worst]:.1f} %"
            )
