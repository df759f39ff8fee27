"""The backbone through torch.compile, with weights frozen into the code.

Needs a compiler while it runs: a C++ compiler on a CPU, Triton on a GPU. Each bucket is compiled when it is first met,
which takes tens of seconds for a large network, so that warming up is slow and serving is not.
"""

from __future__ import annotations

import shutil

import torch

from scoring.backbone import Backbone
from scoring.engines.buckets import pad
from scoring.engines.engine import ANY
from scoring.errors import EngineError
from scoring.types import Features, PixelBatch


class CompiledEngine:
    """Runs compiled code, one version a bucket.

    Args:
        backbone: on `device`, in the precision wanted.
        device: where it runs.

    Raises:
        EngineError: there is no compiler.
    """

    lanes = 1
    useful_batch = ANY

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise EngineError("the engine 'compiled' needs a C++ compiler at run time, and finds none")
        self._device = device
        self._run = torch.compile(backbone, dynamic=False, options={"freezing": True})

    @torch.inference_mode()
    def features(self, pixels: PixelBatch, *, alone: bool = True) -> Features:
        """Run a batch, filled up to its bucket."""
        padded = pad(pixels.to(self._device, non_blocking=True))
        features: Features = self._run(padded)[: len(pixels)].float()
        return features
