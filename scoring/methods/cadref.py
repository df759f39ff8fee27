"""CADRef: relative error to the mean of the predicted class, in two parts.

Ling et al., "CADRef: Robust Out-of-Distribution Detection via Class-Aware Decoupled Relative Feature Leveraging",
CVPR 2025 (2503.00325); with the energy, which is its authors' default.

    y = argmax z,  m_y: mean features of the sample's images that are PREDICTED as y
    e = (h - m_y) ⊙ sign(w_y)
    E: mean of logsumexp(z) over the sample
    ood_score = (|max(e, 0)|_1 / logsumexp(z) + |max(-e, 0)|_1 / E) / |h|_1        higher = more out-of-distribution

Class means are the largest thing that any of these methods learns. They are kept in float16, as shares of the largest
entry: half the file, and scores that differ by less than 0.1 %.
A class that is predicted nowhere takes the mean of its labelled images, or, without any, of all images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from scoring.detector import LineDetector
from scoring.methods.method import Method
from scoring.methods.sample import Sample
from scoring.methods.stored import check_number, check_settings, check_tensors, scalar
from scoring.types import Classes, Features, Head, HeadWeight, Logits, Scores

LEAST_IMAGES = 2  # a class: the mean of one image is that image, and of none it is no class's
LEAST_ENERGY = 1e-3  # a trained network's is well above; divided by less, a score would change its sign
LEAST_LENGTH = 1e-6  # of features that are all zero

PredictedMeans = Float32[Tensor, "class feature"]


def cadref(features: Features, logits: Logits, weight: HeadWeight, means: PredictedMeans, mean_energy: float) -> Scores:
    """Relative error to the mean of the predicted class, its two parts weighted."""
    predicted = logits.argmax(1)
    error = (features - means[predicted]) * weight[predicted].sign()  # (B, D)
    above, below = error.clamp(min=0).sum(1), (-error).clamp(min=0).sum(1)
    weighted = above / logits.logsumexp(1).clamp(min=LEAST_ENERGY) + below / mean_energy
    return weighted / features.abs().sum(1).clamp(min=LEAST_LENGTH)


def predicted_means(sample: Sample, predicted: Classes, class_count: int) -> PredictedMeans:
    """Mean features of the images that are predicted as a class; see above for a class without any."""
    by_prediction, by_label = (_means(sample, classes, class_count) for classes in (predicted, sample.labels))
    means = torch.where(by_prediction.isnan(), by_label, by_prediction)
    return torch.where(means.isnan(), sample.features.mean(0, dtype=torch.float64), means).float()


def _means(sample: Sample, classes: Classes, class_count: int) -> Float64[Tensor, "class feature"]:
    sums = torch.zeros(class_count, sample.features.shape[1], dtype=torch.float64)
    for rows, own in zip(sample.features.split(4096), classes.split(4096), strict=True):  # not all in float64 at once
        sums.index_add_(0, own, rows.double())
    return sums / classes.bincount(minlength=class_count)[:, None]  # NaN for a class without images


class CadRef(Method):
    """See `cadref`.

    Args:
        head: of the classifier.
        shares: class means in units of `peak` (class, feature).
        peak: the largest of them.
        mean_energy: E.
    """

    name = "cadref"

    def __init__(self, head: Head, shares: Tensor, peak: float, mean_energy: float) -> None:
        self._weight, self._peak, self._energy = head.weight, peak, mean_energy
        self._shares = shares
        self._means = (shares.float() * peak).to(head.weight.device)

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return cadref(features, logits, self._weight, self._means, self._energy)

    def settings(self) -> dict[str, float]:
        """Nothing is set."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Class means and mean energy."""
        return {"means": self._shares, "peak": scalar(self._peak), "mean_energy": scalar(self._energy)}

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """Too few images for means of classes, or energies that cannot be divided by."""
        images, classes = len(sample.features), len(head.bias)
        if images < LEAST_IMAGES * classes:
            return f"{images} images are too few for means of {classes} classes: {LEAST_IMAGES * classes} are needed"
        mean_energy = float(sample.logits(head).logsumexp(1).mean())
        return f"the mean of logsumexp(logits) is {mean_energy:.3g}" if mean_energy < LEAST_ENERGY else ""

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> CadRef:
        """Take the means."""
        logits = sample.logits(head)
        means = predicted_means(sample, logits.argmax(1), logits.shape[1])
        peak = float(means.abs().max()) or 1.0
        mean_energy = float(logits.logsumexp(1).mean(dtype=torch.float64))
        return cls(head, (means / peak).half(), peak, max(mean_energy, LEAST_ENERGY))

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> CadRef:
        """See `Method.restore`."""
        one = (torch.float64, (1,))
        layouts = {"means": (torch.float16, tuple(head.weight.shape)), "peak": one, "mean_energy": one}
        check_settings(cls.name, settings, {})
        check_tensors(cls.name, tensors, layouts)
        peak, mean_energy = float(tensors["peak"]), float(tensors["mean_energy"])
        check_number(cls.name, "peak", peak, (0, 1e30))
        check_number(cls.name, "mean_energy", mean_energy, (LEAST_ENERGY, 1e30))
        return cls(head, tensors["means"], peak, mean_energy)
