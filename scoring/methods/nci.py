"""NCI: how well centred features point along the predicted class's weights, and how long features are.

Liu, Qin, "Detecting Out-of-Distribution Through the Lens of Neural Collapse", CVPR 2025 (2311.01479).

    y = argmax z,  m: mean feature vector of the sample
    ood_score = -w_y · (h - m) / |h - m| - alpha |h|_1        higher = more out-of-distribution

In a network whose training has collapsed, centred features of a class are parallel to its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scoring.methods.mean_method import MeanMethod
from scoring.methods.sample import FeatureVector
from scoring.methods.stored import Range
from scoring.types import Classes, Features, Head, HeadWeight, Logits, Scores

ALPHA = 1e-4  # OpenOOD's before it is tuned, which needs OOD images
NEAREST = 1e-8  # to the mean: closer features have no direction, and score 0 in the first term


def nci(features: Features, logits: Logits, weight: HeadWeight, mean: FeatureVector, alpha: float) -> Scores:
    """Proximity to the class's weights, and length of the features, negated."""
    centred = features - mean
    length = centred.square().sum(1).sqrt().clamp(min=NEAREST)
    proximity = (centred * weight[logits.argmax(1)]).sum(1) / length
    return -proximity - alpha * features.abs().sum(1)


class Nci(MeanMethod):
    """See `nci`."""

    name = "nci"
    defaults: ClassVar[Mapping[str, float]] = {"alpha": ALPHA}
    ranges: ClassVar[Mapping[str, Range]] = {"alpha": (0, 1e6)}

    def __init__(self, head: Head, settings: Mapping[str, float], mean: FeatureVector) -> None:
        super().__init__(head, settings, mean)
        self._weight, self._alpha = head.weight, settings["alpha"]

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return nci(features, logits, self._weight, self._mean, self._alpha)
