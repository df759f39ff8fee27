"""Energy of the logits, at temperature 1.

Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020 (2010.03759).

    ood_score = -logsumexp(z)        higher = more out-of-distribution

The formula is `scoring.line.energy`, which LINe ends in.
"""

from __future__ import annotations

from scoring.line import energy
from scoring.methods.method import LogitsMethod
from scoring.types import Classes, Features, Logits, Scores


class Energy(LogitsMethod):
    """See `scoring.line.energy`."""

    name = "energy"

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return energy(logits)
