"""What a merge takes for usual: scores of the images of the masks, each by a method that has not learnt from the image.

An image that taught LINe its masks looks familiar to it: where a class has one image (the embedded network), more than
half of the new images score above four fifths of those that taught. Energy learns nothing, and two such scales do not
compare. So the sample is cut into parts as `calibration.folds` cuts it, and each is scored by what the others teach.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.folds import parts_of
from calibration.learnt import Learnt
from calibration.masks import build_masks
from calibration.statistics import FeatureStatistics
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.ensemble import LINE, Ensemble, restore_ensemble
from scoring.errors import DatasetError
from scoring.methods import Sample, fit_all, tensors_of
from scoring.types import Head

ROWS = 256  # scored at a time


def reference_scores(head: Head, learnt: Learnt, sample: Sample, names: Sequence[str]) -> dict[str, FloatArray]:
    """Scores of the sample by method, the images in no particular order.

    Args:
        head: of the classifier, on its device.
        learnt: LINe, whose settings stay as they are.
        sample: of ID images.
        names: LINe among them or not.

    Raises:
        DatasetError: the sample is a single image, which leaves none to learn from.
    """
    features, labels = sample.features, sample.labels
    if len(labels) < 2:
        raise DatasetError("a merge of scores needs at least two images for the masks, found 1")
    parts = parts_of(labels)
    found: dict[str, list[FloatArray]] = {name: [] for name in names}
    for part in parts.unique().tolist():
        taught = _taught(head, learnt, Sample(features[parts != part], labels[parts != part]), names)
        for rows in features[parts == part].to(head.weight.device).split(ROWS):
            for name, scores in taught.score(rows, names)[1].items():
                found[name].append(scores.double().cpu().numpy())
    return {name: np.concatenate(chunks) for name, chunks in found.items()}


def _taught(head: Head, learnt: Learnt, sample: Sample, names: Sequence[str]) -> Ensemble:
    on_cpu = Head(head.weight.cpu(), head.bias.cpu())
    statistics = FeatureStatistics.of(sample.features, sample.labels, len(head.bias))
    masks = build_masks(statistics, on_cpu.weight, learnt.method)
    detector = LineDetector(head, masks, learnt.method.clip)
    others = fit_all([name for name in names if name != LINE], sample, on_cpu, detector)
    settings = {name: method.settings() for name, method in others.items()}
    return restore_ensemble(head, detector, settings, (), tensors_of(others))
