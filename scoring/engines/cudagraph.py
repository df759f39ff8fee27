"""The backbone as CUDA graphs: every kernel of a forward pass is launched by one call.

A graph is captured for each bucket when it is first met; replaying it writes into the same memory every time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from scoring.backbone import Backbone
from scoring.engines.buckets import bucket_of
from scoring.engines.engine import ANY
from scoring.errors import EngineError
from scoring.types import Features, PixelBatch

WARM_UPS = 2  # libraries choose their algorithms and take their workspaces at the first calls, not while capturing


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    pixels: PixelBatch
    features: Features


class CudaGraphEngine:
    """Replays captured graphs.

    Args:
        backbone: on `device`, in the precision wanted.
        device: a GPU.

    Raises:
        EngineError: `device` is no GPU.
    """

    lanes = 1
    useful_batch = ANY

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        if device.type != "cuda":
            raise EngineError(f"the engine 'cudagraph' needs a GPU, the device is {device}")
        self._backbone = backbone
        self._device = device
        self._captured: dict[int, _Captured] = {}

    @torch.inference_mode()
    def features(self, pixels: PixelBatch, *, alone: bool = True) -> Features:
        """Run a batch, filled up to its bucket with what the bucket held before."""
        bucket = bucket_of(len(pixels))
        if bucket not in self._captured:
            self._captured[bucket] = self._capture(pixels.new_zeros(bucket, *pixels.shape[1:]).to(self._device))
        graph, static_pixels, static_features = self._captured[bucket]
        static_pixels[: len(pixels)].copy_(pixels, non_blocking=True)
        graph.replay()
        return static_features[: len(pixels)].clone()

    def _capture(self, pixels: PixelBatch) -> _Captured:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._backbone(pixels)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Only this thread is held to what may be captured: a version that answers meanwhile allocates as it likes.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            features = self._backbone(pixels).float()
        return _Captured(graph, pixels, features)
