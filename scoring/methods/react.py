"""ReAct: energy of clipped activations.

Sun, Guo, Li, "ReAct: Out-of-distribution Detection With Rectified Activations", NeurIPS 2021 (2111.12797).

    c = percentile p of all features of the sample (linear interpolation)
    ood_score = -logsumexp(min(h, c) Wᵀ + b)        higher = more out-of-distribution
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scoring.detector import LineDetector
from scoring.line import clip, energy
from scoring.methods.method import NEGATIVE, Method
from scoring.methods.sample import Sample
from scoring.methods.stored import check_settings, check_tensors, scalar
from scoring.types import Classes, Features, Head, Logits, Scores

PERCENTILE = 90.0  # the authors', for all networks


def react(features: Features, head: Head, cut: float) -> Scores:
    """Energy of the logits of min(h, cut)."""
    return energy(torch.addmm(head.bias, clip(features, cut), head.weight.T))


class ReAct(Method):
    """See `react`."""

    name = "react"

    def __init__(self, head: Head, percentile: float, cut: float) -> None:
        self._head, self._percentile, self._cut = head, percentile, cut

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return react(features, self._head, self._cut)

    def settings(self) -> dict[str, float]:
        """The percentile."""
        return {"percentile": self._percentile}

    def tensors(self) -> dict[str, Tensor]:
        """The clip."""
        return {"clip": scalar(self._cut)}

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """Features of either sign, or a clip that would take away everything."""
        if sample.has_negative:
            return NEGATIVE
        share = float((sample.features == 0).float().mean())
        return f"{share:.0%} of the features are zero, so that the clip would be" if 100 * share >= PERCENTILE else ""

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> ReAct:
        """Take the percentile."""
        return cls(head, PERCENTILE, float(np.percentile(sample.features.numpy(), PERCENTILE)))

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> ReAct:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {"percentile": (0, 100)})
        check_tensors(cls.name, tensors, {"clip": (torch.float64, (1,))})
        return cls(head, settings["percentile"], float(tensors["clip"]))
