"""Predicted classes in at most GROUPS groups of neighbours with about equal shares of the calibration's images.

A thousand classes and a thousand images would make an index of noise alone. Neighbours, because class lists have an
order: ImageNet's is that of WordNet, dogs beside dogs. A class with more than a group's share has one of its own.
"""

from __future__ import annotations

import numpy as np

from service.monitoring.psi import Counts

GROUPS = 20


class Neighbourhoods:
    """The groups; not those of `scoring.groups`, which have thresholds of their own.

    Args:
        counts: images by class (class).

    Attributes:
        of: the group of each class.
        expected: images by group (group).
        count: how many groups there are.
    """

    def __init__(self, counts: Counts) -> None:
        middles = (counts.cumsum() - counts / 2) / counts.sum()
        places = np.minimum((middles * GROUPS).astype(np.int64), GROUPS - 1)  # last classes without images are at 1
        _, groups = np.unique(places, return_inverse=True)
        self.of: list[int] = groups.tolist()
        self.expected = np.bincount(groups, weights=counts).astype(np.int64)
        self.count = len(self.expected)
