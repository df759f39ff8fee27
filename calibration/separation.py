"""How well scores separate out-of-distribution images from in-distribution ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from calibration.bootstrap import Draws, bootstrap, interval
from scoring.conformal import FloatArray

MEAN = "mean"


@dataclass(frozen=True)
class Separation:
    """How well one method separates one OOD folder from the ID images. All between 0 and 1.

    Attributes:
        fpr95: share of OOD images accepted where 95 % of ID images are.
        auroc: area under the ROC curve.
        aupr_in: area under the precision-recall curve with ID as the positive class.
        aupr_out: the same with OOD as the positive class.
        fpr95_low, fpr95_high, auroc_low, auroc_high: ends of 95 % intervals over the draw of the images, see
            `calibration.bootstrap`; None where nobody asked.
    """

    method: str
    ood: str
    fpr95: float
    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95_low: float | None = None
    fpr95_high: float | None = None
    auroc_low: float | None = None
    auroc_high: float | None = None


def separate_all(
    id_scores: Mapping[str, FloatArray], ood_scores: Mapping[str, Mapping[str, FloatArray]]
) -> list[Separation]:
    """A row for each method and OOD folder, then one for each method's mean, all with their intervals.

    Args:
        id_scores: by method, one an image.
        ood_scores: by folder, then by method.
    """
    draws = bootstrap(id_scores, ood_scores)
    rows = [
        separate(method, name, id_scores[method], scores[method])
        for method in id_scores
        for name, scores in ood_scores.items()
    ]
    means = [mean_separation(rows, method) for method in id_scores]
    of_means = {method: np.mean([draws[method, name] for name in ood_scores], axis=0) for method in id_scores}
    return [_bounded(row, draws[row.method, row.ood]) for row in rows] + [
        _bounded(row, of_means[row.method]) for row in means
    ]


def separate(method: str, ood: str, id_scores: FloatArray, ood_scores: FloatArray) -> Separation:
    """Compare the scores of ID and OOD images; higher = more out-of-distribution."""
    is_id = np.concatenate([np.ones(len(id_scores)), np.zeros(len(ood_scores))])
    scores = np.concatenate([id_scores, ood_scores])
    fpr, tpr, _ = roc_curve(is_id, -scores, drop_intermediate=False)  # ID is positive, as the field counts FPR95
    return Separation(
        method=method,
        ood=ood,
        fpr95=float(fpr[np.argmax(tpr >= 0.95)]),
        auroc=float(roc_auc_score(is_id, -scores)),
        aupr_in=float(average_precision_score(is_id, -scores)),
        aupr_out=float(average_precision_score(1 - is_id, scores)),
    )


def mean_separation(separations: Iterable[Separation], method: str) -> Separation:
    """The mean of one method over the OOD folders."""
    rows = [row for row in separations if row.method == method]
    numbers = [(row.fpr95, row.auroc, row.aupr_in, row.aupr_out) for row in rows]
    return Separation(method, MEAN, *(float(value) for value in np.mean(numbers, axis=0)))


def _bounded(row: Separation, draws: Draws) -> Separation:
    (fpr95_low, fpr95_high), (auroc_low, auroc_high) = (interval(values) for values in draws)
    return replace(row, fpr95_low=fpr95_low, fpr95_high=fpr95_high, auroc_low=auroc_low, auroc_high=auroc_high)
