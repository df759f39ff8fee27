"""The tiny network on a device that fails when told to: by the file that CHAOS_FAULT names, and on white images.

What the file says: `failing`, every pass raises. `out_of_memory`, likewise, as CUDA does. `crowded`: there is memory
for one image, but for no more. `deadly`: the next pass ends its thread, and the file is gone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from scoring.spec import ClassifierParts
from tests.factories.tiny import PREPROCESS, tiny

VARIABLE = "CHAOS_FAULT"
PASS_S = 0.003  # so that images wait for each other and make batches
WHITE = (1 - PREPROCESS.mean[0]) / PREPROCESS.std[0] - 1e-3


class Faulty(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        time.sleep(PASS_S)
        fault = Path(os.environ[VARIABLE])
        if fault.exists():
            _fail(fault, len(images))
        if (images[:, 0].amin(dim=(1, 2)) > WHITE).any():
            raise RuntimeError("an illegal memory access was encountered")
        return super().forward(images)


def _fail(fault: Path, images: int) -> None:
    try:
        told = fault.read_text()
        if told == "deadly":
            fault.unlink()
            raise SystemExit("killed")
    except FileNotFoundError:  # it is over
        return
    if told == "failing":
        raise RuntimeError("device-side assert triggered")
    if told == "out_of_memory" or (told == "crowded" and images > 1):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def faulty() -> ClassifierParts:
    parts = tiny()
    return parts._replace(module=Faulty(*parts.module))
