"""GEN: generalised entropy of the most probable classes.

Liu, Lochman, Zach, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", CVPR 2023.

    p = softmax(z)
    ood_score = sum over the M largest p of p^gamma (1 - p)^gamma        higher = more out-of-distribution

In logarithms: a power as small as 0.1 makes much of a p near 0 or 1, which softmax in float32 has already lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scoring.detector import LineDetector
from scoring.methods.max_softmax import odds_against
from scoring.methods.method import Method
from scoring.methods.sample import Sample
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Classes, Features, Head, Logits, Scores

GAMMA = 0.1  # the paper's, for all networks
TOP = 100  # the paper's M on ImageNet: a tenth of the classes; all of them where there are fewer


def gen(logits: Logits, gamma: float, top: int) -> Scores:
    """Generalised entropy of the `top` most probable classes."""
    odds = odds_against(logits)[:, None]  # (B, 1)
    largest = logits.topk(top, 1).values  # (B, M), descending
    log_p = largest - largest[:, :1] - odds.log1p()
    log_q = torch.cat([odds.log() - odds.log1p(), (-log_p[:, 1:].exp()).log1p()], 1)  # 1 - p; only the first p is > 1/2
    return (gamma * (log_p + log_q)).exp().sum(1)


class Gen(Method):
    """See `gen`."""

    name = "gen"

    def __init__(self, gamma: float, top: int) -> None:
        self._gamma, self._top = gamma, top

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return gen(logits, self._gamma, self._top)

    def settings(self) -> dict[str, float]:
        """Gamma and M."""
        return {"gamma": self._gamma, "top": self._top}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is learnt."""
        return {}

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> Gen:
        """Nothing is learnt."""
        return cls(GAMMA, min(TOP, len(head.bias)))

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> Gen:
        """See `Method.restore`."""
        ranges = {"gamma": (1e-3, 10.0), "top": (1, len(head.bias))}
        check_settings(cls.name, settings, ranges, whole=frozenset({"top"}))
        check_tensors(cls.name, tensors, {})
        return cls(settings["gamma"], int(settings["top"]))
