"""Which pictures a report has: PNG files by name."""

from __future__ import annotations

from calibration import pictures
from calibration.class_pictures import count_picture, reject_picture
from calibration.evaluate import Evaluation
from calibration.grid_picture import grid_picture
from calibration.grouped import threshold_ranges
from calibration.separation import MEAN
from calibration.tuning import Tuning
from scoring.artifact import Artifact


def evaluation_pictures(evaluation: Evaluation) -> dict[str, bytes]:
    """Histograms, ROC curves, reliability (where any rate can be promised), reject rates and counts by class."""
    method, artifact, inside = evaluation.method, evaluation.artifact, evaluation.inside
    names = artifact.metadata.classifier.class_names
    thresholds = threshold_ranges(artifact)
    of_method = {name: folder.scores[method] for name, folder in evaluation.outside.items()}
    found = {
        "histograms": pictures.histograms(method, inside.scores[method], of_method, thresholds),
        "roc": pictures.roc(
            ranked(evaluation), inside.scores, {name: folder.scores for name, folder in evaluation.outside.items()}
        ),
        "classes": reject_picture(evaluation.classes, evaluation.reject_rates[0].realised),
        "counts": count_picture(names, artifact.counts.tolist()),
    }
    if evaluation.reliability:
        found["reliability"] = pictures.reliability(evaluation.reliability, evaluation.id_images)
    return found


def calibration_pictures(artifact: Artifact, tuning: Tuning | None = None) -> dict[str, bytes]:
    """The calibration scores with their thresholds, the images a class, and what was searched."""
    metadata = artifact.metadata
    searched = {} if tuning is None or tuning.search is None else {"grid": grid_picture(tuning.search)}
    return searched | {
        "calibration": pictures.calibration_histogram(
            metadata.primary, artifact.calibration_scores, threshold_ranges(artifact)
        ),
        "counts": count_picture(metadata.classifier.class_names, artifact.counts.tolist()),
    }


def ranked(evaluation: Evaluation) -> list[str]:
    """The methods: the one that decides, then the others, those with the best mean AUROC first."""
    auroc = {row.method: row.auroc for row in evaluation.separations if row.ood == MEAN}
    return sorted(auroc, key=lambda method: (method != evaluation.method, -auroc[method]))
