"""The scores beside LINe: fitted to the sample of the pass, and merged where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from calibration.learnt import Learnt
from calibration.reference import reference_scores
from calibration.roster import Roster
from scoring.combination import Combination
from scoring.conformal import FloatArray
from scoring.ensemble import Ensemble, restore_ensemble
from scoring.methods import Sample, fit_all, tensors_of
from scoring.types import Features, Head

ROWS = 256  # of the sample, scored at a time


@dataclass(frozen=True, eq=False)
class Fitted:
    """All scores of one calibration.

    Attributes:
        ensemble: restored from what the artifact will hold, and so scoring as it will be served.
        settings: hyper-parameters of the methods beside LINe, by name.
        combined: methods that are merged.
        tensors: what methods and merge have learnt.
    """

    ensemble: Ensemble
    settings: dict[str, dict[str, float]]
    combined: tuple[str, ...]
    tensors: dict[str, Tensor]


def fit_ensemble(head: Head, learnt: Learnt, sample: Sample, roster: Roster) -> Fitted:
    """Fit.

    Args:
        head: of the classifier, on the device where it scores.
        learnt: LINe.
        sample: what to fit to; none of its images makes the thresholds.
        roster: what to fit.

    Raises:
        DatasetError: the scores of a method cannot be merged.
    """
    fitted = fit_all(roster.methods, sample, Head(*(each.cpu() for each in head)), learnt.detector)
    settings = {name: method.settings() for name, method in fitted.items()}
    tensors = tensors_of(fitted)
    if roster.combined:
        tensors |= Combination.fit(reference_scores(head, learnt, sample, roster.combined)).tensors()
    ensemble = restore_ensemble(head, learnt.detector, settings, roster.combined, tensors)
    return Fitted(ensemble, settings, roster.combined, tensors)


def scores_of(ensemble: Ensemble, features: Features, names: Sequence[str]) -> dict[str, FloatArray]:
    """Scores of many images, by method; a part at a time, so that they fit into memory."""
    parts = [ensemble.score(rows, names)[1] for rows in features.split(ROWS)]
    return {name: np.concatenate([part[name].double().cpu().numpy() for part in parts]) for name in names}
