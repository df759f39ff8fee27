"""What became of the promised false-reject rate: at the operating points, and over all rates that could be promised.

With n calibration scores and l of them from the threshold on, the true rate is Beta(l, n + 1 - l) over the draw of the
calibration set; the share of m fresh ID images that are rejected is BetaBinomial(m, l, n + 1 - l).
(Bates et al. 2021, arXiv 2104.08279.) Where predicted classes have thresholds of their own it is a mixture of these,
see `calibration.mixture`, with the shares of the ID images at hand.
Higher = more out-of-distribution; rejected is what is above the threshold of its predicted class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from calibration.mixture import Interval, Mixture
from scoring import conformal
from scoring.conformal import FloatArray
from scoring.groups import ByClass, ByGroup, ClassGroups, Predicted
from scoring.metadata import OperatingPoint

ALPHAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)

Flags = Bool[np.ndarray, "image"]


class Judged(NamedTuple):
    """Images of one folder: their scores by one method, and their predicted classes."""

    scores: FloatArray
    predicted: Predicted

    def rejected(self, thresholds: ByClass) -> Flags:
        """Whether each image is above the threshold of its predicted class."""
        found: Flags = self.scores > thresholds[self.predicted]
        return found


@dataclass(frozen=True)
class PartRate:
    """What became of the promise on those ID images whose predicted class stands alone, or is pooled.

    Attributes:
        images: how many there are.
        realised: share of these rejected.
        interval: 90 % interval of their true rate, over the draw of the calibration set.
    """

    images: int
    realised: float
    interval: Interval


@dataclass(frozen=True)
class RejectRate:
    """What became of the promised false-reject rate on the ID images.

    Attributes:
        realised: share of ID images rejected.
        interval: 90 % interval of the true rate, over the draw of the calibration set.
        ood: share of images rejected, by OOD folder; nothing is promised of these.
        alone: of ID images whose predicted class has thresholds of its own; None where there are none.
        pooled: of the others, where there are such classes.
    """

    operating_point: str
    alpha: float
    realised: float
    interval: Interval
    ood: dict[str, float]
    alone: PartRate | None
    pooled: PartRate | None


@dataclass(frozen=True)
class Reliability:
    """A rate that could have been promised, and what would have become of it.

    Attributes:
        alpha: target false-reject rate.
        realised: share of ID images above the thresholds of `alpha`.
        interval: 90 % interval of the true rate, over the draw of the calibration set.
        realised_interval: 90 % interval of `realised`, over the draw of these ID images, too.
    """

    alpha: float
    realised: float
    interval: Interval
    realised_interval: Interval


def reject_rates(
    points: Sequence[OperatingPoint], groups: ClassGroups, inside: Judged, outside: Mapping[str, Judged]
) -> list[RejectRate]:
    """A row for each operating point, from ID images and those of each OOD folder."""
    return [_reject_rate(point, groups, inside, outside) for point in points]


def reliability(groups: ClassGroups, inside: Judged) -> list[Reliability]:
    """A row for each of `ALPHAS` that the smallest group can keep."""
    kept = [alpha for alpha in ALPHAS if conformal.rank(int(groups.group_sizes.min()), alpha) >= 1]
    rows = []
    for alpha in kept:
        mixture = _mixture(groups, groups.ranks(alpha), inside.predicted)
        realised = float(inside.rejected(groups.thresholds(alpha)).mean())
        rows.append(Reliability(alpha, realised, mixture.rate_interval(), mixture.share_interval()))
    return rows


def _reject_rate(
    point: OperatingPoint, groups: ClassGroups, inside: Judged, outside: Mapping[str, Judged]
) -> RejectRate:
    thresholds, ranks = point.thresholds_of(groups), point.ranks_of(groups)
    rejected, alone = inside.rejected(thresholds), groups.alone[inside.predicted]

    def part(rows: Flags) -> PartRate:
        interval = _mixture(groups, ranks, inside.predicted[rows]).rate_interval()
        return PartRate(int(rows.sum()), float(rejected[rows].mean()), interval)

    return RejectRate(
        operating_point=point.name,
        alpha=point.alpha,
        realised=float(rejected.mean()),
        interval=_mixture(groups, ranks, inside.predicted).rate_interval(),
        ood={name: float(judged.rejected(thresholds).mean()) for name, judged in outside.items()},
        alone=part(alone) if alone.any() else None,
        pooled=part(~alone) if groups.alone.any() and not alone.all() else None,
    )


def _mixture(groups: ClassGroups, ranks: ByGroup, predicted: Predicted) -> Mixture:
    return Mixture.of(groups, ranks, np.bincount(predicted, minlength=len(groups.counts)))
