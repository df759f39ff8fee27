"""ASH-S: energy of the strongest activations, sharpened.

Djurisic et al., "Extremely Simple Activation Shaping for Out-of-Distribution Detection", ICLR 2023 (2209.09858).

    h' = h where it is among the image's strongest 100 - p percent, else 0
    ood_score = -logsumexp(exp(sum h / sum h') h' Wᵀ + b)        higher = more out-of-distribution

On pooled features, as the authors do. Ties: see `scoring.methods.shaping`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scoring.line import energy
from scoring.methods.method import NEGATIVE, Method
from scoring.methods.sample import Sample
from scoring.methods.shaping import sharpening, strongest
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Features, Head, Logits, Scores

PERCENTILE = 90.0  # the authors' on ImageNet, and OpenOOD's


def ash_s(features: Features, head: Head, percentile: float) -> Scores:
    """Energy of the logits of the shaped activations."""
    features = features.float()
    kept = strongest(features, percentile)
    sharp = kept.values * sharpening(features, kept.values)[:, None]  # (B, k)
    shaped = torch.zeros_like(features).scatter_(1, kept.indices, sharp)  # (B, D)
    return energy(torch.addmm(head.bias, shaped, head.weight.T))


class AshS(Method):
    """See `ash_s`."""

    name = "ash-s"

    def __init__(self, head: Head, percentile: float) -> None:
        self._head, self._percentile = head, percentile

    def score(self, features: Features, logits: Logits) -> Scores:
        """See `Method.score`."""
        return ash_s(features, self._head, self._percentile)

    def settings(self) -> dict[str, float]:
        """The percentile of activations that are removed."""
        return {"percentile": self._percentile}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is learnt."""
        return {}

    @classmethod
    def objection(cls, sample: Sample, head: Head) -> str:
        """Features of either sign: the ratio of their sums means nothing."""
        return NEGATIVE if sample.has_negative else ""

    @classmethod
    def fit(cls, sample: Sample, head: Head) -> AshS:
        """Nothing is learnt."""
        return cls(head, PERCENTILE)

    @classmethod
    def restore(cls, head: Head, settings: Mapping[str, float], tensors: Mapping[str, Tensor]) -> AshS:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {"percentile": (0, 100)})
        check_tensors(cls.name, tensors, {})
        return cls(head, settings["percentile"])
