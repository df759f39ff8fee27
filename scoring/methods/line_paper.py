"""LINe as its paper has it, beside `line`, which follows its authors' code.

Ahn, Park, Kim, CVPR 2023 (2303.13995). Symbols as in `scoring.line`.

    A[c, j] = |C[c, j]| > percentile(|C[c]|, p_a)        the code takes C: what speaks against a class goes first
    all else as in `line`, whose weight mask |C[r, j]| · W[k, j] > t[r] takes |C| already
    ood_score = -logsumexp(z)                            higher = more out-of-distribution

With h >= 0 the paper's contribution mean|h| ⊙ |W| is |C| of the C that `line` has, to the bit. So nothing is learnt,
set or stored here: percentiles, clip and thresholds are `line`'s, and the two differ in the activation mask alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scoring.detector import LineDetector
from scoring.methods.method import Method
from scoring.methods.sample import Sample
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Classes, Features, Head, Logits, Scores


class LinePaper(Method):
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

    def settings(self) -> dict[str, float]:
        """Nothing but what LINe has."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing but what LINe has."""
        return {}

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """No contribution is negative, or none is pruned: `line` has the same masks, and so the same scores."""
        same = torch.equal(line.masks.activation_mask, line.masks.paper().activation_mask)
        return "it is what line already is here: the same masks" if same else ""

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> LinePaper:
        """Derive the masks from LINe's contribution, which is of all images and not of the sample alone."""
        return cls(line.paper())

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> LinePaper:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {})
        check_tensors(cls.name, tensors, {})
        return cls(line.paper())
