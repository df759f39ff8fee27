"""NCI: how well centred features point along the predicted class's weights, and how long features are.

Liu, Qin, "Detecting Out-of-Distribution Through the Lens of Neural Collapse", CVPR 2025 (2311.01479).

    y = argmax z,  m: mean feature vector of the sample
    ood_score = -w_y · (h - m) / |h - m| - alpha |h|_1        higher = more out-of-distribution

In a network whose training has collapsed, centred features of a class are parallel to its weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scoring.detector import LineDetector
from scoring.methods.method import Method
from scoring.methods.sample import FeatureVector, Sample
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Classes, Features, Head, HeadWeight, Logits, Scores

ALPHA = 1e-4  # OpenOOD's before it is tuned, which needs OOD images
NEAREST = 1e-8  # to the mean: closer features have no direction, and score 0 in the first term


def nci(features: Features, logits: Logits, weight: HeadWeight, mean: FeatureVector, alpha: float) -> Scores:
    """Proximity to the class's weights, and length of the features, negated."""
    centred = features - mean
    length = centred.square().sum(1).sqrt().clamp(min=NEAREST)
    proximity = (centred * weight[logits.argmax(1)]).sum(1) / length
    return -proximity - alpha * features.abs().sum(1)


class Nci(Method):
    """See `nci`."""

    name = "nci"

    def __init__(self, head: Head, alpha: float, mean: FeatureVector) -> None:
        self._weight, self._alpha, self._mean = head.weight, alpha, mean.to(head.weight.device)

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return nci(features, logits, self._weight, self._mean, self._alpha)

    def settings(self) -> dict[str, float]:
        """What the length of the features counts."""
        return {"alpha": self._alpha}

    def tensors(self) -> dict[str, Tensor]:
        """The mean feature vector."""
        return {"mean": self._mean.cpu()}

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> Nci:
        """Take the mean."""
        return cls(head, ALPHA, sample.mean)

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> Nci:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {"alpha": (0, 1e6)})
        check_tensors(cls.name, tensors, {"mean": (torch.float32, (head.weight.shape[1],))})
        return cls(head, settings["alpha"], tensors["mean"])
