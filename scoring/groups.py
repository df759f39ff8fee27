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

One threshold for all classes is the case in which all of them are pooled.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from scoring import conformal
from scoring.conformal import DELTA, FloatArray, Guarantee

RANK = 2  # of the threshold of a class that stands alone, at least: not its farthest image alone decides

Predicted = Int64[np.ndarray, "image"]
Counts = Int64[np.ndarray, "class"]
ByClass = Float64[np.ndarray, "class"]
ByGroup = Int64[np.ndarray, "group"]


class ClassGroups:
    """Calibration scores by group of predicted classes. For several threads at once.

    Args:
        scores: of the calibration images, in any order.
        predicted: their predicted classes.
        class_count: K.
        least: calibration images with which a class stands alone, see `least_for`; None pools all classes.

    Attributes:
        counts: calibration images predicted as each class.
        alone: whether each class has thresholds of its own.
        group_of: index of the group of each class.
        group_sizes: calibration images of each group.
    """

    def __init__(
        self,
        scores: Float64[np.ndarray, "image"],
        predicted: Predicted,
        class_count: int,
        least: int | None,
    ) -> None:
        least = len(scores) + 1 if least is None else min(least, len(scores) + 1)
        self.counts: Counts = np.bincount(predicted, minlength=class_count)
        levels = {int(count): pool_level(self.counts, int(count), least) for count in np.unique(self.counts)}
        level_of = np.array([levels[count] for count in self.counts.tolist()])  # (K,)
        self.alone: Bool[np.ndarray, "class"] = self.counts >= level_of
        pools = np.unique(level_of[~self.alone])
        self.group_of: Counts = np.searchsorted(pools, level_of)
        self.group_of[self.alone] = len(pools) + np.arange(self.alone.sum())
        members = [np.flatnonzero(self.counts[predicted] <= level) for level in pools.tolist()]  # images, by group
        own = np.flatnonzero(self.alone[predicted])
        groups = np.repeat(np.arange(len(pools)), [len(each) for each in members])
        groups = np.concatenate([groups, self.group_of[predicted[own]]])
        self.group_sizes: ByGroup = np.bincount(groups, minlength=len(pools) + int(self.alone.sum()))
        # An image's key is its group, and within that its place among all scores: two searches find a batch's ranks.
        self._sorted = np.sort(scores)
        places = self._sorted.searchsorted(scores)[np.concatenate([*members, own])]
        self._keys = np.sort(groups * (len(scores) + 1) + places)
        self._starts: ByGroup = np.cumsum(self.group_sizes) - self.group_sizes

    @property
    def sizes(self) -> Counts:
        """Calibration images that the threshold of each class rests upon."""
        found: Counts = self.group_sizes[self.group_of]
        return found

    def ranks(self, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA) -> ByGroup:
        """For each group l, of which the l-th largest score is its threshold.

        Raises:
            TooFewImagesError: the smallest group cannot keep the promise; says how many images it needs.
        """
        sizes, groups = np.unique(self.group_sizes, return_inverse=True)
        of_sizes = [conformal.demand_rank(size, alpha, guarantee, delta) for size in sizes.tolist()]
        found: ByGroup = np.array(of_sizes)[groups]
        return found

    def thresholds(self, alpha: float, guarantee: Guarantee = "marginal", delta: float = DELTA) -> ByClass:
        """For each predicted class the score above which an image is rejected.

        Raises:
            TooFewImagesError: the smallest group cannot keep the promise; says how many images it needs.
        """
        keys = self._keys[self._starts + self.group_sizes - self.ranks(alpha, guarantee, delta)]  # (G,)
        found: FloatArray = self._sorted[keys % (len(self._sorted) + 1)][self.group_of]
        return found

    def p_values(
        self, scores: Float64[np.ndarray, "batch"], predicted: Int64[np.ndarray, "batch"]
    ) -> Float64[np.ndarray, "batch"]:
        """Share of the scores of each image's group, its own included, that are at least as far out."""
        groups = self.group_of[predicted]  # (B,)
        keys = groups * (len(self._sorted) + 1) + self._sorted.searchsorted(scores)
        below = self._keys.searchsorted(keys) - self._starts[groups]
        sizes = self.group_sizes[groups]
        found: FloatArray = (1 + sizes - below) / (sizes + 1)
        return found


def least_for(alphas: Iterable[float], guarantee: Guarantee = "marginal", delta: float = DELTA) -> int:
    """The images with which a class is to stand alone: its thresholds are its RANK-th largest scores or lower ones.

    The fewest that keep the promise make a class's farthest image its threshold: one image that is none of the class
    then switches the reject flag of the class off.
    """
    return conformal.images_needed(min(alphas), guarantee, delta, place=RANK)


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
