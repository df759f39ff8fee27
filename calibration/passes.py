"""The two streaming passes of a calibration: images to class means, and held-out images to scores.

Each goes on from its partial state, if there is one, and refuses a network that answers with NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool

from calibration.dataset import LabelledImages
from calibration.partial import Partial
from calibration.statistics import FeatureStatistics
from calibration.walk import Pass, walk
from scoring.classifier import Classifier
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.errors import DatasetError
from scoring.types import Classes, Features

NAMED = 5  # files that an error names

Finite = Bool[np.ndarray, "batch"]


def collect_statistics(
    classifier: Classifier, images: LabelledImages, partial: Partial
) -> tuple[FeatureStatistics, Pass]:
    """The pass for the masks.

    Raises:
        DatasetError: no image can be read, or the features of one are not finite.
    """
    statistics, record = FeatureStatistics(*classifier.head.weight.shape), Pass()
    if left := partial.load():
        record, tensors = left
        statistics = FeatureStatistics.from_tensors(tensors)

    @torch.inference_mode()
    def run(features: Features) -> tuple[Features, Classes]:
        logits = torch.addmm(classifier.head.bias, features, classifier.head.weight.T)
        return features.cpu(), logits.argmax(1).cpu()

    for indices, (features, predicted) in walk(images.paths, classifier, run, "masks", record):
        _refuse_unless(np.isfinite(features.numpy()).all(1), images, indices)
        labels = images.labels(indices)
        statistics.update(features, labels)
        record.correct += int((predicted == labels).sum())
        partial.save_if_due(record, statistics.tensors)
    return statistics, record


def score_holdout(
    classifier: Classifier, detector: LineDetector, images: LabelledImages, partial: Partial
) -> tuple[FloatArray, Pass]:
    """The pass for the thresholds: scores in ascending order.

    Raises:
        DatasetError: no image can be read, or the score of one is not finite.
    """
    record, scores = Pass(), [np.empty(0)]
    if left := partial.load():
        record, tensors = left
        scores = [tensors["scores"].numpy()]

    def run(features: Features) -> tuple[FloatArray, Finite, Classes]:
        logits, ood_scores = detector.score(features)
        found = ood_scores.double().cpu().numpy()
        return found, logits.isfinite().all(1).cpu().numpy() & np.isfinite(found), logits.argmax(1).cpu()

    for indices, (found, finite, predicted) in walk(images.paths, classifier, run, "thresholds", record):
        _refuse_unless(finite, images, indices)
        scores.append(found)
        record.correct += int((predicted == images.labels(indices)).sum())
        partial.save_if_due(record, lambda: {"scores": torch.from_numpy(np.concatenate(scores))})
    return np.sort(np.concatenate(scores)), record


def _refuse_unless(finite: Finite, images: LabelledImages, indices: Sequence[int]) -> None:
    if finite.all():
        return
    bad = [str(images.items[index][0]) for index, good in zip(indices, finite, strict=True) if not good]
    names = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
    raise DatasetError(f"the classifier answers with NaN or infinity, so that nothing can be calibrated: {names}")
