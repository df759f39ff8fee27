"""A tiny seeded network with everything that matters: convolutions, ReLU features, a linear head. Five classes."""

from __future__ import annotations

import torch
from torch import nn

from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts

CLASSES = ("ant", "bee", "cat", "dog", "eel")
PREPROCESS = Preprocess(resize=16, crop=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def tiny() -> ClassifierParts:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 24, 3),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, len(CLASSES)),
        )
    return ClassifierParts(module, PREPROCESS, CLASSES)
