"""What is counted of each model, with a `model` label whose values are the configured names.

Counters go on when a new version is loaded. The histogram of scores begins anew: its buckets are quantiles of the new
artifact's calibration scores, and a score of one artifact says nothing beside one of another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from scoring.artifact import Artifact
from scoring.errors import ImageError
from scoring.groups import ByClass
from service.problems import (
    KINDS,
    ClientGoneError,
    DeadlinePassedError,
    DecodingError,
    EmptyImageError,
    InferenceError,
    Kind,
)
from service.schemas import Timings

MAX_CLASS_SERIES = 1000  # more classes share one series, so that no network can flood a Prometheus
SCORE_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 1)
BEYOND = (0.125, 0.25, 0.5, 1, 2)  # of the distance from the median to the largest calibration score
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SCORES = ("line_ood_ood_score", "Scores; buckets at quantiles of the calibration scores.")


class CurrentScores(Collector):
    """The histogram of scores: of each model that of its current version, with buckets of its own."""

    def __init__(self) -> None:
        self.by_model: dict[str, Histogram] = {}

    def collect(self) -> Iterable[Metric]:
        """One family of all."""
        family = Metric(*SCORES, "histogram")
        for histogram in list(self.by_model.values()):
            for metric in histogram.collect():
                family.samples.extend(metric.samples)
        yield family


class ModelFamilies:
    """The metrics with a `model` label.

    Args:
        registry: where they are exposed.
        max_batch: images in one forward pass, at most.
    """

    def __init__(self, registry: CollectorRegistry, max_batch: int) -> None:
        self.stage_seconds = Histogram(
            "line_ood_stage_duration_seconds",
            "Time of an answered request in decode, queue and inference.",
            ["model", "stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "line_ood_images",
            "Images scored, by decision.",
            ["model", "decision", "operating_point"],
            registry=registry,
        )
        self.image_errors = Counter(
            "line_ood_image_errors",
            "Images that could not be scored, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self.dropped = Counter(
            "line_ood_dropped_images",
            "Images whose client or deadline was gone.",
            ["model", "reason"],
            registry=registry,
        )
        self.classes = Counter(
            "line_ood_predicted_class",
            "Images by predicted class.",
            ["model", "class_index", "class_name"],
            registry=registry,
        )
        self.batch_size = Histogram(
            "line_ood_batch_size",
            "Images in a forward pass.",
            ["model"],
            buckets=_powers_of_two(max_batch),
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "line_ood_forward_duration_seconds",
            "Duration of a forward pass.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_failures = Counter(
            "line_ood_batch_failures", "Forward passes that raised.", ["model"], registry=registry
        )
        self.last_forward = Gauge(
            "line_ood_last_forward_timestamp_seconds", "When the last forward pass ended.", ["model"], registry=registry
        )
        self.queue_depth = Gauge("line_ood_queue_depth", "Images waiting for the device.", ["model"], registry=registry)
        self.admitted = Gauge(
            "line_ood_admitted_images", "Images admitted, not yet answered.", ["model"], registry=registry
        )
        self.queue_capacity = Gauge(
            "line_ood_queue_capacity", "Images that may be admitted.", ["model"], registry=registry
        )
        self.queue_used = Gauge(
            "line_ood_queue_used_ratio",
            "Of the room for images, or of the time that they may wait, what is taken; above 1 requests are refused.",
            ["model"],
            registry=registry,
        )
        self.info = Gauge(
            "line_ood_artifact_info", "What is served.", ["artifact_id", "model", "method"], registry=registry
        )
        self.scores = CurrentScores()
        registry.register(self.scores)

    def watch(
        self,
        model: str,
        *,
        capacity: int,
        depth: Callable[[], int],
        admitted: Callable[[], int],
        used: Callable[[], float],
    ) -> None:
        """Ask for these numbers at each scrape, instead of being told of each change."""
        self.queue_capacity.labels(model).set(capacity)
        self.queue_depth.labels(model).set_function(depth)
        self.admitted.labels(model).set_function(admitted)
        self.queue_used.labels(model).set_function(used)


class ModelMetrics:
    """Counts what one version of one model does.

    Args:
        families: where the series belong.
        model: its name.
        artifact: the version's; the buckets of `ood_score` are quantiles of its calibration scores.
    """

    def __init__(self, families: ModelFamilies, model: str, artifact: Artifact) -> None:
        self._families = families
        self._model = model
        self._info = (artifact.artifact_id, model, artifact.metadata.primary)
        self._class_names = artifact.metadata.classifier.class_names
        self._successor: ModelMetrics | None = None
        self._has_begun = False
        self._histogram = Histogram(*SCORES, ["model"], buckets=score_buckets(artifact), registry=None)
        self._scores = self._histogram.labels(model)
        self._classes: dict[int, Counter] = {}
        groups = artifact.groups[artifact.metadata.primary]
        self._thresholds = {p.name: p.thresholds_of(groups).tolist() for p in artifact.metadata.operating_points}
        self._decisions: list[tuple[list[float], Counter, Counter]] = []
        self._decode, self._queue, self._inference = (
            families.stage_seconds.labels(model, stage) for stage in ("decode", "queue", "inference")
        )
        self._batch_size = families.batch_size.labels(model)
        self._batch_seconds = families.batch_seconds.labels(model)
        self._batch_failures = families.batch_failures.labels(model)
        self._last_forward = families.last_forward.labels(model)
        self._start_from_zero()

    def begin(self) -> None:
        """Count from now on; what was scored before is the warm-up."""
        self._has_begun = True

    def expose(self, old: ModelMetrics | None = None) -> None:
        """This version answers from now on: it is the one that is told of, and no series of the old one's is left."""
        if old is not None:
            old._withdraw(self)
        images = self._families.images
        self._decisions = [
            (own, images.labels(self._model, "accept", point), images.labels(self._model, "reject", point))
            for point, own in self._thresholds.items()
        ]
        self._families.info.labels(*self._info).set(1)
        self._families.scores.by_model[self._model] = self._histogram

    def stages(self, timings: Timings) -> None:
        """Where an answered request spent its time."""
        self._decode.observe(timings["decode"] / 1000)
        self._queue.observe(timings["queue"] / 1000)
        self._inference.observe(timings["inference"] / 1000)

    def image_scored(self, ood_score: float, class_index: int) -> None:
        """An image has a score: it is counted at every operating point, whichever the client asked for."""
        self._scores.observe(ood_score)
        series = self._classes.get(class_index)
        if series is None and self._is_current(class_index):  # `labels` alone would check and lock for every event
            series = self._classes[class_index] = self._families.classes.labels(self._model, *self._name(class_index))
        if series is not None:
            series.inc()
        for thresholds, accept, reject in self._decisions:
            (reject if ood_score > thresholds[class_index] else accept).inc()

    def image_failed(self, kind: Kind) -> None:
        """An image has no score."""
        self._families.image_errors.labels(self._model, kind.code).inc()

    def images_dropped(self, kind: Kind, count: int) -> None:
        """Nobody waits for these images any more."""
        self._families.dropped.labels(self._model, kind.code).inc(count)

    def batch_scored(self, size: int, seconds: float) -> None:
        """A forward pass has ended well."""
        if not self._has_begun:
            return
        self._batch_size.observe(size)
        self._batch_seconds.observe(seconds)
        self._last_forward.set(time.time())

    def batch_failed(self, size: int) -> None:
        """A forward pass has raised."""
        if not self._has_begun:
            return
        self._batch_size.observe(size)
        self._batch_failures.inc()

    def _is_current(self, class_index: int) -> bool:
        # Of an old version's last images: a series of its own would outlive it.
        successor = self._successor
        return successor is None or (
            class_index < len(successor._class_names) and (self._name(class_index) == successor._name(class_index))
        )

    def _name(self, class_index: int) -> tuple[str, str]:
        own = class_index < MAX_CLASS_SERIES
        return (str(class_index), self._class_names[class_index]) if own else ("other", "other")

    def _withdraw(self, successor: ModelMetrics) -> None:
        self._successor = successor
        if self._info != successor._info:
            self._families.info.remove(*self._info)
        for point in self._thresholds.keys() - successor._thresholds.keys():
            for decision in ("accept", "reject"):
                self._families.images.remove(self._model, decision, point)
        if self._class_names != successor._class_names:
            for index in range(min(len(self._class_names), MAX_CLASS_SERIES)):
                if self._name(index)[1] not in successor._class_names[index : index + 1]:
                    self._families.classes.remove(self._model, *self._name(index))

    def _start_from_zero(self) -> None:
        # A counter that appears with its first event hides it: a rate needs two values.
        for error, kind in KINDS.items():
            if issubclass(error, (ImageError, DecodingError, InferenceError, EmptyImageError)):
                self._families.image_errors.labels(self._model, kind.code)
            if issubclass(error, (ClientGoneError, DeadlinePassedError)):
                self._families.dropped.labels(self._model, kind.code)


def score_buckets(artifact: Artifact) -> list[float]:
    """Upper bounds: quantiles of the calibration scores, thresholds, and a few beyond, where OOD images fall.

    Of thresholds by class the lowest and the highest: no number of classes may flood a Prometheus.
    """
    scores = artifact.calibration_scores
    quantiles = np.quantile(scores, SCORE_QUANTILES)
    groups, points = artifact.groups[artifact.metadata.primary], artifact.metadata.operating_points
    thresholds = [end for point in points for end in _ends(point.thresholds_of(groups))]
    beyond = scores.max() + (scores.max() - np.median(scores)) * np.array(BEYOND)
    return sorted({float(bound) for bound in [*quantiles, *thresholds, *beyond]})


def _ends(thresholds: ByClass) -> tuple[float, float]:
    return float(thresholds.min()), float(thresholds.max())


def _powers_of_two(largest: int) -> Sequence[float]:
    return [2**power for power in range((largest - 1).bit_length() + 1)]
