"""Which images are kept, decided by the answer that their client got.

    reject      ood_score > threshold of the operating point that decided
    random      a share of all that were accepted, borderline or not: a fair sample of them
    borderline  accepted, not drawn, and p_value <= 2 alpha: as far out as the next alpha of in-distribution images

The p-value says where the borderline is for every method, whatever its scale.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from scoring.scorer import ImageScore
from service.capture.record import Reason


class Selection:
    """Draws.

    Args:
        shares: how many of each kind are kept, 0 to 1.
        draw: numbers in 0..1, 1 excluded.
    """

    def __init__(self, shares: Mapping[Reason, float], draw: Callable[[], float] = random.random) -> None:
        self._shares = shares
        self._draw = draw

    def reason(self, score: ImageScore, threshold: float, alpha: float) -> Reason | None:
        """Why this image is kept, if it is.

        Args:
            score: of the image.
            threshold: above which it was rejected.
            alpha: of the operating point that the threshold is from.
        """
        if score.ood_score > threshold:
            return "reject" if self._is_drawn("reject") else None
        if self._is_drawn("random"):
            return "random"
        is_borderline = score.p_value <= 2 * alpha
        return "borderline" if is_borderline and self._is_drawn("borderline") else None

    def _is_drawn(self, kind: Reason) -> bool:
        return self._draw() < self._shares[kind]
