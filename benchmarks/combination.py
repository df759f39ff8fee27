"""Ways to merge LINe and Energy, on made outliers: what `scoring.combination` was chosen by, a table of docs/method.md.

    python -m benchmarks.combination DATA cifar10|lite0

Networks, images and outliers are those of benchmarks.tuning. LINe is cross-validated, as its settings are there; its
scores of the images of the masks are both the reference and the ID images. No OOD folder is read.

Rows: a merge of p-values; each with p-values that are counted, and with those of `scoring.combination`, which are
at least logistic. In the last column the worst loss: by how many points of FPR95 a merge is above the better of its two
parts, on the outliers where that is the most. A merge that is to stand in for both has to keep that small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, ndtri_exp

from benchmarks.tuning import CASES, see
from calibration.candidates import score_candidates
from calibration.folds import MethodScores, split
from calibration.report import table
from calibration.roster import Roster
from calibration.separation import separate
from scoring.classifier import load_classifier
from scoring.combination import LogOdds, counted_knots, knots
from scoring.conformal import FloatArray
from scoring.engines.engine import EngineChoice

PARTS = Roster(("energy",), (), {})  # beside LINe
MERGES: dict[str, Callable[[FloatArray], FloatArray]] = {  # of log odds (method, batch)
    "smallest p (Tippett)": lambda odds: odds.max(0),
    "harmonic mean of p (Wilson)": np.logaddexp.reduce,
    "sum of log p (Fisher)": lambda odds: np.logaddexp(0, odds).sum(0),
    "sum of log odds (Mudholkar, George)": lambda odds: odds.sum(0),
    "sum of normal scores (Stouffer)": lambda odds: -ndtri_exp(-np.logaddexp(0, odds)).sum(0),
    "mean of p (Vovk, Wang)": lambda odds: -expit(-odds).sum(0),
}
TAILS = {"counted": counted_knots, "at least logistic": knots}


def merged(
    parts: Mapping[str, MethodScores], odds: Mapping[str, LogOdds], merge: Callable[..., FloatArray]
) -> MethodScores:
    """The merge of the methods' scores."""

    def of(scores: Mapping[str, FloatArray]) -> FloatArray:
        return merge(np.stack([odds[name](own) for name, own in scores.items()]))

    kinds = next(iter(parts.values())).outside
    outside = {kind: of({name: own.outside[kind] for name, own in parts.items()}) for kind in kinds}
    return MethodScores(of({name: own.inside for name, own in parts.items()}), outside)


def row(name: str, scores: MethodScores, best: Mapping[str, float]) -> list[str]:
    """FPR95 of each kind in percent, its mean, and the worst loss."""
    found = {kind: 100 * separate(name, kind, scores.inside, out).fpr95 for kind, out in scores.outside.items()}
    losses = [value - best[kind] for kind, value in found.items()]
    return [
        name,
        *(f"{value:.1f}" for value in found.values()),
        f"{np.mean([*found.values()]):.2f}",
        f"{max(losses):.1f}",
    ]


def main(data: Path, name: str) -> None:
    """One pass, then every merge."""
    case = CASES[name](data)
    classifier = load_classifier(case.parts, torch.device("cpu"), choice=EngineChoice.parse("openvino:float32"))
    sample, outliers = see(classifier, case.masks)
    folds = split(sample.labels, outliers, most=len(sample.labels))
    parts = score_candidates(sample, outliers, folds, classifier.head, case.preset, PARTS)
    kinds = list(outliers)
    best = {
        kind: min(100 * separate(part, kind, own.inside, own.outside[kind]).fpr95 for part, own in parts.items())
        for kind in kinds
    }
    rows = [row(part, own, best) for part, own in parts.items()]
    for tail, knots_of in TAILS.items():
        odds = {part: LogOdds.through(*knots_of(own.inside)) for part, own in parts.items()}
        rows += [row(f"{way}, {tail}", merged(parts, odds, merge), best) for way, merge in MERGES.items()]
    print(table(["FPR95", *kinds, "mean", "worst loss"], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
