"""MaxLogit: the largest logit.

Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022 (1911.11132).

    ood_score = -max_k z_k        higher = more out-of-distribution
"""

from __future__ import annotations

from scoring.methods.method import LogitsMethod
from scoring.types import Classes, Features, Logits, Scores


def max_logit(logits: Logits) -> Scores:
    """-max z."""
    return -logits.amax(1)


class MaxLogit(LogitsMethod):
    """See `max_logit`."""

    name = "maxlogit"

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return max_logit(logits)
