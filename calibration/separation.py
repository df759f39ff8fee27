"""How well scores separate out-of-distribution images from in-distribution ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

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
    """

    method: str
    ood: str
    fpr95: float
    auroc: float
    aupr_in: float
    aupr_out: float


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
