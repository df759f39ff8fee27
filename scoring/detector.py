"""LINe bound to one classifier: masks on the classifier's device, ready to score its features."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from scoring import line
from scoring.types import ActivationMask, Classes, Contribution, Features, Head, Logits, Scores, WeightThresholds


@dataclass(frozen=True, eq=False)
class LineMasks:
    """What calibration learns for LINe.

    Attributes:
        contribution: C (class, feature).
        activation_mask: A (class, feature).
        weight_thresholds: t (class); with C they stand for the weight masks, which are never stored.
        p_a: percentile that A removes of each class.
    """

    contribution: Contribution
    activation_mask: ActivationMask
    weight_thresholds: WeightThresholds
    p_a: float

    def paper(self) -> LineMasks:
        """The paper's, of |C|, where the authors' code takes C: another activation mask, the same weight masks."""
        size = self.contribution.abs()
        return replace(self, contribution=size, activation_mask=line.activation_mask(size, self.p_a))


class LineDetector:
    """Features of one classifier to its logits and to `ood_score`, through the kernels of the head's device.

    Extra memory a batch: two (batch, class) arrays. For several threads at once.

    Args:
        head: W and b of the classifier, on the device where its features are.
        masks: learnt with that classifier.
        clip: δ; None for no clip.
    """

    def __init__(self, head: Head, masks: LineMasks, clip: float | None) -> None:
        self.masks = masks
        self._head = head
        self._delta = math.inf if clip is None else clip
        floors = line.weight_floors(masks.contribution, masks.weight_thresholds, masks.activation_mask)
        self._floors = floors.to(head.weight.device)

    def paper(self) -> LineDetector:
        """The same with the paper's masks; the routed class is the same, too."""
        return LineDetector(self._head, self.masks.paper(), self._delta)

    @torch.inference_mode()
    def score(self, features: Features) -> tuple[Logits, Scores]:
        """The classifier's own logits, and `ood_score`: higher = more out-of-distribution."""
        logits, routed = self.route(features)
        return logits, self.energy(features, routed)

    @torch.inference_mode()
    def route(self, features: Features) -> tuple[Logits, Classes]:
        """The classifier's own logits, and the class whose masks score each image."""
        features = features.float().contiguous()
        weight, bias = self._head
        if features.is_cuda:
            clipped = features.clamp(max=self._delta)
            logits, routing = torch.addmm(bias, torch.cat([features, clipped]), weight.T).split(len(features))
            return logits, routing.argmax(1)
        from scoring.kernels import cpu  # noqa: PLC0415 - only where it is used: numba takes half a second to import

        # In numpy: after a forward pass the caches hold the network, and every step of torch starts cold.
        own, routed = np.empty((len(features), len(bias)), np.float32), np.empty(len(features), np.int64)
        cpu.head_logits(features.numpy(), self._delta, weight.numpy(), bias.numpy(), own, routed)
        return torch.from_numpy(own), torch.from_numpy(routed)

    @torch.inference_mode()
    def energy(self, features: Features, routed: Classes) -> Scores:
        """`ood_score` of features that `route` has routed."""
        features = features.float().contiguous()
        if features.is_cuda:
            from scoring.kernels import gpu  # noqa: PLC0415 - Triton comes with the CUDA builds of torch only

            masked = features.new_empty(len(features), len(self._head.bias))
            gpu.masked_logits(features.clamp(max=self._delta), routed, self._head, self._floors, masked)
            return line.energy(masked)
        from scoring.kernels import cpu  # noqa: PLC0415 - see above

        energy = np.empty(len(features), np.float32)
        weight, bias, floors = (each.numpy() for each in (*self._head, self._floors))
        cpu.masked_energy(features.numpy(), self._delta, routed.numpy(), weight, bias, floors, energy)
        return torch.from_numpy(energy)
