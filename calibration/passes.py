"""The two streaming passes of a calibration: images to class means, and held-out images to scores.

Each goes on from its partial state, if there is one, and refuses a network that answers with NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool

from calibration.dataset import LabelledImages
from calibration.partial import Partial
from calibration.sample import Places, SampleRoom
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


class Collected(NamedTuple):
    """What the pass for the masks leaves behind.

    Attributes:
        statistics: of all images.
        sample: features of some of them.
        places: for each image of the sample its place among the files.
        record: what was met.
    """

    statistics: FeatureStatistics
    sample: Sample
    places: Places
    record: Pass


def collect_statistics(classifier: Classifier, images: LabelledImages, partial: Partial) -> Collected:
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

    paths = images.paths
    for indices, (features, predicted) in walk(paths, classifier, run, "masks", record):
        refuse_unless(np.isfinite(features.numpy()).all(1), paths, indices)
        labels = images.labels(indices)
        statistics.update(features, labels)
        room.add(indices, features, labels)
        record.correct += int((predicted == labels).sum())
        partial.save_if_due(record, lambda: statistics.tensors() | room.tensors())
    return Collected(statistics, room.sample(), room.places, record)


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

    paths = images.paths
    for indices, (found, finite, predicted) in walk(paths, classifier, run, "thresholds", record):
        refuse_unless(finite, paths, indices)
        for name, own in {**found, PREDICTED: predicted.numpy()}.items():
            columns[name].append(own)
        record.correct += int((predicted == images.labels(indices)).sum())
        partial.save_if_due(
            record, lambda: {name: torch.from_numpy(np.concatenate(own)) for name, own in columns.items()}
        )
    scores = {name: np.concatenate(own) for name, own in columns.items()}
    classes = scores.pop(PREDICTED)
    return scores, classes, record


def refuse_unless(finite: Finite, paths: Sequence[Path], indices: Sequence[int]) -> None:
    """Refuse images that the classifier answers with NaN or infinity.

    Args:
        finite: whether the answers to a batch are.
        paths: all files of the pass.
        indices: which of them the batch holds.

    Raises:
        DatasetError: one is not; names the files.
    """
    if finite.all():
        return
    bad = [str(paths[index]) for index, good in zip(indices, finite, strict=True) if not good]
    names = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
    raise DatasetError(f"the classifier answers with NaN or infinity, so that nothing can be calibrated: {names}")
