"""What methods are fitted to: the features of some in-distribution images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from scoring.types import Head

FeatureVector = Float32[Tensor, "feature"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Features of ID images, none of them among those that make the thresholds; some 20 000 images are plenty.

    Attributes:
        features: h (image, feature), finite, on the CPU.
        labels: index of the true class (image).
    """

    features: Float32[Tensor, "image feature"]
    labels: Int64[Tensor, "image"]

    @property
    def mean(self) -> FeatureVector:
        """Mean feature vector, summed in float64."""
        return self.features.mean(0, dtype=torch.float64).float()

    @property
    def has_negative(self) -> bool:
        """Whether a feature is below zero: there is no ReLU before the head."""
        return bool((self.features < 0).any())

    def logits(self, head: Head) -> Float32[Tensor, "image class"]:
        """The classifier's own logits."""
        return torch.addmm(head.bias.cpu(), self.features, head.weight.cpu().T)
