"""What ASH-S and SCALE share: an image's strongest activations, and how much they are sharpened.

The strongest are exactly k = D - round(p D / 100), at least one: the authors' `topk`. Of activations that are equal at
the border, those that `topk` returns are kept; np.round and Python's round both go to the even neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.return_types import topk

from scoring.detector import LineDetector
from scoring.methods.method import NEGATIVE, Method
from scoring.methods.sample import Sample
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Features, Head, Scores


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


class ShapingMethod(Method):
    """A method that sharpens by an image's strongest activations, and has nothing to learn.

    Args:
        head: of the classifier.
        percentile: of the activations that are not among the strongest.

    Attributes:
        default: the percentile that `fit` takes.
    """

    default: ClassVar[float]

    def __init__(self, head: Head, percentile: float) -> None:
        self._head, self._percentile = head, percentile

    def settings(self) -> dict[str, float]:
        """The percentile of activations that are not among the strongest."""
        return {"percentile": self._percentile}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is learnt."""
        return {}

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """Features of either sign: the ratio of their sums means nothing."""
        return NEGATIVE if sample.has_negative else ""

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> ShapingMethod:
        """Nothing is learnt."""
        return cls(head, cls.default)

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> ShapingMethod:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {"percentile": (0, 100)})
        check_tensors(cls.name, tensors, {})
        return cls(head, settings["percentile"])
