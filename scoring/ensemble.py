"""All the scores of one artifact, over the features of its classifier: LINe, and the methods that share its pass.

LINe gives the logits that the others read, and the routed class, which its paper's variant shares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from scoring.combination import PREFIX, Combination
from scoring.detector import LineDetector
from scoring.methods import Method, restore_all
from scoring.types import Features, Head, Logits, Scores

LINE = "line"
COMBINED = "combined"


class Ensemble:
    """Scores features with one, some or all of its methods. For several threads at once.

    Args:
        detector: LINe.
        others: the other methods, by name.
        combination: merges some of them to one more.
    """

    def __init__(
        self, detector: LineDetector, others: Mapping[str, Method], combination: Combination | None = None
    ) -> None:
        self._detector = detector
        self._others = others
        self._combination = combination
        self.names = (LINE, *others, *([COMBINED] if combination else []))

    @torch.inference_mode()
    def score(self, features: Features, names: Collection[str]) -> tuple[Logits, dict[str, Scores]]:
        """The classifier's own logits, and the scores of these methods: higher = more out-of-distribution."""
        logits, routed = self._detector.route(features)
        merged = self._combination if COMBINED in names else None
        wanted = {*names, *(merged.log_odds if merged else ())}
        found = {LINE: self._detector.energy(features, routed)} if LINE in wanted else {}
        if others := [name for name in self._others if name in wanted]:
            features, exact = features.float(), logits.double()  # in float32 a sure network's MSP would tie at 0
            found |= {name: self._others[name].score(features, exact, routed) for name in others}
        if merged:
            parts = {name: found[name].double().cpu().numpy() for name in merged.log_odds}
            found[COMBINED] = torch.from_numpy(merged(parts)).to(logits.device)
        return logits, {name: found[name] for name in names}


def restore_ensemble(
    head: Head,
    detector: LineDetector,
    settings: Mapping[str, Mapping[str, float]],
    combined: Sequence[str],
    tensors: Mapping[str, Tensor],
) -> Ensemble:
    """The ensemble that an artifact holds.

    Args:
        head: of the classifier, on its device.
        detector: LINe.
        settings: of the other methods, by name.
        combined: names of the methods that are merged; none: there is no such merge.
        tensors: what all of these have learnt.

    Raises:
        ArtifactError: the first tensor or setting that is not as it has to be.
    """
    of_merge = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    others = {name: tensor for name, tensor in tensors.items() if name not in of_merge}
    combination = Combination.restore(of_merge, combined) if combined or of_merge else None
    return Ensemble(detector, restore_all(head, detector, settings, others), combination)
