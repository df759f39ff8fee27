"""fDBD: how far the features are from the decision boundaries, beside how far from the mean.

Liu, Qin, "Fast Decision Boundary based Out-of-Distribution Detector", ICML 2024 (2312.11536).

    y = argmax z,  m: mean feature vector of the sample
    ood_score = -(mean over c != y of (z_y - z_c) / |w_y - w_c|) / |h - m|        higher = more out-of-distribution

The published code leaves the sum where the paper takes the mean: the same order. The distances |w_y - w_c| follow from
the head. Two classes with the same weights have no boundary between them, and none is counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float32
from torch import Tensor

from scoring.methods.mean_method import MeanMethod
from scoring.methods.sample import FeatureVector
from scoring.types import Classes, Features, Head, HeadWeight, Logits, Scores

SAME = 1e-12  # squared distance of weights that are taken for equal, beside their squared lengths
NEAREST = 1e-8  # to the mean: closer features score as if they were there

InverseDistances = Float32[Tensor, "class class"]


def inverse_distances(weight: HeadWeight) -> InverseDistances:
    """1 / |w_i - w_j|; 0 where the two are the same."""
    products = weight.double() @ weight.double().T  # (K, K); float64, for |a|² + |b|² - 2 a b cancels
    lengths = products.diagonal()
    both = lengths[:, None] + lengths
    squared = both - 2 * products
    apart = squared > SAME * both
    return torch.where(apart, squared.where(apart, 1).rsqrt(), 0).float()


def fdbd(features: Features, logits: Logits, inverse: InverseDistances, mean: FeatureVector) -> Scores:
    """Mean distance to the decision boundaries, normalised and negated."""
    top, predicted = logits.max(1)
    distances = (top[:, None] - logits) * inverse[predicted]  # (B, K)
    normaliser = (features - mean).square().sum(1).sqrt().clamp(min=NEAREST)
    return -distances.sum(1) / (max(logits.shape[1] - 1, 1) * normaliser)


class FDbd(MeanMethod):
    """See `fdbd`."""

    name = "fdbd"

    def __init__(self, head: Head, settings: Mapping[str, float], mean: FeatureVector) -> None:
        super().__init__(head, settings, mean)
        self._inverse = inverse_distances(head.weight)

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return fdbd(features, logits, self._inverse, self._mean)
