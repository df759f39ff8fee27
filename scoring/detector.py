"""LINe bound to one classifier: masks on the classifier's device, ready to score its features."""

from __future__ import annotations

import math
from dataclasses import dataclass

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

    Extra memory a batch: three (batch, class) arrays. For several threads at once.

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
        logits, masked = run(features.float().contiguous())
        return logits, line.energy(masked)

    def _run_on_cpu(self, features: Features) -> tuple[Logits, Logits]:
        from scoring.kernels import cpu  # noqa: PLC0415 - only where it is used: numba takes half a second to import

        weight, bias = (each.numpy() for each in self._head)
        logits, clipped, masked = (features.new_empty(len(features), len(bias)) for _ in range(3))
        cpu.head_logits(features.numpy(), self._delta, weight, bias, logits.numpy(), clipped.numpy())
        routed = clipped.argmax(1).numpy()
        cpu.masked_logits(features.numpy(), self._delta, routed, weight, bias, self._floors.numpy(), masked.numpy())
        return logits, masked

    def _run_on_gpu(self, features: Features) -> tuple[Logits, Logits]:
        from scoring.kernels import gpu  # noqa: PLC0415 - Triton comes with the CUDA builds of torch only

        clipped = features.clamp(max=self._delta)
        weight, bias = self._head
        logits, routing = torch.addmm(bias, torch.cat([features, clipped]), weight.T).split(len(features))
        masked = torch.empty_like(logits)
        gpu.masked_logits(clipped, routing.argmax(1), self._head, self._floors, masked)
        return logits, masked
