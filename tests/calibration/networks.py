"""Classifiers that differ from the usual one in a single respect: factories for SPECs of tests.

All have 5 classes, and in all but `fine` something is missing or wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts

CLASSES = ("apple", "bear", "chair", "dolphin", "elm")
FEATURES = 24
PREPROCESS = Preprocess(resize=32, crop=(32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


class Overflowing(nn.Module):
    """Leaves images with any dark pixel as they are; a white one is beyond float32."""

    def forward(self, images: Tensor) -> Tensor:
        darkest = images.amin((1, 2, 3), keepdim=True)
        return images * (200 * darkest).exp().clamp(min=1)


def seeded(*layers: nn.Module) -> nn.Sequential:
    """Give the layers large random weights, the same ones in every process, so that logits spread."""
    generator = torch.Generator().manual_seed(7)
    module = nn.Sequential(*layers)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.7
    return module


def body() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, FEATURES), nn.ReLU()]


def fine() -> ClassifierParts:
    return ClassifierParts(seeded(*body(), nn.Linear(FEATURES, 5)), PREPROCESS, CLASSES)


def silent() -> nn.Module:
    """Says nothing of its images or classes."""
    return fine().module


def negative() -> ClassifierParts:
    """Has features of either sign."""
    return fine()._replace(module=seeded(*body()[:-1], nn.Tanh(), nn.Linear(FEATURES, 5)))


def sparse() -> ClassifierParts:
    """Has features of which 95 in 100 and more are zero."""
    layers = seeded(*body(), nn.Linear(FEATURES, 5))
    layers[2].bias.data -= 6.5
    return fine()._replace(module=layers)


def fragile() -> ClassifierParts:
    """Answers a white image with NaN, without an error."""
    return fine()._replace(module=seeded(Overflowing(), *body(), nn.Linear(FEATURES, 5)))


def misnamed() -> ClassifierParts:
    """Names fewer classes than it has."""
    return fine()._replace(class_names=CLASSES[:3])


def headless() -> ClassifierParts:
    """Does not end in a linear layer."""
    return fine()._replace(module=seeded(*body(), nn.Linear(FEATURES, 5), nn.Softplus()))


def raising() -> ClassifierParts:
    """Cannot be built."""
    raise ValueError("the cupboard is bare")


def nothing() -> None:
    """Makes no network."""
