"""Heads with features, as small networks have them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scoring.methods import Sample
from scoring.types import Head


class Problem(NamedTuple):
    """A sample to fit to, and images to score."""

    head: Head
    sample: Sample
    features: Tensor  # (B, D)

    @property
    def logits(self) -> Tensor:
        return torch.addmm(self.head.bias, self.features, self.head.weight.T)


def make_problem(
    seed: int, *, images: int = 120, classes: int = 5, features: int = 24, negative: bool = False
) -> Problem:
    """Features of a class point along its weights; after ReLU a third are zero; the energies are positive."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, features, generator=random)
    bias = 3 + torch.randn(classes, generator=random) / 10

    def draw(count: int, labels: Tensor) -> Tensor:
        h = torch.randn(count, features, generator=random) + 0.5 * weight[labels]
        return h if negative else h.relu()

    labels = torch.arange(images) % classes
    sample = Sample(draw(images, labels), labels)
    return Problem(Head(weight, bias), sample, draw(10, torch.arange(10) % classes))
