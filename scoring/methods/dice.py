"""DICE: energy under a sparse head.

Sun, Li, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", ECCV 2022 (2111.09805).

    V[k, j] = m[j] W[k, j]                          m: mean feature vector of the sample
    W'[k, j] = W[k, j] · 1[V[k, j] > percentile(V, p)]        over all K·D entries, strictly, linear interpolation
    ood_score = -logsumexp(h W'ᵀ + b)               higher = more out-of-distribution

Stored is m; W' follows from it. Products are taken in float64, where they are exact: the mask is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from scoring.detector import LineDetector
from scoring.line import energy
from scoring.methods.mean_method import MeanMethod
from scoring.methods.method import NEGATIVE
from scoring.methods.sample import FeatureVector, Sample
from scoring.methods.stored import Range
from scoring.types import Classes, Features, Head, HeadWeight, Logits, Scores

PERCENTILE = 90.0  # OpenOOD's, for all networks; the paper's on CIFAR, where on ImageNet it takes 70


def sparse_weight(weight: HeadWeight, mean: FeatureVector, percentile: float) -> HeadWeight:
    """Zeros for the weights that contribute least to the mean image's logits."""
    share = mean.double() * weight.cpu().double()  # (K, D)
    kept = share > float(np.percentile(share.numpy(), percentile))
    return torch.where(kept.to(weight.device), weight, 0)


def dice(features: Features, sparse_head: Head) -> Scores:
    """Energy of the logits of the sparse head."""
    return energy(torch.addmm(sparse_head.bias, features.float(), sparse_head.weight.T))


class Dice(MeanMethod):
    """See `dice`."""

    name = "dice"
    defaults: ClassVar[Mapping[str, float]] = {"percentile": PERCENTILE}
    ranges: ClassVar[Mapping[str, Range]] = {"percentile": (0, 100)}

    def __init__(self, head: Head, settings: Mapping[str, float], mean: FeatureVector) -> None:
        super().__init__(head, settings, mean)
        self._head = Head(sparse_weight(head.weight, mean, settings["percentile"]), head.bias)

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return dice(features, self._head)

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """Features of either sign: their mean tells nothing of their size."""
        return NEGATIVE if sample.has_negative else ""
