"""LINe's online half on a CPU: two functions that numba compiles at their first call, in a few seconds.

Each reads W (K, D) once for a whole batch: four of its rows at a time are held near, and every image is multiplied with
them. torch would pack W anew for each small batch, or build a (K, D) mask for each image. Both release the interpreter
lock and use one core, so that several threads can score several batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_ROWS = 4


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Sums may be taken in any order, which is what lets them be vectorised; NaN and infinity keep their meaning."""
    plain = inspect.unwrap(function)  # what checks arguments in tests wraps the function, and cannot be compiled
    kernel: Callable[..., None] = numba.njit(plain, nogil=True, fastmath={"reassoc", "contract", "nsz"})
    return kernel


@_compiled
def head_logits(features: Floats, delta: float, weight: Floats, bias: Floats, logits: Floats, routed: Indices) -> None:
    """Logits of the features, and the class that min(features, delta) is routed to.

    Args:
        features: h (batch, feature).
        delta: δ; infinity for no clip.
        weight: W (class, feature).
        bias: b (class).
        logits: h Wᵀ + b is written here (batch, class).
        routed: argmax of min(h, δ) Wᵀ + b is written here (batch); the first of equals, 0 where all is NaN.
    """
    images, feature_count = features.shape
    class_count = len(bias)
    limit = np.float32(delta)
    best = np.full(images, -np.inf, np.float32)
    routed[:] = 0
    for first in range(0, class_count, _ROWS):
        k = max(min(first, class_count - _ROWS), 0)  # the last rows are taken together with some that are done
        k1, k2, k3 = min(k + 1, class_count - 1), min(k + 2, class_count - 1), min(k + 3, class_count - 1)
        for i in range(images):
            a0 = a1 = a2 = a3 = c0 = c1 = c2 = c3 = np.float32(0)
            for j in range(feature_count):
                h = features[i, j]
                hc = limit if h > limit else h  # NaN stays NaN
                a0 += h * weight[k, j]
                a1 += h * weight[k1, j]
                a2 += h * weight[k2, j]
                a3 += h * weight[k3, j]
                c0 += hc * weight[k, j]
                c1 += hc * weight[k1, j]
                c2 += hc * weight[k2, j]
                c3 += hc * weight[k3, j]
            logits[i, k], logits[i, k1] = a0 + bias[k], a1 + bias[k1]
            logits[i, k2], logits[i, k3] = a2 + bias[k2], a3 + bias[k3]
            for row, clipped in ((k, c0), (k1, c1), (k2, c2), (k3, c3)):
                if clipped + bias[row] > best[i]:
                    best[i], routed[i] = clipped + bias[row], row


@_compiled
def masked_energy(
    features: Floats, delta: float, routed: Indices, weight: Floats, bias: Floats, floors: Floats, energy: Floats
) -> None:
    """-logsumexp over k of the pruned head's logits, Σ_j min(h[j], δ) · W[k, j] · 1[W[k, j] >= floors[r, j]] + b[k].

    Args:
        features: h (batch, feature).
        delta: δ; infinity for no clip.
        routed: r (batch).
        weight: W (class, feature).
        bias: b (class).
        floors: smallest weight kept (class, feature).
        energy: E is written here (batch).
    """
    images, feature_count = features.shape
    class_count = len(bias)
    limit, zero = np.float32(delta), np.float32(0)
    z = np.empty((images, class_count), np.float32)
    for first in range(0, class_count, _ROWS):
        k = max(min(first, class_count - _ROWS), 0)
        k1, k2, k3 = min(k + 1, class_count - 1), min(k + 2, class_count - 1), min(k + 3, class_count - 1)
        for i in range(images):
            r = routed[i]
            z0 = z1 = z2 = z3 = zero
            for j in range(feature_count):
                h, floor = features[i, j], floors[r, j]
                hc = limit if h > limit else h
                w0, w1, w2, w3 = weight[k, j], weight[k1, j], weight[k2, j], weight[k3, j]
                z0 += hc * w0 if w0 >= floor else zero
                z1 += hc * w1 if w1 >= floor else zero
                z2 += hc * w2 if w2 >= floor else zero
                z3 += hc * w3 if w3 >= floor else zero
            z[i, k], z[i, k1] = z0 + bias[k], z1 + bias[k1]
            z[i, k2], z[i, k3] = z2 + bias[k2], z3 + bias[k3]
    for i in range(images):
        largest = z[i].max()
        total = zero
        for k in range(class_count):
            total += np.exp(z[i, k] - largest)
        energy[i] = -(largest + np.log(total))
