"""LINe bound to one classifier: masks on the classifier's device, ready to score its features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from scoring import line
from scoring.types import ActivationMask, Contribution, Features, Head, Logits, Scores, WeightThresholds


@dataclass(frozen=True, eq=False)
class LineMasks:
    """What calibration learns for LINe.

    Attributes:
        contribution: C (class, feature).
        activation_mask: A (class, feature).
        weight_thresholds: t (class); with C they stand for the weight masks, which are never stored.
    """

    contribution: Contribution
    activation_mask: ActivationMask
    weight_thresholds: WeightThresholds


class LineDetector:
    """Features of one classifier to its logits and to `ood_score`, through the kernels of the head's device.

    Extra memory a batch: two (batch, class) arrays. For several threads at once.

    Args:
        head: W and b of the classifier, on the device where its features are.
        masks: learnt with that classifier.
        clip: δ; None for no clip.
    """

    def __init__(self, head: Head, masks: LineMasks, clip: float | None) -> None:
        self._head = head
        self._delta = math.inf if clip is None else clip
        floors = line.weight_floors(masks.contribution, masks.weight_thresholds, masks.activation_mask)
        self._floors = floors.to(head.weight.device)

    @torch.inference_mode()
    def score(self, features: Features) -> tuple[Logits, Scores]:
        """The classifier's own logits, and `ood_score`: higher = more out-of-distribution."""
        run = self._run_on_gpu if features.is_cuda else self._run_on_cpu
        return run(features.float().contiguous())

    def _run_on_cpu(self, features: Features) -> tuple[Logits, Scores]:
        from scoring.kernels import cpu  # noqa: PLC0415 - only where it is used: numba takes half a second to import

        # All in numpy and two calls: after a forward pass the caches hold the network, and every step starts cold.
        h, weight, bias, floors = (each.numpy() for each in (features, *self._head, self._floors))
        logits, energy = np.empty((len(h), len(bias)), np.float32), np.empty(len(h), np.float32)
        routed = np.empty(len(h), np.int64)
        cpu.head_logits(h, self._delta, weight, bias, logits, routed)
        cpu.masked_energy(h, self._delta, routed, weight, bias, floors, energy)
        return torch.from_numpy(logits), torch.from_numpy(energy)

    def _run_on_gpu(self, features: Features) -> tuple[Logits, Scores]:
        from scoring.kernels import gpu  # noqa: PLC0415 - Triton comes with the CUDA builds of torch only

        clipped = features.clamp(max=self._delta)
        weight, bias = self._head
        logits, routing = torch.addmm(bias, torch.cat([features, clipped]), weight.T).split(len(features))
        masked = torch.empty_like(logits)
        gpu.masked_logits(clipped, routing.argmax(1), self._head, self._floors, masked)
        return logits, line.energy(masked)
