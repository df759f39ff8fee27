"""LINe in plain Python loops over lists of floats: slow, and written from the paper, not from `scoring`.

A feature vector is a list [j], a head weight a list of rows [k][j], a contribution likewise [c][j]. The weight
mask is the authors' explicit (class, class, feature) one. Nothing here imports torch, numpy or `scoring`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

Vector = list[float]
Matrix = list[list[float]]
Mask = list[list[bool]]


class Masks(NamedTuple):
    """What calibration learns: activation mask [c][j] and weight mask [c][k][j]."""

    activation: Mask
    weight: list[Mask]


def percentile(values: Vector, p: float) -> float:
    """Linear interpolation between the two nearest of the sorted values."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * (p / 100)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    share, step = place - below, ordered[above] - ordered[below]
    # From the nearer end, so that the result never leaves the interval by rounding.
    return ordered[above] - step * (1 - share) if share >= 0.5 else ordered[below] + step * share


def contribution(features: Matrix, labels: list[int], weight: Matrix, *, absolute: bool = False) -> Matrix:
    """h[j] * d logit_y / d h[j] of every image, averaged over the images of a class.

    A class without images takes the mean feature vector of the classes that have some.
    """
    class_count, feature_count = len(weight), len(weight[0])
    sums = [[0.0] * feature_count for _ in range(class_count)]
    for h, y in zip(features, labels, strict=True):
        for j in range(feature_count):
            sums[y][j] += abs(h[j] * weight[y][j]) if absolute else h[j] * weight[y][j]
    counts = [labels.count(c) for c in range(class_count)]
    result = [[total / counts[c] for total in sums[c]] if counts[c] else [] for c in range(class_count)]
    fallback = _mean_features(features, labels, absolute=absolute)
    for c in range(class_count):
        if not counts[c]:
            size = [abs(w) if absolute else w for w in weight[c]]
            result[c] = [fallback[j] * size[j] for j in range(feature_count)]
    return result


def _mean_features(features: Matrix, labels: list[int], *, absolute: bool) -> Vector:
    means = []
    for c in sorted(set(labels)):
        own = [h for h, y in zip(features, labels, strict=True) if y == c]
        means.append([sum(abs(h[j]) if absolute else h[j] for h in own) / len(own) for j in range(len(own[0]))])
    return [sum(mean[j] for mean in means) / len(means) for j in range(len(means[0]))]


def activation_mask(contributions: Matrix, p_a: float) -> Mask:
    """Keep what is strictly above the percentile of its class; p_a = 0 keeps all."""
    if p_a == 0:
        return [[True] * len(row) for row in contributions]
    return [[value > percentile(row, p_a) for value in row] for row in contributions]


def weight_threshold(contribution_of_class: Vector, weight: Matrix, p_w: float) -> float:
    """The percentile of |C| * W over all entries of one class's product."""
    if p_w == 0:
        return -math.inf
    return percentile([abs(c) * w for row in weight for c, w in zip(contribution_of_class, row, strict=True)], p_w)


def weight_mask(contributions: Matrix, weight: Matrix, thresholds: Vector) -> list[Mask]:
    """The explicit (class, class, feature) mask: |C[c][j]| * W[k][j] > t[c]."""
    return [
        [[abs(c) * w > cut for c, w in zip(own, row, strict=True)] for row in weight]
        for own, cut in zip(contributions, thresholds, strict=True)
    ]


def masks(contributions: Matrix, weight: Matrix, p_a: float, p_w: float) -> Masks:
    """Both masks of every class."""
    thresholds = [weight_threshold(row, weight, p_w) for row in contributions]
    return Masks(activation_mask(contributions, p_a), weight_mask(contributions, weight, thresholds))


def linear(h: Vector, weight: Matrix, bias: Vector) -> Vector:
    """Logits of one image."""
    return [b + sum(x * w for x, w in zip(h, row, strict=True)) for row, b in zip(weight, bias, strict=True)]


def energy(logits: Vector) -> float:
    """-logsumexp."""
    top = max(logits)
    return -(top + math.log(sum(math.exp(z - top) for z in logits)))


def clipped(h: Vector, delta: float | None) -> Vector:
    """min(h, delta)."""
    return [x if delta is None else min(x, delta) for x in h]


def routed_class(h: Vector, weight: Matrix, bias: Vector, delta: float | None) -> int:
    """The most probable class of the clipped features under the full head."""
    logits = linear(clipped(h, delta), weight, bias)
    return logits.index(max(logits))


def masked_logits(h: Vector, weight: Matrix, bias: Vector, delta: float | None, learnt: Masks) -> Vector:
    """Logits of one image under the masks of its routed class; the bias is never pruned."""
    r = routed_class(h, weight, bias, delta)
    kept = [x if keep else 0.0 for x, keep in zip(clipped(h, delta), learnt.activation[r], strict=True)]
    pruned = [
        [w if keep else 0.0 for w, keep in zip(row, mask, strict=True)]
        for row, mask in zip(weight, learnt.weight[r], strict=True)
    ]
    return linear(kept, pruned, bias)


def ood_score(h: Vector, weight: Matrix, bias: Vector, delta: float | None, learnt: Masks) -> float:
    """LINe's energy of one image: higher = more out-of-distribution."""
    return energy(masked_logits(h, weight, bias, delta, learnt))


def p_value(score: float, calibration_scores: Vector) -> float:
    """(1 + how many calibration scores are at least as far out) / (n + 1)."""
    return (1 + sum(1 for each in calibration_scores if each >= score)) / (len(calibration_scores) + 1)


def group_of(score: float, predicted: int, calibration: list[tuple[float, int]], least: int) -> Vector:
    """Scores of all images that an image is compared with, its own included.

    Args:
        score: of the image that is judged.
        predicted: its class.
        calibration: score and predicted class of the calibration images.
        least: a class of more images than these, the judged one counted with the others, stands alone.
    """
    images = [*calibration, (score, predicted)]
    counts = Counter(own for _, own in images)
    level = least
    while 0 < sum(n for n in counts.values() if n <= level) <= least and max(counts.values()) > level:
        level = min(n for n in counts.values() if n > level)
    alone = counts[predicted] > level
    return [s for s, own in images if (own == predicted if alone else counts[own] <= level)]
