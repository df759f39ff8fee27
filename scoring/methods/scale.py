"""SCALE: energy of the activations, all of them sharpened.

Xu et al., "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement", ICLR 2024 (2310.00227).

    r = exp(sum h / sum of the image's strongest 100 - p percent)
    ood_score = -logsumexp(r h Wᵀ + b)        higher = more out-of-distribution

The product is there already: r h Wᵀ + b = r (z - b) + b. Ties do not matter: equal activations have equal sums.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scoring.line import energy
from scoring.methods.method import NEGATIVE, Method
from scoring.methods.sample import Sample
from scoring.methods.shaping import sharpening, strongest
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Features, Head, HeadBias, Logits, Scores

PERCENTILE = 85.0  # the paper's on ImageNet, and OpenOOD's


def scale(features: Features, logits: Logits, bias: HeadBias, percentile: float) -> Scores:
    """Energy of the logits of the sharpened activations."""
    features = features.float()
    factor = sharpening(features, strongest(features, percentile).values)
    return energy(factor[:, None] * (logits - bias) + bias)


class Scale(Method):
    """See `scale`."""

    name = "scale"

    def __init__(self, head: Head, percentile: float) -> None:
        self._bias, self._percentile = head.bias, percentile

    def score(self, features: Features, logits: Logits) -> Scores:
        """See `Method.score`."""
        return scale(features, logits, self._bias, self._percentile)

    def settings(self) -> dict[str, float]:
        """The percentile of activations that are left out of the second sum."""
        return {"percentile": self._percentile}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is learnt."""
        return {}

    @classmethod
    def objection(cls, sample: Sample, head: Head) -> str:
        """Features of either sign: the ratio of their sums means nothing."""
        return NEGATIVE if sample.has_negative else ""

    @classmethod
    def fit(cls, sample: Sample, head: Head) -> Scale:
        """Nothing is learnt."""
        return cls(head, PERCENTILE)

    @classmethod
    def restore(cls, head: Head, settings: Mapping[str, float], tensors: Mapping[str, Tensor]) -> Scale:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {"percentile": (0, 100)})
        check_tensors(cls.name, tensors, {})
        return cls(head, settings["percentile"])
