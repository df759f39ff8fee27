"""What methods share that learn one mean feature vector and have a few numbers set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from scoring.detector import LineDetector
from scoring.methods.method import Method
from scoring.methods.sample import FeatureVector, Sample
from scoring.methods.stored import Range, check_settings, check_tensors
from scoring.types import Head


class MeanMethod(Method):
    """A method that learns the mean of the sample.

    Args:
        head: of the classifier.
        settings: by name.
        mean: of the sample.

    Attributes:
        defaults: the settings that `fit` takes.
        ranges: what is allowed of each.
    """

    defaults: ClassVar[Mapping[str, float]] = {}
    ranges: ClassVar[Mapping[str, Range]] = {}

    @abstractmethod
    def __init__(self, head: Head, settings: Mapping[str, float], mean: FeatureVector) -> None:
        self._settings, self._mean = dict(settings), mean.to(head.weight.device)

    def settings(self) -> dict[str, float]:
        """As they were given."""
        return self._settings

    def tensors(self) -> dict[str, Tensor]:
        """The mean feature vector."""
        return {"mean": self._mean.cpu()}

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> MeanMethod:
        """Take the mean."""
        return cls(head, cls.defaults, sample.mean)

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> MeanMethod:
        """See `Method.restore`."""
        check_settings(cls.name, settings, cls.ranges)
        check_tensors(cls.name, tensors, {"mean": (torch.float32, (head.weight.shape[1],))})
        return cls(head, settings, tensors["mean"])
