"""Two versions of a model, compared on the same images: where they decide otherwise, and by how much they differ."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np

from scoring.artifact import Artifact
from scoring.scorer import ImageScore
from service.schemas import ShadowDecision
from service.shadow_metrics import DECISIONS, ShadowMetrics


class Verdict(NamedTuple):
    """What one version says of an image.

    Attributes:
        class_name: of the most probable class.
        decisions: `accept` or `reject`, by operating point.
        standing: the standardised score, see `service.shadow_metrics`.
    """

    class_name: str
    decisions: dict[str, str]
    standing: float


class Judge:
    """Makes verdicts of one version's scores.

    Args:
        artifact: the version's.

    Attributes:
        artifact_id: of it.
        points: its operating points.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact_id = artifact.artifact_id
        self.points = artifact.metadata.operating_points
        self._class_names = artifact.metadata.classifier.class_names
        groups = artifact.groups[artifact.metadata.primary]
        self._thresholds = {point.name: point.thresholds_of(groups).tolist() for point in self.points}
        low, self._median, high = np.quantile(artifact.calibration_scores, (0.05, 0.5, 0.95)).tolist()
        self._spread = max(high - low, float(np.finfo(np.float32).eps))

    def __call__(self, score: ImageScore) -> Verdict:
        """What this version says of an image with this score."""
        return Verdict(
            self._class_names[score.predicted],
            {name: DECISIONS[score.ood_score > own[score.predicted]] for name, own in self._thresholds.items()},
            (score.ood_score - self._median) / self._spread,
        )


class Comparison:
    """Counts, from zero, of one version that answers beside one shadow.

    Args:
        model: its name.
        served: judge of the version that answers.
        shadow: judge of the shadow.
        metrics: told of everything.
    """

    def __init__(self, model: str, served: Judge, shadow: Judge, metrics: ShadowMetrics) -> None:
        self.images: Counter[str] = Counter()
        self.class_disagreements = 0
        self._model = model
        self._metrics = metrics
        self._decisions: Counter[tuple[str, str, str]] = Counter()
        in_shadow = {point.name for point in shadow.points}
        self._points = [point.name for point in served.points if point.name in in_shadow]
        self._series = {
            triple: metrics.decisions.labels(model, *triple)
            for triple in itertools.product(self._points, DECISIONS, DECISIONS)
        }

    def count(self, served: Verdict, shadow: Verdict) -> None:
        """Both have scored an image."""
        self.pass_over("scored")
        self._metrics.differences.labels(self._model).observe(shadow.standing - served.standing)
        if served.class_name != shadow.class_name:
            self.class_disagreements += 1
            self._metrics.class_disagreements.labels(self._model).inc()
        for point in self._points:
            pair = (point, served.decisions[point], shadow.decisions[point])
            self._decisions[pair] += 1
            self._series[pair].inc()

    def pass_over(self, outcome: str) -> None:
        """An image has come to this end."""
        self.images[outcome] += 1
        self._metrics.images.labels(self._model, outcome).inc()

    def withdraw(self, successor: Comparison) -> None:
        """Another one counts from now on: no series is left of operating points that it does not have."""
        for triple in self._series.keys() - successor._series.keys():
            self._metrics.decisions.remove(self._model, *triple)

    def decisions(self) -> list[ShadowDecision]:
        """How many images for each pair of decisions."""
        return [
            ShadowDecision(
                operating_point=point, served=served, shadow=shadow, images=self._decisions[point, served, shadow]
            )
            for point, served, shadow in itertools.product(self._points, DECISIONS, DECISIONS)
        ]
