"""What every method can do: be fitted, score, be stored, be restored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from scoring.detector import LineDetector
from scoring.methods.sample import Sample
from scoring.methods.stored import check_settings, check_tensors
from scoring.types import Classes, Features, Head, Logits, Scores

NEGATIVE = "features can be negative (no ReLU before the head)"


class Method(ABC):
    """A score of features and logits, fitted to ID images; for several threads at once."""

    name: ClassVar[str]

    @abstractmethod
    def score(self, features: Features, logits: Logits, routed: Classes) -> Scores:
        """Score a batch: `ood_score`, higher = more out-of-distribution; an image's does not depend on the others.

        Args:
            features: h, on the device of the head.
            logits: h Wᵀ + b, in float32 or float64.
            routed: the class whose masks LINe scores each image with; internal, not the prediction.
        """

    @abstractmethod
    def settings(self) -> dict[str, float]:
        """Hyper-parameters, for the artifact's metadata."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What fitting learnt, for the artifact: small, on the CPU."""

    @classmethod
    def objection(cls, sample: Sample, head: Head, line: LineDetector) -> str:
        """Why the method is not for this network; empty where it is. Arguments as for `fit`."""
        return ""

    @classmethod
    @abstractmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> Method:
        """Learn what the method needs, with its default hyper-parameters.

        Args:
            sample: features of ID images.
            head: of the classifier.
            line: LINe of that classifier, which has learnt from all images: what is a variant of it follows from it.
        """

    @classmethod
    @abstractmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> Method:
        """Undo `settings` and `tensors`: the method scores as the fitted one did.

        Raises:
            ArtifactError: a setting or a tensor that is missing, unknown or not as it has to be.
        """


class PlainMethod(Method):
    """A method that follows from head and LINe alone: nothing of its own is learnt, set or stored."""

    @classmethod
    @abstractmethod
    def of(cls, head: Head, line: LineDetector) -> PlainMethod:
        """Make it."""

    def settings(self) -> dict[str, float]:
        """Nothing is set."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is learnt."""
        return {}

    @classmethod
    def fit(cls, sample: Sample, head: Head, line: LineDetector) -> PlainMethod:
        """Nothing is learnt."""
        return cls.of(head, line)

    @classmethod
    def restore(
        cls, head: Head, line: LineDetector, settings: Mapping[str, float], tensors: Mapping[str, Tensor]
    ) -> PlainMethod:
        """See `Method.restore`."""
        check_settings(cls.name, settings, {})
        check_tensors(cls.name, tensors, {})
        return cls.of(head, line)


class LogitsMethod(PlainMethod):
    """A method that needs nothing but the logits."""

    @classmethod
    def of(cls, head: Head, line: LineDetector) -> LogitsMethod:
        """Make it."""
        return cls()
