"""The energies of ID images and outliers under every setting of a grid of p_a, p_w and clip, cross-validated.

Class means, masks and δ come from the other folds, see `calibration.folds`; the energies are those of the kernel that
serves. What settings share is computed once: the routed class for each δ, the weight thresholds for each p_w and only
for the classes that anything is routed to, their floors for each p_w, to which p_a only adds +inf.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from calibration.folds import Fold, MethodScores, Outliers
from calibration.masks import build_masks
from calibration.statistics import FeatureStatistics
from calibration.thresholds import threshold_finder
from scoring import line
from scoring.cores import usable_cores
from scoring.metadata import Method
from scoring.types import ClassContribution, Classes, Contribution, Features, Head, WeightFloors

PERCENTILES = (0, 10, 30, 50, 70, 90)  # p_a and p_w
QUANTILES = (None, 0.99, 0.98, 0.97, 0.96, 0.95, 0.9, 0.8)  # of the features, where δ is; close where it matters most
CHUNK = 32  # images scored at once: their features stay in a core's cache

Variant = Literal["signed", "absolute"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Energies of every setting.

    Attributes:
        energies: ood_score (p_a, p_w, clip, image), fold after fold.
        quantiles: of the axis of clips: those of QUANTILES where the features are above 0.
        kinds: for each image the kind of outlier that it is; -1 for an ID image.
        names: of the kinds.
    """

    energies: Float64[np.ndarray, "p_a p_w clip image"]
    quantiles: tuple[float | None, ...]
    kinds: NDArray[np.int64]
    names: tuple[str, ...]

    def scores(self, p_a: float, p_w: float, quantile: float | None) -> MethodScores:
        """The scores of one setting."""
        place = (PERCENTILES.index(p_a), PERCENTILES.index(p_w), self.quantiles.index(quantile))
        found = self.energies[place]
        outside = {name: found[self.kinds == kind] for kind, name in enumerate(self.names)}
        return MethodScores(found[self.kinds < 0], outside)


def score_grid(
    sample: Features, labels: Classes, outliers: Mapping[str, Outliers], folds: Sequence[Fold], head: Head
) -> Grid:
    """Score what the folds hold by what they have been taught.

    Args:
        sample: features of ID images.
        labels: their classes.
        outliers: by kind.
        folds: of these.
        head: W and b, on the CPU.
    """
    variant: Variant = "absolute" if bool((sample < 0).any()) else "signed"
    taught = [_teach(sample[fold.taught], labels[fold.taught], head, variant) for fold in folds]
    quantiles = tuple(q for q in QUANTILES if q is None or all(statistics.quantile(q) > 0 for statistics, _ in taught))
    parts = [
        _prepare(_gather(sample, outliers, fold), contribution, _limits(statistics, quantiles), head)
        for (statistics, contribution), fold in zip(taught, folds, strict=True)
    ]
    kinds = np.concatenate([_kinds_of(fold) for fold in folds])
    return Grid(_score_all(parts, head), quantiles, kinds, tuple(outliers))


@dataclass(frozen=True, eq=False)
class _Part:
    """What one fold has to score, ID images first.

    Attributes:
        features: h (batch, feature).
        contribution: rows of C, of the classes that any of them is routed to under any clip.
        limits: δ for each clip; infinity for none.
        routed: (batch) for each clip: the row of `contribution` that scores the image.
    """

    features: Features
    contribution: Contribution
    limits: list[float]
    routed: list[NDArray[np.int64]]


def _teach(features: Features, labels: Classes, head: Head, variant: Variant) -> tuple[FeatureStatistics, Contribution]:
    statistics = FeatureStatistics.of(features, labels, len(head.bias))
    nothing_removed = Method(variant=variant, p_a=0, p_w=0, clip=None)
    return statistics, build_masks(statistics, head.weight, nothing_removed).contribution


def _limits(statistics: FeatureStatistics, quantiles: Sequence[float | None]) -> list[float]:
    return [np.inf if q is None else statistics.quantile(q) for q in quantiles]


def _gather(sample: Features, outliers: Mapping[str, Outliers], fold: Fold) -> Float[Tensor, "scored feature"]:
    return torch.cat([sample[fold.held], *(outliers[kind].features[own] for kind, own in fold.outliers.items())])


def _kinds_of(fold: Fold) -> NDArray[np.int64]:
    """For each row of `_gather` the place of its kind; -1 for ID."""
    counts = [len(fold.held), *(len(own) for own in fold.outliers.values())]
    return np.repeat(np.arange(-1, len(fold.outliers)), counts)


def _prepare(features: Features, contribution: Contribution, limits: list[float], head: Head) -> _Part:
    features = features.float().contiguous()
    routed = torch.stack([line.routed_class(line.clip(features, limit), head) for limit in limits])  # (clip, batch)
    classes, places = routed.unique(return_inverse=True)
    return _Part(features, contribution[classes], limits, [*places.numpy()])


def _score_all(parts: Sequence[_Part], head: Head) -> Float64[np.ndarray, "p_a p_w clip image"]:
    """The energies of all settings; a thread for each fold and p_w."""
    finders = [threshold_finder(head.weight, p_w) for p_w in PERCENTILES]

    def score(task: tuple[Callable[[ClassContribution], float], _Part]) -> Float64[np.ndarray, "p_a clip image"]:
        return _score(*task, head)

    with ThreadPoolExecutor(usable_cores()) as pool:
        tasks = list(pool.map(score, itertools.product(finders, parts)))
    by_weight = [np.concatenate(tasks[i : i + len(parts)], axis=2) for i in range(0, len(tasks), len(parts))]
    return np.stack(by_weight, axis=1)  # (p_a, p_w, clip, image)


def _score(
    find: Callable[[ClassContribution], float], part: _Part, head: Head
) -> Float64[np.ndarray, "p_a clip image"]:
    contribution = part.contribution
    thresholds = torch.tensor([find(row) for row in contribution], dtype=torch.float64)
    floors = line.weight_floors(contribution, thresholds, torch.ones_like(contribution, dtype=torch.bool))
    found = np.empty((len(PERCENTILES), len(part.limits), len(part.features)))
    for place, p_a in enumerate(PERCENTILES):
        masked = torch.where(line.activation_mask(contribution, p_a), floors, torch.inf)
        for clip, (limit, routed) in enumerate(zip(part.limits, part.routed, strict=True)):
            found[place, clip] = _energies(part.features, limit, routed, head, masked)
    return found


def _energies(
    features: Features, limit: float, routed: NDArray[np.int64], head: Head, floors: WeightFloors
) -> NDArray[np.float32]:
    from scoring.kernels import cpu  # noqa: PLC0415 - numba takes half a second to import

    h, weight, bias, own_floors = (each.numpy() for each in (features, *head, floors))
    energy = np.empty(len(h), np.float32)
    for first in range(0, len(h), CHUNK):
        rows = slice(first, first + CHUNK)
        cpu.masked_energy(h[rows], limit, routed[rows], weight, bias, own_floors, energy[rows])
    return energy
