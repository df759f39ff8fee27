"""ASH-S: energy of the strongest activations, sharpened.

Djurisic et al., "Extremely Simple Activation Shaping for Out-of-Distribution Detection", ICLR 2023 (2209.09858).

    h' = h where it is among the image's strongest 100 - p percent, else 0
    ood_score = -logsumexp(exp(sum h / sum h') h' Wᵀ + b)        higher = more out-of-distribution

On pooled features, as the authors do. Ties: see `scoring.methods.shaping`.
"""

from __future__ import annotations

import torch

from scoring.line import energy
from scoring.methods.shaping import ShapingMethod, sharpening, strongest
from scoring.types import Classes, Features, Head, Logits, Scores

PERCENTILE = 90.0  # the authors' on ImageNet, and OpenOOD's


def ash_s(features: Features, head: Head, percentile: float) -> Scores:
    """Energy of the logits of the shaped activations."""
    features = features.float()
    kept = strongest(features, percentile)
    sharp = kept.values * sharpening(features, kept.values)[:, None]  # (B, k)
    shaped = torch.zeros_like(features).scatter_(1, kept.indices, sharp)  # (B, D)
    return energy(torch.addmm(head.bias, shaped, head.weight.T))


class AshS(ShapingMethod):
    """See `ash_s`."""

    name = "ash-s"
    default = PERCENTILE

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return ash_s(features, self._head, self._percentile)
