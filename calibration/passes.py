"""The two streaming passes of a calibration: images to class means, and held-out images to scores.

Each goes on from its partial state, if there is one, and refuses a network that answers with NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool

from calibration.dataset import LabelledImages
from calibration.loader import Pass, walk
from calibration.partial import Partial
from calibration.statistics import FeatureStatistics, top_1
from scoring.classifier import Classifier
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.errors import DatasetError

NAMED = 5  # files that an error names


def collect_statistics(
    classifier: Classifier, images: LabelledImages, partial: Partial
) -> tuple[FeatureStatistics, Pass]:
    """The pass for the masks.

    Raises:
        DatasetError: no image can be read, or the features of one are not finite.
    """
    statistics, record = FeatureStatistics(*classifier.head.weight.shape), Pass()
    if found := partial.load():
        record, tensors = found
        statistics = FeatureStatistics.from_tensors(tensors)
    for indices, pixels in walk(images.paths, classifier.preprocess, "masks", record):
        features, logits = classifier.forward(pixels)
        features = features.float().cpu()
        _refuse_unless(np.isfinite(features.numpy()).all(1), images, indices)
        labels = images.labels(indices)
        statistics.update(features, labels)
        record.correct += top_1(logits, labels)
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
    if found := partial.load():
        record, tensors = found
        scores = [tensors["scores"].numpy()]
    for indices, pixels in walk(images.paths, classifier.preprocess, "thresholds", record):
        logits, ood_scores = detector.score(classifier.features(pixels))
        logits, ood_scores = logits.cpu(), ood_scores.double().cpu()
        finite = np.isfinite(logits.numpy()).all(1) & np.isfinite(ood_scores.numpy())
        _refuse_unless(finite, images, indices)
        scores.append(ood_scores.numpy())
        record.correct += top_1(logits, images.labels(indices))
        partial.save_if_due(record, lambda: {"scores": torch.from_numpy(np.concatenate(scores))})
    return np.sort(np.concatenate(scores)), record


def _refuse_unless(finite: Bool[np.ndarray, "batch"], images: LabelledImages, indices: Sequence[int]) -> None:
    if finite.all():
        return
    bad = [str(images.items[index][0]) for index, good in zip(indices, finite, strict=True) if not good]
    names = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
    raise DatasetError(f"the classifier answers with NaN or infinity, so that nothing can be calibrated: {names}")
