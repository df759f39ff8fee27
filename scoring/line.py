"""LINe: out-of-distribution detection by leveraging important neurons.

Ahn, Park, Kim, CVPR 2023 (arXiv 2303.13995), as pure functions. K classes, D features, B images;
h features, W (K, D) and b (K) the linear head.

    offline   C = M ⊙ W                                M (K, D): class means of h          contribution
              A[c, j] = C[c, j] > percentile(C[c], p_a)                                    activation mask
              t[c] = percentile(|C[c]| ⊙ W, p_w) over all K·D entries                      weight threshold
    online    hc = min(h, δ)                                                               clip
              r = argmax(hc Wᵀ + b)                                                        routed class
              z[k] = Σ_j hc[j] · A[r, j] · W[k, j] · 1[|C[r, j]| · W[k, j] > t[r]] + b[k]
              ood_score = E = -logsumexp(z)            higher = more out-of-distribution

The head is linear, so C is exactly the paper's first-order Shapley value, averaged over the images of a class.
The authors keep a (K, K, D) weight mask; here (K,) thresholds are kept and the mask is made while scoring.
These functions are the reference; `scoring.kernels` computes the online half in one pass over W.
C is rounded to float32 first and every comparison is made on float64 products, which are then exact: the
masks are the same on every machine.
"""

from __future__ import annotations

import numpy as np
import torch

from scoring.types import (
    ActivationMask,
    ClassContribution,
    ClassCounts,
    Classes,
    ClassMeans,
    Contribution,
    Features,
    Head,
    HeadWeight,
    Logits,
    Scores,
    WeightFloors,
    WeightThresholds,
)


def fill_empty_classes(class_means: ClassMeans, counts: ClassCounts) -> ClassMeans:
    """Give a class without images the mean over the classes that have some; never NaN."""
    seen = counts > 0
    return torch.where(seen[:, None], class_means, class_means[seen].mean(0))  # (K, D)


def signed_contribution(class_means: ClassMeans, weight: HeadWeight) -> Contribution:
    """C = M ⊙ W, for features that are never negative (the authors' code)."""
    return (class_means * weight.double()).float()


def absolute_contribution(class_abs_means: ClassMeans, weight: HeadWeight) -> Contribution:
    """C = mean|h| ⊙ |W|, for features of either sign (the paper's absolute Shapley value)."""
    return (class_abs_means * weight.double().abs()).float()


def activation_mask(contribution: Contribution, p_a: float) -> ActivationMask:
    """Keep what contributes more than the p_a-th percentile of its class; p_a = 0 keeps all."""
    if p_a == 0:
        return torch.ones_like(contribution, dtype=torch.bool)
    values = contribution.double().cpu()
    cut = torch.from_numpy(np.percentile(values.numpy(), p_a, axis=1))  # (K,)
    return (values > cut[:, None]).to(contribution.device)


def weight_threshold(contribution: ClassContribution, weight: HeadWeight, p_w: float) -> float:
    """Percentile of |C[c]| ⊙ W over all K·D entries; C[c] is one row of C.

    p_w = 0 removes nothing: -inf.
    """
    if p_w == 0:
        return -np.inf
    product = contribution.double().abs() * weight.double()  # (K, D)
    return float(np.percentile(product.cpu().numpy(), p_w, overwrite_input=True))


def weight_floors(contribution: Contribution, thresholds: WeightThresholds, mask: ActivationMask) -> WeightFloors:
    """For each routed class r and feature j the smallest float32 weight that both masks keep.

    |C[r, j]| · W[k, j] > t[r] holds exactly when W[k, j] >= floor[r, j], so that scoring needs one float32
    comparison a weight. -inf keeps every weight, +inf none: that is what the activation mask removes.
    """
    size = contribution.double().abs()  # (K, D)
    cut = thresholds[:, None].expand_as(size)
    inf = torch.tensor(torch.inf, device=contribution.device)

    def kept(weight: WeightFloors) -> ActivationMask:
        return size * weight.double() > cut

    floor = (cut / size).float()
    for _ in range(2):  # the quotient is within one float32 step of the floor
        below = torch.nextafter(floor, -inf)
        floor = torch.where(kept(below), below, floor)
    for _ in range(2):
        floor = torch.where(kept(floor), floor, torch.nextafter(floor, inf))
    constant = torch.where(cut < 0, -inf, inf)  # no contribution: the product is 0 whatever the weight
    floor = torch.where((size == 0) | torch.isneginf(cut), constant, floor)
    return torch.where(mask, floor, inf)


def clip(features: Features, delta: float | None) -> Features:
    """Hc = min(h, δ), in float32; None is an infinite δ."""
    features = features.float()
    return features if delta is None else features.clamp(max=delta)


def routed_class(clipped: Features, head: Head) -> Classes:
    """R = argmax(hc Wᵀ + b): the class whose masks score the image. Not the prediction; keep it inside."""
    return torch.addmm(head.bias, clipped, head.weight.T).argmax(1)


def masked_logits(clipped: Features, routed: Classes, head: Head, floors: WeightFloors) -> Logits:
    """Logits of the pruned head, one (K, D) temporary for each routed class among the images."""
    logits = clipped.new_empty(len(clipped), len(head.bias))  # (B, K)
    for r in routed.unique().tolist():
        rows = routed == r
        pruned = torch.where(head.weight >= floors[r], head.weight, 0)  # (K, D)
        logits[rows] = torch.addmm(head.bias, clipped[rows], pruned.T)
    return logits


def energy(logits: Logits) -> Scores:
    """E = -logsumexp(z) at temperature 1 (Liu et al., 2020): higher = more out-of-distribution."""
    return -logits.logsumexp(1)


def line(features: Features, head: Head, delta: float | None, floors: WeightFloors) -> Scores:
    """LINe's `ood_score` of a batch of features."""
    clipped = clip(features, delta)
    routed = routed_class(clipped, head)
    return energy(masked_logits(clipped, routed, head, floors))
