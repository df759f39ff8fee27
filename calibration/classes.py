"""Class by class: what made its masks, how well it is named, and how often its images are rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import beta

from calibration.mixture import ENDS, Interval
from calibration.rates import Judged
from scoring.groups import ByGroup, ClassGroups
from scoring.metadata import OperatingPoint

LEVEL = 0.95

PerImage = Int64[np.ndarray, "image"]
Bounds = Float64[np.ndarray, "class"]


@dataclass(frozen=True)
class ClassRow:
    """One class on the ID images.

    Attributes:
        mask_images: images that made its masks.
        labelled: ID images whose folder is the class's; None where the folders are no labels.
        accuracy: share of these that are predicted as it; None where there are none.
        predicted: ID images that are predicted as it.
        rejected: those among `predicted` that are rejected at the artifact's first operating point.
        reject_rate: their share; None where none is predicted.
        reject_interval: 95 % interval of the true share (Clopper and Pearson, 1934); 0 to 1 where none is predicted.
        threshold: that decides on the images that are predicted as it.
        calibration_images: that this rests upon.
        expected_interval: 90 % interval of the true share over the draw of these; None where the class is pooled, of
            which nothing is promised one by one.
    """

    index: int
    name: str
    mask_images: int
    labelled: int | None
    accuracy: float | None
    predicted: int
    rejected: int
    reject_rate: float | None
    reject_interval: Interval
    threshold: float
    calibration_images: int
    expected_interval: Interval | None


def class_rows(
    names: Sequence[str],
    mask_images: Int64[np.ndarray, "class"],
    labels: PerImage | None,
    inside: Judged,
    groups: ClassGroups,
    point: OperatingPoint,
) -> list[ClassRow]:
    """A row for each class.

    Args:
        names: by class.
        mask_images: images that made the masks, by class.
        labels: true class of each ID image, where it is known.
        inside: the ID images.
        groups: that make the thresholds.
        point: whose thresholds decide.
    """
    count, thresholds = len(names), point.thresholds_of(groups)
    predicted, rejected = inside.predicted, inside.rejected(thresholds)
    predictions = np.bincount(predicted, minlength=count)
    rejections = np.bincount(predicted[rejected], minlength=count)
    lows, highs = _clopper_pearson(rejections, predictions)
    expected, sizes = _expected(groups, point.ranks_of(groups)), groups.sizes.tolist()
    labelled = None if labels is None else np.bincount(labels, minlength=count)
    correct = None if labels is None else np.bincount(labels[labels == predicted], minlength=count)
    return [
        ClassRow(
            index=k,
            name=names[k],
            mask_images=int(mask_images[k]),
            labelled=None if labelled is None else int(labelled[k]),
            accuracy=None if labelled is None or correct is None else _share(int(correct[k]), int(labelled[k])),
            predicted=int(predictions[k]),
            rejected=int(rejections[k]),
            reject_rate=_share(int(rejections[k]), int(predictions[k])),
            reject_interval=(float(lows[k]), float(highs[k])),
            threshold=float(thresholds[k]),
            calibration_images=sizes[k],
            expected_interval=expected[k] if groups.alone[k] else None,
        )
        for k in range(count)
    ]


def worst(rows: Sequence[ClassRow], count: int) -> list[ClassRow]:
    """The classes that are most surely rejected often: 1 image of 1 says less than 30 of 50.

    Where there are more classes than `count`, those that are never predicted are left out.
    """
    known = [row for row in rows if row.predicted] if len(rows) > count else rows
    return sorted(known, key=lambda row: (-row.reject_interval[0], -(row.reject_rate or 0), row.index))[:count]


def _expected(groups: ClassGroups, ranks: ByGroup) -> list[Interval]:
    """Between what the true rate of each class's group lies; all groups at once, for there may be a thousand."""
    laws = beta(ranks, groups.group_sizes + 1 - ranks)
    low, high = (np.asarray(laws.ppf(end))[groups.group_of].tolist() for end in ENDS)
    return list(zip(low, high, strict=True))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _clopper_pearson(
    successes: Int64[np.ndarray, "class"], trials: Int64[np.ndarray, "class"]
) -> tuple[Bounds, Bounds]:
    tail, failures = (1 - LEVEL) / 2, trials - successes
    # The laws want positive parameters; where there is no success, or no failure, the end is known without them.
    low = np.where(successes == 0, 0, beta.ppf(tail, np.maximum(successes, 1), failures + 1))
    high = np.where(failures == 0, 1, beta.ppf(1 - tail, successes + 1, np.maximum(failures, 1)))
    return low.astype(np.float64), high.astype(np.float64)
