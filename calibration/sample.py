"""Some of the images' features, kept in memory: what methods are fitted to, and what settings are searched on.

Evenly spread over all images of a pass, so that what is kept does not depend on their number or on how they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from scoring.methods import Sample
from scoring.types import Classes, Features

Places = Int64[Tensor, "image"]  # indices into the files of a pass

LARGEST = 20_000  # images: 160 MB of 2048 features


class SampleRoom:
    """Takes in batches of a pass, and keeps the rows that it wants.

    Args:
        count: images of the whole pass.
        largest: images to keep, at most.
    """

    def __init__(self, count: int, largest: int = LARGEST) -> None:
        kept = min(count, largest)
        self._wanted = frozenset(i * count // kept for i in range(kept))
        self._features: list[Features] = []
        self._labels: list[Classes] = []
        self._places: list[Places] = []

    def add(self, indices: Sequence[int], features: Features, labels: Classes) -> None:
        """Keep what is wanted of a batch; `indices` are places in the pass."""
        rows = [row for row, index in enumerate(indices) if index in self._wanted]
        if rows:
            self._features.append(features[rows].float())
            self._labels.append(labels[rows])
            self._places.append(torch.tensor([indices[row] for row in rows]))

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept so far."""
        if not self._features:
            return {}
        return {
            "sample_features": torch.cat(self._features),
            "sample_labels": torch.cat(self._labels),
            "sample_places": torch.cat(self._places),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what `tensors` gave."""
        if "sample_features" in tensors:
            self._features, self._labels = [tensors["sample_features"]], [tensors["sample_labels"]]
            self._places = [tensors["sample_places"]]

    def sample(self) -> Sample:
        """What methods are fitted to."""
        kept = self.tensors()
        return Sample(kept["sample_features"], kept["sample_labels"])

    @property
    def places(self) -> Places:
        """For each image of the sample its place in the pass."""
        return self.tensors()["sample_places"]
