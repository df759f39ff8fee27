"""The tiny network on a device with a capacity of its own: `IMAGE_S` an image, whatever else the machine does."""

from __future__ import annotations

import time

from torch import Tensor, nn

from scoring.spec import ClassifierParts
from tests.factories.tiny import tiny

IMAGE_S = 0.006


class Paced(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        time.sleep(IMAGE_S * len(images))
        return super().forward(images)


def paced() -> ClassifierParts:
    parts = tiny()
    return parts._replace(module=Paced(*parts.module))
