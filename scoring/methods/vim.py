"""ViM: what of the features lies outside the space where ID features vary, as one more logit.

Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022 (2203.10807).

    u = -W⁺ b                                       origin: all logits are 0 there
    R: the D - d eigenvectors of the sample's (h - u)ᵀ (h - u) with the smallest eigenvalues (residual, D)
    alpha = mean max z / mean |R (h - u)|           over the sample
    ood_score = alpha |R (h - u)| - logsumexp(z)    higher = more out-of-distribution

Stored is the smaller of the two bases, R or the d others, in float16: rounding turns the space by some 0.0003 radians.
R follows from the d others by QR; norms do not depend on which basis of the space that gives.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float32
from torch import Tensor

from scoring.detector import LineDetector
from scoring.line import energy
from scoring.methods.method import Method
from scoring.methods.sample import FeatureVector, Sample
from scoring.methods.stored import check_settings, check_tensors, scalar
from scoring.types import Classes, Features, Head, Logits, Scores

Basis = Float32[Tensor, "direction feature"]


def principal_count(feature_count: int, image_count: int) -> int:
    """The d of the authors' code, and half of the features where those are fewer than any network of theirs has.

    At most half of the images: the others have to show how long residuals are.
    """
    wanted = 1000 if feature_count >= 2048 else 512 if feature_count >= 768 else feature_count // 2
    return min(wanted, image_count // 2)


def vim(features: Features, logits: Logits, origin: FeatureVector, residual: Basis, alpha: float) -> Scores:
    """Virtual logit and energy."""
    return alpha * residual_norm(features, origin, residual) + energy(logits)


def residual_norm(features: Features, origin: FeatureVector, residual: Basis) -> Scores:
    """|R (h - u)|."""
    return ((features.float() - origin) @ residual.T).square().sum(1).sqrt()


def origin_of(head: Head) -> FeatureVector:
    """-W⁺ b."""
    inverse: Tensor = torch.linalg.pinv(head.weight.cpu().double())  # (D, K)
    return -(inverse @ head.bias.cpu().double()).float()


def eigenvectors(features: Float32[Tensor, "image feature"], origin: FeatureVector) -> Tensor:
    """Of (h - u)ᵀ (h - u), as rows, smallest eigenvalue first; float64 (feature, feature)."""
    square = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    for rows in features.split(4096):  # not all in float64 at once
        centred = rows.double() - origin.double()
        square += centred.T @ centred
    vectors: Tensor = torch.linalg.eigh(square).eigenvectors
    return vectors.T


def residual_of(basis: Tensor, principal: int) -> Basis:
    """R, of the basis that is stored."""
    count = basis.shape[1]
    if principal > count - principal:
        return basis.float()
    whole: Tensor = torch.linalg.qr(basis.double().T, mode="complete").Q  # (D, D); the first d columns are the others
    return whole[:, principal:].T.float().contiguous()


class Vim(Method):
    """See `vim`.

    Args:
        head: of the classifier.
        principal: d.
        origin: u.
        basis: R where d > D - d, else the d others; float16.
        alpha: weight of the virtual logit.
    """

    name = "vim"

    def __init__(self, head: Head, principal: int, origin: FeatureVector, basis: Tensor, alpha: float) -> None:
        device = head.weight.device
        self._principal, self._basis, self._alpha = principal, basis, alpha
        self._origin, self._residual = origin.to(device), residual_of(basis, principal).to(device)

    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """See `Method.score`."""
        return vim(features, logits, self._origin, self._residual, self._alpha)

    def settings(self) -> dict[str, float]:
        """How many directions ID features vary in."""
        return {"principal": self._principal}

    def tensors(self) -> dict[str, Tensor]:
        """Origin, the smaller basis and alpha."""
        return {"origin": self._origin.cpu(), "basis": self._basis, "alpha": scalar(self._alpha)}

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> Vim:
        """Find the space, and how much what lies outside counts."""
        images, count = sample.features.shape
        principal, origin = principal_count(count, images), origin_of(head)
        residual, others = eigenvectors(sample.features, origin).tensor_split([count - principal])
        basis = (residual if principal > count - principal else others).half().contiguous()
        norm = float(residual_norm(sample.features, origin, residual_of(basis, principal)).mean(dtype=torch.float64))
        alpha = float(sample.logits(head).amax(1).mean(dtype=torch.float64)) / norm if norm > 0 else 0.0
        return cls(head, principal, origin, basis, alpha)

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> Vim:
        """See `Method.restore`."""
        count = head.weight.shape[1]
        check_settings(cls.name, settings, {"principal": (0, count - 1)}, whole=frozenset({"principal"}))
        principal = int(settings["principal"])
        basis = (torch.float16, (min(principal, count - principal), count))
        layouts = {"origin": (torch.float32, (count,)), "basis": basis, "alpha": (torch.float64, (1,))}
        check_tensors(cls.name, tensors, layouts)
        return cls(head, principal, tensors["origin"], tensors["basis"], float(tensors["alpha"]))
