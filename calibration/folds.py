"""Cross-validation on features: what is scored was never learnt from.

The ID sample is cut into FOLDS parts, alike in every class. The images of a part, and the outliers that were made of
them, are scored by what the other parts have taught; an outlier made of an image that taught would look too familiar.
Outliers of other origin (a validation folder) were never learnt from: they go round the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from scoring.conformal import FloatArray
from scoring.errors import DatasetError
from scoring.types import Classes, Features

FOLDS = 5
SEED = 0  # the same folds for the same sample
SCORED = 1000  # ID images, and outliers of a kind, that are scored at most: FPR95 is then known to 1.6 points
NEEDED = 20  # ID images, the least of which one can be rejected while 95 % are accepted

Sources = Int64[Tensor, "outlier"]
Indices = Int64[Tensor, "_"]  # of as many as there are
Score = Callable[[Features], Mapping[str, FloatArray]]  # by method
Fit = Callable[[Features, Classes], Score]


class Outliers(NamedTuple):
    """Outliers of one kind.

    Attributes:
        features: h (outlier, feature).
        sources: index in the ID sample of the image that each was made of; -1 for none of them.
    """

    features: Features
    sources: Sources


@dataclass(frozen=True, eq=False)
class Fold:
    """What is learnt from, and what is scored by it.

    Attributes:
        taught: indices into the ID sample, all but this part.
        held: indices into the ID sample, of this part.
        outliers: indices into the outliers of each kind; their sources are in this part, whether in `held` or not.
    """

    taught: Indices
    held: Indices
    outliers: dict[str, Indices]


class MethodScores(NamedTuple):
    """Scores of one method, higher = more out-of-distribution: of ID images, and of outliers by kind."""

    inside: FloatArray
    outside: dict[str, FloatArray]


def parts_of(labels: Classes) -> Classes:
    """Which of the FOLDS parts each image is in.

    Class after class, each FOLDS images go to as many parts, in an order drawn anew: outliers that were made of every
    n-th image are in all parts, too.
    """
    turns = np.tile(np.arange(FOLDS), (-(-len(labels) // FOLDS), 1))
    drawn = np.random.default_rng(SEED).permuted(turns, axis=1).ravel()[: len(labels)]
    parts = torch.empty_like(labels)
    parts[labels.argsort(stable=True)] = torch.from_numpy(drawn)
    return parts


def split(labels: Classes, outliers: Mapping[str, Outliers], most: int = SCORED) -> list[Fold]:
    """Cut the sample and the outliers into folds.

    Args:
        labels: of the ID sample.
        outliers: by kind.
        most: ID images, and outliers of a kind, that are scored, all folds together: evenly spread over all.
            Every image teaches, however few are scored.

    Raises:
        DatasetError: there are too few ID images, or no outliers of a kind.
    """
    if len(labels) < NEEDED:
        raise DatasetError(f"cross-validation needs at least {NEEDED} in-distribution images, found {len(labels)}")
    for kind, (_, sources) in outliers.items():
        if len(sources) < FOLDS:
            raise DatasetError(f"outliers {kind!r}: wanted at least {FOLDS}, found {len(sources)}")
    parts = parts_of(labels)
    folds = []
    for part in range(FOLDS):
        own = {kind: _thin(_own_outliers(sources, parts, part), most) for kind, (_, sources) in outliers.items()}
        folds.append(Fold(_where(parts != part), _thin(_where(parts == part), most), own))
    return folds


def cross_validate(
    fit: Fit, sample: Features, labels: Classes, outliers: Mapping[str, Outliers], folds: Sequence[Fold]
) -> dict[str, MethodScores]:
    """Scores of the folds by method, one fold after the other, each by what the rest has taught.

    Args:
        fit: learns from features and labels, and returns what scores features.
        sample: ID features.
        labels: of the sample.
        outliers: by kind.
        folds: `split` of these.
    """
    inside: list[Mapping[str, FloatArray]] = []
    outside: dict[str, list[Mapping[str, FloatArray]]] = {kind: [] for kind in outliers}
    for fold in folds:
        score = fit(sample[fold.taught], labels[fold.taught])
        inside.append(score(sample[fold.held]))
        for kind, scores in outside.items():
            scores.append(score(outliers[kind].features[fold.outliers[kind]]))
    return {
        method: MethodScores(_joined(inside, method), {kind: _joined(own, method) for kind, own in outside.items()})
        for method in inside[0]
    }


def _joined(scores: Sequence[Mapping[str, FloatArray]], method: str) -> FloatArray:
    return np.concatenate([own[method] for own in scores])


def _own_outliers(sources: Sources, parts: Classes, part: int) -> Indices:
    round_robin = torch.arange(len(sources)) % FOLDS
    return _where(torch.where(sources >= 0, parts[sources.clamp(min=0)], round_robin) == part)


def _where(chosen: Tensor) -> Indices:
    return chosen.nonzero()[:, 0]


def _thin(indices: Indices, most: int) -> Indices:
    """One fold's share of `most`."""
    kept = min(len(indices), max(1, most // FOLDS))
    return indices[torch.arange(kept) * len(indices) // max(kept, 1)]
