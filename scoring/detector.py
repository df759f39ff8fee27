"""LINe bound to one classifier: masks on the classifier's device, ready to score its features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from scoring import line
from scoring.classifier import Classifier
from scoring.types import ActivationMask, Contribution, Features, WeightThresholds


@dataclass(frozen=True, eq=False)
class LineMasks:
    """What calibration learns for LINe.

    Attributes:
        contribution: C (class, feature).
        activation_mask: A (class, feature).
        weight_thresholds: t (class); with C they stand for the weight masks, which are never stored.
    """

    contribution: Contribution
    activation_mask: ActivationMask
    weight_thresholds: WeightThresholds


class LineDetector:
    """Features of one classifier to `ood_score`.

    Args:
        classifier: whose head is pruned.
        masks: learnt with that classifier.
        clip: δ; None for no clip.
    """

    def __init__(self, classifier: Classifier, masks: LineMasks, clip: float | None) -> None:
        self._head = classifier.head
        self._clip = clip
        self._mask = masks.activation_mask.to(classifier.device)
        self._floors = line.weight_floors(masks.contribution, masks.weight_thresholds).to(classifier.device)

    @torch.inference_mode()
    def ood_scores(self, features: Features) -> npt.NDArray[np.float64]:
        """Higher = more out-of-distribution; one an image."""
        scores = line.line(features, self._head, self._clip, self._mask, self._floors)
        numbers: npt.NDArray[np.float64] = scores.double().cpu().numpy()
        return numbers
