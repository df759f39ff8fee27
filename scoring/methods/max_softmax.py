"""MSP: maximum softmax probability.

Hendrycks, Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples", ICLR 2017 (1610.02136).

    ood_score = 1 - max_k softmax(z)_k        higher = more out-of-distribution

Sure networks make p = 1 in float32, and all their images would tie at 0. So 1 - p is made of the other classes:
o / (1 + o), where o = sum over the others of exp(z_k - z_max).
"""

from __future__ import annotations

from scoring.methods.method import LogitsMethod
from scoring.types import Classes, Features, Logits, Scores


def odds_against(logits: Logits) -> Scores:
    """(1 - p) / p of the predicted class, without cancellation."""
    top, predicted = logits.max(1, keepdim=True)  # (B, 1)
    return (logits - top).exp().scatter(1, predicted, 0).sum(1)


def msp(logits: Logits) -> Scores:
    """1 - max softmax."""
    odds = odds_against(logits)
    return odds / (1 + odds)


class Msp(LogitsMethod):
    """See `msp`."""

    name = "msp"

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return msp(logits)
