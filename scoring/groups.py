"""One threshold a predicted class, where the class has images enough; the other classes share one.

Mondrian conformal prediction (Vovk, Lindsay, Nouretdinov, Gammerman 2003): an image is compared with the calibration
images of its own group alone,

    p(x) = (1 + #{i in group(x): s_i >= s(x)}) / (1 + #{i in group(x)}),       higher score = more out-of-distribution

and groups are made of the PREDICTED class, which is known of every image. With n_k calibration images predicted as k:

    n_c >= least      class c stands alone
    n_c <  least      the pool: the images of all classes with n_k <= least

Why "<=" in the pool: the groups are found in the counts, and to be exchangeable with the calibration images the image
that is judged has to be counted, too. With it class c has n_c + 1 images and stands alone above `least`; of the other
classes those with `least` images or fewer do not. So P(reject | ID, class c) <= alpha for each class that stands alone,
P(reject | ID, pooled) <= alpha for the others together, and hence P(reject | ID) <= alpha, all exactly.
Where the pool has fewer than `least` images, the classes with the next larger counts join it, by the same count.
Not kept: a mean of the threshold of a class and that of all images, which is neither's.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from scoring import conformal
from scoring.conformal import DELTA, FloatArray, Guarantee

Counts = Int64[np.ndarray, "class"]


class ClassGroups:
    """Calibration scores by group of predicted classes.

    Args:
        scores: of the calibration images, in any order.
        predicted: their predicted classes.
        class_count: K.
        least: calibration images with which a class stands alone, at least `conformal.images_needed`.
    """

    def __init__(
        self,
        scores: Float64[np.ndarray, "image"],
        predicted: Int64[np.ndarray, "image"],
        class_count: int,
        least: int,
    ) -> None:
        counts = np.bincount(predicted, minlength=class_count)  # (K,)
        levels = {int(count): pool_level(counts, int(count), least) for count in np.unique(counts)}
        level_of = np.array([levels[count] for count in counts.tolist()])  # (K,)
        self.alone: Bool[np.ndarray, "class"] = counts >= level_of
        pools = np.unique(level_of[~self.alone]).tolist()
        self._groups: list[FloatArray] = [np.sort(scores[counts[predicted] <= level]) for level in pools]
        self._group_of: Counts = np.searchsorted(pools, level_of) if pools else np.zeros(class_count, np.int64)
        for c in np.flatnonzero(self.alone).tolist():
            self._group_of[c] = len(self._groups)
            self._groups.append(np.sort(scores[predicted == c]))

    @property
    def sizes(self) -> Counts:
        """Calibration images that the threshold of each class rests upon."""
        found: Counts = np.array([len(group) for group in self._groups])[self._group_of]
        return found

    def thresholds(
        self, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA
    ) -> Float64[np.ndarray, "class"]:
        """For each predicted class the score above which an image is rejected.

        Raises:
            TooFewImagesError: the smallest group cannot keep the promise; says how many images it needs.
        """
        conformal.demand_rank(int(self.sizes.min()), alpha, guarantee, delta)
        by_group = np.array([conformal.threshold(group, alpha, guarantee, delta) for group in self._groups])
        found: FloatArray = by_group[self._group_of]
        return found

    def p_values(
        self, scores: Float64[np.ndarray, "batch"], predicted: Int64[np.ndarray, "batch"]
    ) -> Float64[np.ndarray, "batch"]:
        """Share of the scores of each image's group, its own included, that are at least as far out."""
        found, groups = np.empty(len(scores)), self._group_of[predicted]  # (B,), (B,)
        for group in np.unique(groups).tolist():
            rows = groups == group
            found[rows] = conformal.p_values(scores[rows], self._groups[group])
        return found


def pool_level(counts: Counts, count: int, least: int) -> int:
    """The most images of a class that is pooled, when an image of a class of `count` is judged, and counted.

    It is `least`, or the next count of a class with which the pool, if anything is in it, has more than `least`
    images. All classes are pooled where they have no more together.
    """
    counted = np.append(np.delete(counts, np.argmax(counts == count)), count + 1)  # (K,), in another order
    for level in (least, *np.unique(counted[counted > least]).tolist()):
        total = int(counted[counted <= level].sum())
        if total == 0 or total > least:
            return int(level)
    return least
