"""SCALE: energy of the activations, all of them sharpened.

Xu et al., "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement", ICLR 2024 (2310.00227).

    r = exp(sum h / sum of the image's strongest 100 - p percent)
    ood_score = -logsumexp(r h Wᵀ + b)        higher = more out-of-distribution

The product is there already: r h Wᵀ + b = r (z - b) + b. Ties do not matter: equal activations have equal sums.
"""

from __future__ import annotations

from scoring.line import energy
from scoring.methods.shaping import ShapingMethod, sharpening, strongest
from scoring.types import Classes, Features, HeadBias, Logits, Scores

PERCENTILE = 85.0  # the paper's on ImageNet, and OpenOOD's


def scale(features: Features, logits: Logits, bias: HeadBias, percentile: float) -> Scores:
    """Energy of the logits of the sharpened activations."""
    features = features.float()
    factor = sharpening(features, strongest(features, percentile).values)
    return energy(factor[:, None] * (logits - bias) + bias)


class Scale(ShapingMethod):
    """See `scale`."""

    name = "scale"
    default = PERCENTILE

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return scale(features, logits, self._head.bias, self._percentile)
