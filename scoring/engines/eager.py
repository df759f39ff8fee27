"""The network as its owner wrote it, run by torch."""

from __future__ import annotations

import torch

from scoring.backbone import Backbone
from scoring.engines.engine import ANY
from scoring.types import Features, PixelBatch


class EagerEngine:
    """Runs the backbone itself; on a GPU the work is queued and the call returns before it is done.

    Args:
        backbone: on `device`, in the precision wanted.
        device: where it runs.
    """

    lanes = 1
    useful_batch = ANY

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._backbone = backbone
        self._device = device

    @torch.inference_mode()
    def features(self, pixels: PixelBatch, *, alone: bool = True) -> Features:
        """Run a batch."""
        features: Features = self._backbone(pixels.to(self._device, non_blocking=True)).float()
        return features
