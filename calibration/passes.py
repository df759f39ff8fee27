"""The two streaming passes of a calibration: images to class means, and held-out images to scores.

Each goes on from its partial state, if there is one, and refuses a network that answers with NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool

from calibration.dataset import LabelledImages
from calibration.partial import Partial
from calibration.sample import SampleRoom
from calibration.statistics import FeatureStatistics
from calibration.walk import Pass, walk
from scoring.classifier import Classifier
from scoring.conformal import FloatArray
from scoring.ensemble import Ensemble
from scoring.errors import DatasetError
from scoring.groups import Predicted
from scoring.methods import Sample
from scoring.types import Classes, Features

NAMED = 5  # files that an error names
PREDICTED = "predicted"  # name of a partial state's tensor, beside those of methods

Finite = Bool[np.ndarray, "batch"]
Column = npt.NDArray[Any]  # of a table of the images scored so far


def collect_statistics(
    classifier: Classifier, images: LabelledImages, partial: Partial
) -> tuple[FeatureStatistics, Sample, Pass]:
    """The pass for the masks.

    Raises:
        DatasetError: no image can be read, or the features of one are not finite.
    """
    statistics, record = FeatureStatistics(*classifier.head.weight.shape), Pass()
    room = SampleRoom(len(images.items))
    if left := partial.load():
        record, tensors = left
        statistics = FeatureStatistics.from_tensors(tensors)
        room.restore(tensors)

    @torch.inference_mode()
    def run(features: Features) -> tuple[Features, Classes]:
        logits = torch.addmm(classifier.head.bias, features, classifier.head.weight.T)
        return features.cpu(), logits.argmax(1).cpu()

    for indices, (features, predicted) in walk(images.paths, classifier, run, "masks", record):
        _refuse_unless(np.isfinite(features.numpy()).all(1), images, indices)
        labels = images.labels(indices)
        statistics.update(features, labels)
        room.add(indices, features, labels)
        record.correct += int((predicted == labels).sum())
        partial.save_if_due(record, lambda: statistics.tensors() | room.tensors())
    return statistics, room.sample(), record


def score_holdout(
    classifier: Classifier, ensemble: Ensemble, images: LabelledImages, partial: Partial
) -> tuple[dict[str, FloatArray], Predicted, Pass]:
    """The pass for the thresholds: scores by method, and the classes that are predicted.

    Raises:
        DatasetError: no image can be read, or a score of one is not finite.
    """
    record = Pass()
    columns: dict[str, list[Column]] = {name: [np.empty(0)] for name in ensemble.names}
    columns[PREDICTED] = [np.empty(0, np.int64)]
    if left := partial.load():
        record, tensors = left
        columns = {name: [tensors[name].numpy()] for name in columns}

    def run(features: Features) -> tuple[dict[str, FloatArray], Finite, Classes]:
        logits, found = ensemble.score(features, ensemble.names)
        own = {name: each.double().cpu().numpy() for name, each in found.items()}
        finite = logits.isfinite().all(1).cpu().numpy()
        return own, np.logical_and.reduce([finite, *map(np.isfinite, own.values())]), logits.argmax(1).cpu()

    for indices, (found, finite, predicted) in walk(images.paths, classifier, run, "thresholds", record):
        _refuse_unless(finite, images, indices)
        for name, own in {**found, PREDICTED: predicted.numpy()}.items():
            columns[name].append(own)
        record.correct += int((predicted == images.labels(indices)).sum())
        partial.save_if_due(
            record, lambda: {name: torch.from_numpy(np.concatenate(own)) for name, own in columns.items()}
        )
    scores = {name: np.concatenate(own) for name, own in columns.items()}
    classes = scores.pop(PREDICTED)
    return scores, classes, record


def _refuse_unless(finite: Finite, images: LabelledImages, indices: Sequence[int]) -> None:
    if finite.all():
        return
    bad = [str(images.items[index][0]) for index, good in zip(indices, finite, strict=True) if not good]
    names = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
    raise DatasetError(f"the classifier answers with NaN or infinity, so that nothing can be calibrated: {names}")
