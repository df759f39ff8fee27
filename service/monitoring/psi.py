"""Population stability index: how far one distribution over bins is from another.

    PSI = sum over bins of (a_i - e_i) log(a_i / e_i)        a: shares seen, e: shares expected

the sum of both Kullback-Leibler divergences, 0 where they agree. Half an image is added to every bin of either side,
since a bin that is empty by chance would make it infinite.

Sampling alone makes it positive: with m images seen, n in the calibration and B bins of the same distribution PSI is
close to (1/m + 1/n) times a chi-square of B - 1 degrees of freedom, so that its mean is `noise` = (B - 1) (1/m +
1/n), its standard deviation noise * sqrt(2 / (B - 1)). What is published is PSI - noise: 0 in the mean while nothing
has shifted, and negative in half of the cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shift:
    """How far a window is from the calibration.

    Attributes:
        psi: without what sampling adds in the mean.
        noise: what that was.
    """

    psi: float
    noise: float

    @classmethod
    def between(cls, seen: Counts, expected: Counts) -> Shift:
        """Of counts over the same bins (bin), at least one image on either side."""
        bins = len(seen)
        own, other = ((counts + 0.5) / (counts.sum() + bins / 2) for counts in (seen, expected))
        noise = float((bins - 1) * (1 / seen.sum() + 1 / expected.sum()))
        return cls(float(((own - other) * np.log(own / other)).sum()) - noise, noise)
