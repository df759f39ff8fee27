"""Heads with features, as small networks have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from scoring import line
from scoring.detector import LineDetector, LineMasks
from scoring.methods import METHODS, Method, Sample, fit_all, objections, restore_all
from scoring.types import Head, Scores

P_A, P_W, CLIP = 30.0, 60.0, 1.0
Settings = dict[str, dict[str, float]]


class Problem(NamedTuple):
    """A sample to fit to, and images to score."""

    head: Head
    sample: Sample
    features: Tensor  # (B, D)

    @property
    def logits(self) -> Tensor:
        return torch.addmm(self.head.bias, self.features, self.head.weight.T)

    @property
    def line(self) -> LineDetector:
        """LINe, learnt from the sample."""
        return self.line_with(P_W)

    def line_with(self, p_w: float) -> LineDetector:
        """LINe with another percentile; 0 is quick, whatever the size of the head."""
        weight, sample = self.head.weight, self.sample
        counts = sample.labels.bincount(minlength=len(weight))
        values = sample.features.double().abs()
        means = torch.zeros(weight.shape, dtype=torch.float64).index_add_(0, sample.labels, values) / counts[:, None]
        learn = line.absolute_contribution if sample.has_negative else line.signed_contribution
        contribution = learn(line.fill_empty_classes(means, counts), weight)
        thresholds = torch.tensor(
            [line.weight_threshold(row, weight, p_w) for row in contribution], dtype=torch.float64
        )
        mask = line.activation_mask(contribution, P_A)
        return LineDetector(self.head, LineMasks(contribution, mask, thresholds, P_A), CLIP)

    def fit(self, name: str) -> Method:
        return METHODS[name].fit(self.sample, self.head, self.line)

    def fit_all(self, names: Iterable[str] = METHODS) -> dict[str, Method]:
        return fit_all(names, self.sample, self.head, self.line)

    def objections(self) -> dict[str, str]:
        return objections(self.sample, self.head, self.line)

    def restore_all(self, settings: Settings, tensors: dict[str, Tensor]) -> dict[str, Method]:
        return restore_all(self.head, self.line, settings, tensors)

    def score(self, method: Method) -> Scores:
        return method.score(self.features, self.logits, self.line.route(self.features)[1])


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
