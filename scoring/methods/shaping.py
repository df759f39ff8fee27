"""What ASH-S and SCALE share: an image's strongest activations, and how much they are sharpened.

The strongest are exactly k = D - round(p D / 100), at least one: the authors' `topk`. Of activations that are equal at
the border, those that `topk` returns are kept; np.round and Python's round both go to the even neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.return_types import topk

from scoring.types import Features, Scores


def strongest(features: Features, percentile: float) -> topk:
    """Values and indices of what is left of each image when the weakest `percentile` are removed."""
    count = features.shape[1]
    return features.topk(max(1, count - round(count * percentile / 100)), 1, sorted=False)


def sharpening(features: Features, kept: Tensor) -> Scores:
    """exp(s1 / s2), s1 the sum of an image's activations and s2 of the kept ones.

    Activations that are never negative have a ratio from 1 to D / k. It is held there for others too, and for an image
    that has none at all, so that there is always a score.
    """
    s1, s2 = features.sum(1), kept.sum(1)
    ratio = torch.where(s2 > 0, s1 / s2, 1)
    return ratio.clamp(1, features.shape[1] / kept.shape[1]).exp()
