"""The tiny network, with weights and all, on a device that hangs: after its warm-up it takes a minute."""

from __future__ import annotations

import time

from torch import Tensor, nn

from scoring.spec import ClassifierParts
from tests.factories.tiny import tiny

QUICK_PASSES = 4  # finding the head, the self-test, and warming up with one image and with the largest batch


class Hanging(nn.Sequential):
    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        if self.passes > QUICK_PASSES:
            time.sleep(60)
        return super().forward(images)


def slow() -> ClassifierParts:
    parts = tiny()
    return parts._replace(module=Hanging(*parts.module))
