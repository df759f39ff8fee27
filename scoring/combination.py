"""Several scores of an image merged into one `ood_score`: that of the method that finds it the most surprising.

Each method's score becomes its log odds of being that far out by chance, and the largest is taken: Tippett's (1931)
smallest p-value, which asks one method to be sure, whatever the others say.

    c_j = P(S_j >= s_j), counted on reference images
    l_j = P(X_j >= s_j), X_j logistic with the mean and the standard deviation of the reference images' scores
    p_j = max(c_j, l_j)        v_j = log((1 - p_j) / p_j)        rises strictly with s_j
    ood_score = max_j v_j                                        higher = more out-of-distribution

The network was trained on most reference images, so that they end sooner than new images do, by method more or less:
the counted tail of one that ends early would give it more of the ID images to reject than it is worth. Their mean and
spread say more of new images than their last few do, and a logistic distribution's log odds are a straight line. A
score that is nothing like it (MSP: nearly all 0) stays as it was counted, for l_j alone would leave the others nothing.

LINe sees what is far, energy what is near: in a sum of log p_j (Fisher), of log odds (Mudholkar and George 1979) or of
normal scores (Stouffer) the blind drowns the one that sees. The harmonic mean of p_j (Wilson 2019; in the tail the
Cauchy combination of Liu and Xie 2020) lies between; the largest v_j does not change when a method is given twice.
docs/method.md has what each of them finds.

The merge is made from reference images that are not the calibration images (those of the masks), and fixed before any
calibration score is seen. So it is a score like any other: the threshold among the calibration images' merged scores
keeps its promise exactly, however the methods depend on each other. Worse reference images cost power, not the promise.
Without that threshold, rejecting where any p_j <= alpha would reject up to J alpha of the ID images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from scoring.conformal import FloatArray
from scoring.errors import ArtifactError, DatasetError

MAX_KNOTS = 1000  # a method: 16 KB, and p_j to 1 % among a million reference images
TAIL = np.log(9)  # log odds of p = 10 %, from where the far tail takes its slope
PREFIX = "combination."  # of the tensors' names in an artifact


@dataclass(frozen=True, eq=False)
class LogOdds:
    """A strictly rising, piecewise linear function of a score; its last pieces go on for ever.

    Attributes:
        scores: of the knots, strictly ascending; at least two.
        values: log odds there, strictly ascending.
        slopes: of the piece below each knot, and of the one above all.
    """

    scores: Float64[np.ndarray, "knot"]
    values: Float64[np.ndarray, "knot"]
    slopes: Float64[np.ndarray, "knot+1"]

    @classmethod
    def through(cls, scores: Float64[np.ndarray, "knot"], values: Float64[np.ndarray, "knot"]) -> LogOdds:
        """Join the knots, and go on beyond them as the outer tenth of the images does: an exponential tail.

        Raises:
            ValueError: the knots do not rise strictly, or too steeply or too little for numbers of this size.
        """
        if len(scores) < 2 or not (np.isfinite(scores).all() and np.isfinite(values).all()):
            raise ValueError("at least two different finite scores")
        last = len(scores) - 1
        low, high = values.searchsorted([-TAIL, TAIL]).tolist()
        starts = np.array([0, *range(last), np.clip(high - 1, 0, last - 1)])
        ends = np.array([np.clip(low, 1, last), *range(1, last + 1), last])
        with np.errstate(over="ignore"):
            run, rise = scores[ends] - scores[starts], values[ends] - values[starts]
            slopes = np.divide(rise, run, out=np.zeros_like(rise), where=(run > 0) & (rise > 0))
        if not (np.isfinite(slopes) & (slopes > 0)).all():
            raise ValueError("scores that rise strictly, by steps that can be told apart")
        return cls(scores, values, slopes)

    def __call__(self, scores: Float64[np.ndarray, "batch"]) -> Float64[np.ndarray, "batch"]:
        """Log odds of each score; rounding never lets it fall."""
        piece = self.scores.searchsorted(scores)  # (B,): 0 below all knots
        base = np.maximum(piece - 1, 0)
        ceiling = np.append(self.values, np.inf)[piece]
        found: FloatArray = np.minimum(self.values[base] + (scores - self.scores[base]) * self.slopes[piece], ceiling)
        return found


@dataclass(frozen=True, eq=False)
class Combination:
    """The merged `ood_score` of chosen methods, for any number of images and for several threads at once.

    Attributes:
        log_odds: by method.
    """

    log_odds: dict[str, LogOdds]

    @classmethod
    def fit(cls, reference: Mapping[str, FloatArray]) -> Combination:
        """Learn the log odds of each method from its scores of the same reference images, none of them for calibration.

        Raises:
            DatasetError: the scores of a method are all the same, or not finite.
        """
        fitted: dict[str, LogOdds] = {}
        for method, scores in reference.items():
            try:
                fitted[method] = LogOdds.through(*knots(scores))
            except ValueError as error:
                raise DatasetError(f"the scores of {method!r} cannot be combined: wanted {error}") from error
        return cls(fitted)

    def __call__(self, scores: Mapping[str, FloatArray]) -> FloatArray:
        """`ood_score` (batch) from each method's scores (batch); methods besides the fitted ones are not looked at."""
        odds = np.stack([function(scores[method]) for method, function in self.log_odds.items()])  # (J, B)
        found: FloatArray = odds.max(0)  # NaN where one is
        return found

    def tensors(self) -> dict[str, Tensor]:
        """What an artifact keeps: by method its knots (2, knot), scores and log odds; slopes are derived."""
        return {
            PREFIX + method: torch.from_numpy(np.stack([function.scores, function.values]))
            for method, function in self.log_odds.items()
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], methods: Sequence[str]) -> Combination:
        """What `tensors` gave, for the very same scores.

        Raises:
            ArtifactError: the first tensor that is missing, too many, or no such function.
        """
        found, wanted = sorted(tensors), sorted(PREFIX + method for method in methods)
        if not methods or found != wanted:
            raise ArtifactError("combination", f"tensors {wanted or 'of one method or more'}", found)
        return cls({method: _restored(PREFIX + method, tensors[PREFIX + method]) for method in methods})


def counted_knots(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The distinct scores, or MAX_KNOTS of them, the denser the further out, and their log odds as counted."""
    count = len(scores)
    distinct, images = np.unique(scores, return_counts=True)
    at_least = np.cumsum(images[::-1])[::-1]  # images at least as far out
    if len(distinct) > MAX_KNOTS:
        wanted = np.geomspace(1, count, MAX_KNOTS).round()  # equal steps of log p
        chosen = np.unique(len(distinct) - 1 - np.searchsorted(at_least[::-1], wanted))
        distinct, at_least = distinct[chosen], at_least[chosen]
    return distinct, np.log((count + 1 - at_least) / at_least)


def knots(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The counted ones, none higher than the logistic distribution has it."""
    places, counted = counted_knots(scores)
    if len(places) < 2:  # no spread: refused with the knots
        return places, counted
    with np.errstate(all="ignore"):  # not finite, or too close for a spread: refused likewise
        logistic = np.pi / np.sqrt(3) * (places - scores.mean()) / scores.std()
        values = np.minimum(counted, logistic)
        rises = np.append(True, np.diff(values) > 0)  # not by less than a number can tell
    return places[rises], values[rises]


def _restored(field: str, tensor: Tensor) -> LogOdds:
    wanted = f"float64 of shape (2, 2 to {MAX_KNOTS})"
    shape = tuple(tensor.shape)
    if tensor.dtype != torch.float64 or len(shape) != 2 or shape[0] != 2 or not 2 <= shape[1] <= MAX_KNOTS:
        raise ArtifactError(field, wanted, f"{tensor.dtype} of shape {shape}")
    try:
        return LogOdds.through(*tensor.numpy())
    except ValueError as error:
        raise ArtifactError(field, str(error), "others") from error
