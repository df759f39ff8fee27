"""The methods in plain Python loops over lists of floats, one image at a time: slow, and written from the papers.

h is an image's features, z its logits, weight a list of rows [k][j]. All answer `ood_score`: higher = more OOD.
Only ViM takes numpy, for eigenvectors and the pseudo-inverse. Nothing here imports torch or `scoring`.
"""

from __future__ import annotations

import math

import numpy as np

from tests.reference import Matrix, Vector, contribution, energy, linear, masks, ood_score, percentile


def softmax(z: Vector) -> Vector:
    """Probabilities."""
    powers = [math.exp(each - max(z)) for each in z]
    return [each / sum(powers) for each in powers]


def argmax(z: Vector) -> int:
    """Index of the first of the largest."""
    return z.index(max(z))


def mean_vector(rows: Matrix) -> Vector:
    """Mean over images."""
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def length(values: Vector) -> float:
    """Euclidean."""
    return math.sqrt(math.fsum(each * each for each in values))


def line_paper(
    h: Vector, weight: Matrix, bias: Vector, sample: Matrix, labels: list[int], p_a: float, p_w: float, delta: float
) -> float:
    """Contributions |h[j] · W[y][j]| of every image, averaged over the images of a class; both masks are of these."""
    contributions = contribution(sample, labels, weight, absolute=True)
    return ood_score(h, weight, bias, delta, masks(contributions, weight, p_a, p_w))


def msp(z: Vector) -> float:
    return math.fsum(each for k, each in enumerate(softmax(z)) if k != argmax(z))


def max_logit(z: Vector) -> float:
    return -max(z)


def gen(z: Vector, gamma: float, top: int) -> float:
    chances = softmax(z)
    order = sorted(range(len(z)), key=lambda k: -chances[k])[:top]
    others = {k: math.fsum(each for i, each in enumerate(chances) if i != k) for k in order}
    return math.fsum(chances[k] ** gamma * others[k] ** gamma for k in order)


def react(h: Vector, weight: Matrix, bias: Vector, sample: Matrix, p: float) -> float:
    cut = percentile([each for row in sample for each in row], p)
    return energy(linear([min(each, cut) for each in h], weight, bias))


def dice(h: Vector, weight: Matrix, bias: Vector, sample: Matrix, p: float) -> float:
    mean = mean_vector(sample)
    shares = [[m * w for m, w in zip(mean, row, strict=True)] for row in weight]
    cut = percentile([each for row in shares for each in row], p)
    sparse = [
        [w if share > cut else 0.0 for w, share in zip(row, own, strict=True)]
        for row, own in zip(weight, shares, strict=True)
    ]
    return energy(linear(h, sparse, bias))


def strongest(h: Vector, p: float) -> list[int]:
    """Indices of the D - round(p D / 100) largest."""
    return sorted(range(len(h)), key=lambda j: -h[j])[: len(h) - round(len(h) * p / 100)]


def ash_s(h: Vector, weight: Matrix, bias: Vector, p: float) -> float:
    kept = strongest(h, p)
    factor = math.exp(sum(h) / sum(h[j] for j in kept))
    return energy(linear([each * factor if j in kept else 0.0 for j, each in enumerate(h)], weight, bias))


def scale(h: Vector, weight: Matrix, bias: Vector, p: float) -> float:
    factor = math.exp(sum(h) / sum(h[j] for j in strongest(h, p)))
    return energy(linear([each * factor for each in h], weight, bias))


def fdbd(h: Vector, weight: Matrix, bias: Vector, sample: Matrix) -> float:
    z, mean = linear(h, weight, bias), mean_vector(sample)
    y = argmax(z)
    distances = [
        (z[y] - z[c]) / length([a - b for a, b in zip(weight[y], weight[c], strict=True)])
        for c in range(len(z))
        if c != y
    ]
    return -sum(distances) / len(distances) / length([a - b for a, b in zip(h, mean, strict=True)])


def nci(h: Vector, weight: Matrix, bias: Vector, sample: Matrix, alpha: float) -> float:
    y, mean = argmax(linear(h, weight, bias)), mean_vector(sample)
    centred = [a - b for a, b in zip(h, mean, strict=True)]
    along = sum(a * b for a, b in zip(centred, weight[y], strict=True))
    return -along / length(centred) - alpha * sum(abs(each) for each in h)


def predicted_means(sample: Matrix, labels: list[int], weight: Matrix, bias: Vector) -> Matrix:
    """Mean over the images predicted as a class; else over those labelled so; else over all."""
    predicted = [argmax(linear(h, weight, bias)) for h in sample]
    means = []
    for c in range(len(weight)):
        own = [h for h, y in zip(sample, predicted, strict=True) if y == c]
        labelled = [h for h, y in zip(sample, labels, strict=True) if y == c]
        means.append(mean_vector(own or labelled or sample))
    return means


def cadref(h: Vector, weight: Matrix, bias: Vector, sample: Matrix, labels: list[int]) -> float:
    z = linear(h, weight, bias)
    y, mean_energy = argmax(z), sum(-energy(linear(each, weight, bias)) for each in sample) / len(sample)
    mean = predicted_means(sample, labels, weight, bias)[y]
    above = below = 0.0
    for j, each in enumerate(h):
        error = (each - mean[j]) * (1 if weight[y][j] > 0 else -1 if weight[y][j] < 0 else 0)
        above, below = above + max(error, 0.0), below + max(-error, 0.0)
    size = sum(abs(each) for each in h)
    return above / size / -energy(z) + below / size / mean_energy


def vim(h: Vector, weight: Matrix, bias: Vector, sample: Matrix, principal: int) -> float:
    w, b, rows = np.array(weight), np.array(bias), np.array(sample)
    origin = -np.linalg.pinv(w) @ b
    values, vectors = np.linalg.eig((rows - origin).T @ (rows - origin) / len(rows))
    residual = vectors.T[np.argsort(-values.real)[principal:]].real
    norms = [length((residual @ (row - origin)).tolist()) for row in rows]
    alpha = sum(max(linear(each, weight, bias)) for each in sample) / sum(norms)
    return alpha * length((residual @ (np.array(h) - origin)).tolist()) + energy(linear(h, weight, bias))
