"""LINe as its paper has it, beside `line`, which follows its authors' code.

Ahn, Park, Kim, CVPR 2023 (2303.13995). Symbols as in `scoring.line`.

    A[c, j] = |C[c, j]| > percentile(|C[c]|, p_a)        the code takes C: what speaks against a class goes first
    all else as in `line`, whose weight mask |C[r, j]| · W[k, j] > t[r] takes |C| already
    ood_score = -logsumexp(z)                            higher = more out-of-distribution

With h >= 0 the paper's contribution mean|h| ⊙ |W| is |C| of the C that `line` has, to the bit. So nothing is learnt,
set or stored here: percentiles, clip and thresholds are `line`'s, and the two differ in the activation mask alone.
"""

from __future__ import annotations

import torch

from scoring.detector import LineDetector
from scoring.methods.method import PlainMethod
from scoring.methods.sample import Sample
from scoring.types import Classes, Features, Head, Logits, Scores


class LinePaper(PlainMethod):
    """See above.

    Args:
        detector: with the paper's masks.
    """

    name = "line-paper"

    def __init__(self, detector: LineDetector) -> None:
        self._detector = detector

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return self._detector.energy(features, routed)

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """No contribution is negative, or none is pruned: `line` has the same masks, and so the same scores."""
        same = torch.equal(line.masks.activation_mask, line.masks.paper().activation_mask)
        return "it is what line already is here: the same masks" if same else ""

    @classmethod
    def of(cls, head: Head, line: LineDetector) -> LinePaper:
        """Derive the masks from LINe's contribution, which is of all images and not of the sample alone."""
        return cls(line.paper())
