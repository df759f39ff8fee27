"""How far FPR95 and AUROC would move with other images: the bootstrap (Efron, Annals of Statistics, 1979).

Images are drawn with replacement, ID images and those of each OOD folder apart, as many as there are. For resample r,
c[r, i] counts how often ID image i was drawn, d[r, j] OOD image j; n and m are their numbers. Higher = more OOD.

    threshold_r = the smallest score s with Σ_i c[r, i] · 1[s_i <= s] >= 95 % of n
    FPR95_r     = Σ_j d[r, j] · 1[s_j <= threshold_r] / m
    AUROC_r     = Σ_i Σ_j c[r, i] · d[r, j] · (1[s_j > s_i] + 1[s_j = s_i] / 2) / (n m)

Every method is measured on the same resamples, and every folder against the same resampled ID images: so the mean over
the folders has an interval, too. With scores in order the sums over j are running sums: n + m steps a resample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, Int64

from scoring.conformal import FloatArray

RESAMPLES = 1000
BLOCK = 25  # resamples at a time: their counts of 5000 images stay in the caches
SEED = 0
LEVEL = 0.95
ACCEPTED = Fraction(95, 100)  # of the ID images, for FPR95

IdCounts = Int64[np.ndarray, "resample id_image"]
OodCounts = Int64[np.ndarray, "resample ood_image"]
Draws = Float64[np.ndarray, "2 resample"]  # FPR95, AUROC


def bootstrap(
    id_scores: Mapping[str, FloatArray], ood_scores: Mapping[str, Mapping[str, FloatArray]]
) -> dict[tuple[str, str], Draws]:
    """FPR95 and AUROC of every resample, by method and OOD folder.

    Args:
        id_scores: by method, one an image.
        ood_scores: by folder, then by method.
    """
    random = np.random.default_rng(SEED)
    id_count = len(next(iter(id_scores.values())))
    ood_counts = {name: len(next(iter(scores.values()))) for name, scores in ood_scores.items()}
    orders = {method: np.argsort(scores) for method, scores in id_scores.items()}
    pairs = {
        (method, name): _Pair(id_scores[method][orders[method]], scores[method])
        for method in id_scores
        for name, scores in ood_scores.items()
    }
    drawn: dict[tuple[str, str], list[Draws]] = {pair: [] for pair in pairs}
    for size in _blocks():
        inside = _draw(random, size, id_count)
        outside = {name: _draw(random, size, count) for name, count in ood_counts.items()}
        for method, order in orders.items():
            counts = inside[:, order]
            places = _places(counts)
            for name in ood_scores:
                drawn[method, name].append(pairs[method, name].measure(counts, places, outside[name]))
    return {pair: np.concatenate(blocks, axis=1) for pair, blocks in drawn.items()}


def interval(draws: Float64[np.ndarray, "resample"]) -> tuple[float, float]:
    """The central interval of what the resamples gave."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


class _Pair:
    """One method's scores of ID and OOD images, put in order once for all resamples."""

    def __init__(self, sorted_id: FloatArray, ood: FloatArray) -> None:
        self._order = np.argsort(ood)
        ordered = ood[self._order]
        self._below = ordered.searchsorted(sorted_id, side="left")  # OOD images below each ID image
        self._upto = ordered.searchsorted(sorted_id, side="right")
        self._tied = not np.array_equal(self._below, self._upto)

    def measure(self, id_counts: IdCounts, places: Int64[np.ndarray, "resample"], ood_counts: OodCounts) -> Draws:
        """Both measures; counts of ID images come in the order of their scores, those of OOD images as they are."""
        resamples, id_count = id_counts.shape
        ood_count = ood_counts.shape[1]
        running = np.zeros((resamples, ood_count + 1), np.int64)
        np.cumsum(ood_counts[:, self._order], axis=1, out=running[:, 1:])
        fpr95 = running[np.arange(resamples), self._upto[places]] / ood_count
        lower = running[:, self._below]
        lower += running[:, self._upto] if self._tied else lower  # twice the OOD images below, and ties once
        twice = np.einsum("ri,ri->r", id_counts, lower)
        return np.stack([fpr95, 1 - twice / (2 * id_count * ood_count)])


def _blocks() -> Iterator[int]:
    yield from (min(BLOCK, RESAMPLES - start) for start in range(0, RESAMPLES, BLOCK))


def _draw(random: np.random.Generator, resamples: int, count: int) -> Int64[np.ndarray, "resample image"]:
    drawn = random.integers(0, count, (resamples, count)) + np.arange(resamples)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)


def _places(id_counts: IdCounts) -> Int64[np.ndarray, "resample"]:
    """Where among the sorted ID images each resample has its threshold."""
    needed = -(-ACCEPTED.numerator * id_counts.shape[1] // ACCEPTED.denominator)
    places: Int64[np.ndarray, "resample"] = (np.cumsum(id_counts, axis=1) >= needed).argmax(axis=1)
    return places
