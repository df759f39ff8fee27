"""Every score that an artifact could publish, cross-validated as it would be served.

In each fold LINe learns its masks, and the other methods are fitted and merged, on the images that teach, by the code
that makes the artifact; see `calibration.folds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.ensemble import fit_ensemble, scores_of
from calibration.folds import Fold, MethodScores, Outliers, Score, cross_validate
from calibration.learnt import learn
from calibration.roster import Roster
from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics
from scoring.methods import Sample
from scoring.types import Classes, Features, Head


def score_candidates(
    sample: Sample,
    outliers: Mapping[str, Outliers],
    folds: Sequence[Fold],
    head: Head,
    settings: LineSettings,
    roster: Roster,
) -> dict[str, MethodScores]:
    """Scores by method, LINe first.

    Args:
        sample: ID images.
        outliers: by kind.
        folds: of these.
        head: of the classifier.
        settings: LINe's.
        roster: the others.

    Raises:
        DatasetError: a fold has too few images for LINe's clip.
    """

    def fit(features: Features, labels: Classes) -> Score:
        statistics = FeatureStatistics.of(features, labels, len(head.bias))
        learnt = learn(statistics, head, settings)
        ensemble = fit_ensemble(head, learnt, Sample(features, labels), roster).ensemble
        return lambda scored: scores_of(ensemble, scored.to(head.weight.device), ensemble.names)

    return cross_validate(fit, sample.features, sample.labels, outliers, folds)
