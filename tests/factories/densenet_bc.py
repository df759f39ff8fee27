"""DenseNet-BC (depth 100, growth 12, reduction 0.5) for CIFAR-10: the network of the paper's table, as a factory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts

GROWTH = 12
LAYERS = 16
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(functional.relu(self.bn1(x)))
        new = self.conv2(functional.relu(self.bn2(new)))
        return torch.cat([x, new], 1)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(Bottleneck(channels + i * GROWTH) for i in range(LAYERS)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Transition(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv1(functional.relu(self.bn1(x))), 2)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        channels = 2 * GROWTH
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.block1 = Block(channels)
        channels += LAYERS * GROWTH
        self.trans1 = Transition(channels)
        channels //= 2
        self.block2 = Block(channels)
        channels += LAYERS * GROWTH
        self.trans2 = Transition(channels)
        channels //= 2
        self.block3 = Block(channels)
        channels += LAYERS * GROWTH
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.trans1(self.block1(self.conv1(x)))
        x = self.trans2(self.block2(x))
        x = functional.relu(self.bn1(self.block3(x)))
        return self.fc(functional.avg_pool2d(x, 8).flatten(1))


def cifar10() -> ClassifierParts:
    preprocess = Preprocess(resize=32, crop=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    return ClassifierParts(DenseNet(), preprocess, CLASSES)
