"""What is counted of shadows; there only where a model has one.

The difference of two scores is taken between standardised ones, (ood_score - median) / spread of the own artifact's
calibration scores, the spread being the distance from their 5 % to their 95 % quantile: raw scores of two artifacts may
be on different scales. A difference above 0 says that the shadow finds the image further out.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.metrics import LOADS

DIFFERENCES = (-2, -1, -0.5, -0.25, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2)
OUTCOMES = ("scored", "dropped", "failed")
DECISIONS = ("accept", "reject")


class ShadowMetrics:
    """The metrics of all shadows, each with the `model` that it shadows.

    Args:
        registry: where they are exposed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.images = Counter(
            "line_ood_shadow_images",
            "Images for the shadow: scored, dropped because it is behind, or failed.",
            ["model", "outcome"],
            registry=registry,
        )
        self.decisions = Counter(
            "line_ood_shadow_decisions",
            "Images that both have scored, by the decision of each.",
            ["model", "operating_point", "served", "shadow"],
            registry=registry,
        )
        self.class_disagreements = Counter(
            "line_ood_shadow_class_disagreements",
            "Images that both have scored and find to be of different classes.",
            ["model"],
            registry=registry,
        )
        self.differences = Histogram(
            "line_ood_shadow_score_difference",
            "Standardised score of the shadow less that of the version that answered.",
            ["model"],
            buckets=DIFFERENCES,
            registry=registry,
        )
        self.info = Gauge(
            "line_ood_shadow_artifact_info",
            "What is compared with.",
            ["artifact_id", "model", "method"],
            registry=registry,
        )
        self.loads = Counter(
            "line_ood_shadow_loads",
            "Loads of a shadow after the start, by outcome.",
            ["model", "outcome"],
            registry=registry,
        )

    def start_from_zero(self, model: str) -> None:
        """A counter that appears with its first event hides it."""
        for outcome in OUTCOMES:
            self.images.labels(model, outcome)
        for outcome in LOADS:
            self.loads.labels(model, outcome)
        self.class_disagreements.labels(model)
        self.differences.labels(model)
