"""How good a calibrated classifier is on held-out images alone, and what int8 has changed of that.

FPR95 needs outliers; they are made of the same images, see `calibration.outliers`.
"""

from __future__ import annotations

import numpy as np

from calibration import outliers
from calibration.dataset import LabelledImages
from calibration.loader import read_batches
from calibration.separation import separate
from scoring.classifier import Classifier
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.errors import DatasetError, EngineError
from scoring.metadata import Quality, Quantisation
from scoring.types import Classes, PixelBatch

ROUNDING = 1e-9  # of a difference of shares: one point exactly is within one point
COMPARED = 1000  # images, at most; with their outliers three times as many


def measure_quality(classifier: Classifier, detector: LineDetector, images: LabelledImages) -> tuple[Quality, int]:
    """Top-1, and FPR95 of `ood_score` against the outliers; and how many of the images could be read.

    Raises:
        DatasetError: none of the images can be read.
    """
    inside: list[FloatArray] = []
    outside: list[FloatArray] = []
    correct = 0
    for batch in read_batches(images.paths, classifier.preprocess):
        if batch.pixels is None:
            continue
        scores, predicted = _score(classifier, detector, batch.pixels)
        inside.append(scores)
        correct += int((predicted == images.labels(batch.indices)).sum())
        seed = batch.indices[0]  # the same outliers for every engine
        outside += [_score(classifier, detector, make(batch.pixels, seed))[0] for make in outliers.RULES]
    if not inside:
        raise DatasetError(f"none of {len(images.items)} held-out images can be read: int8 cannot be compared")
    id_scores = np.concatenate(inside)
    fpr95 = separate("line", "made", id_scores, np.concatenate(outside)).fpr95
    return Quality(accuracy=correct / len(id_scores), fpr95=fpr95), len(id_scores)


def check_tolerance(quantisation: Quantisation, tolerance: float) -> None:
    """Refuse int8 where it costs more than is allowed.

    Raises:
        EngineError: top-1 has fallen, or FPR95 risen, by more than `tolerance`.
    """
    before, after = quantisation.float32, quantisation.int8
    if max(before.accuracy - after.accuracy, after.fpr95 - before.fpr95) > tolerance + ROUNDING:
        raise EngineError(f"{describe(quantisation)}; --int8-tolerance allows {100 * tolerance:g} points of either")


def describe(quantisation: Quantisation) -> str:
    """What int8 has changed, in one line."""
    before, after = quantisation.float32, quantisation.int8
    return (
        f"engine openvino:int8: from float32 to int8 top-1 goes from {100 * before.accuracy:.2f} to "
        f"{100 * after.accuracy:.2f} %, FPR95 from {100 * before.fpr95:.2f} to {100 * after.fpr95:.2f} % "
        f"({quantisation.compared_images} held-out images, and outliers made of them)"
    )


def _score(classifier: Classifier, detector: LineDetector, pixels: PixelBatch) -> tuple[FloatArray, Classes]:
    logits, ood_scores = detector.score(classifier.features(pixels))
    # An answer that is not finite is never accepted: as far out as can be.
    scores = np.nan_to_num(ood_scores.double().cpu().numpy(), nan=np.finfo(np.float64).max)
    return scores, logits.argmax(1).cpu()
