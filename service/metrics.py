"""Prometheus metrics of one app: one registry each, prefix `line_ood_`, seconds, counters in `_total`.

An image counts once, by its decision; a request once, by its route and status. So the sums agree:
images accepted and rejected at one operating point, image errors and dropped images are the images admitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from scoring.artifact import Artifact
from scoring.errors import ImageError
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


M = TypeVar("M", Counter, Histogram)


class Metrics:
    """Counts what the service does.

    Args:
        artifact: the one served; the buckets of `ood_score` are quantiles of its calibration scores.
        model: the model's name.
        queue_capacity: images that may be in the house.
        max_batch: images in one forward pass, at most.
    """

    def __init__(self, artifact: Artifact, *, model: str, queue_capacity: int, max_batch: int) -> None:
        self.registry = registry = CollectorRegistry()
        self._has_begun = False
        self._series: dict[tuple[object, tuple[str, ...]], Any] = {}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._requests = Counter("line_ood_requests", "Requests answered.", ["route", "code"], registry=registry)
        self._request_seconds = Histogram(
            "line_ood_request_duration_seconds",
            "From first byte to answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "line_ood_stage_duration_seconds",
            "Time of an answered request in decode, queue and inference.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._refused = Counter(
            "line_ood_refused_requests", "Requests without results, by reason.", ["reason"], registry=registry
        )
        self._ended = Counter(
            "line_ood_ended_connections", "Connections ended without an answer.", ["reason"], registry=registry
        )
        self._connections = Gauge("line_ood_open_connections", "Connections of clients.", registry=registry)
        self._images = Counter(
            "line_ood_images",
            "Images scored, by decision.",
            ["decision", "operating_point"],
            registry=registry,
        )
        self._image_errors = Counter(
            "line_ood_image_errors",
            "Images that could not be scored, by reason.",
            ["reason"],
            registry=registry,
        )
        self._dropped = Counter(
            "line_ood_dropped_images",
            "Images whose client or deadline was gone.",
            ["reason"],
            registry=registry,
        )
        self._scores = Histogram(
            "line_ood_ood_score",
            "Scores; buckets at quantiles of the calibration scores.",
            buckets=score_buckets(artifact),
            registry=registry,
        )
        self._classes = Counter(
            "line_ood_predicted_class", "Images by predicted class.", ["class_index", "class_name"], registry=registry
        )
        self._batch_size = Histogram(
            "line_ood_batch_size",
            "Images in a forward pass.",
            buckets=_powers_of_two(max_batch),
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "line_ood_forward_duration_seconds",
            "Duration of a forward pass.",
            buckets=SECONDS,
            registry=registry,
        )
        self._batch_failures = Counter("line_ood_batch_failures", "Forward passes that raised.", registry=registry)
        self._last_forward = Gauge(
            "line_ood_last_forward_timestamp_seconds", "When the last forward pass ended.", registry=registry
        )
        self._queue_depth = Gauge("line_ood_queue_depth", "Images waiting for the device.", registry=registry)
        self._admitted = Gauge("line_ood_admitted_images", "Images admitted, not yet answered.", registry=registry)
        Gauge("line_ood_queue_capacity", "Images that may be admitted.", registry=registry).set(queue_capacity)
        self._ready = Gauge("line_ood_ready", "1 while the server takes work.", registry=registry)
        info = Gauge("line_ood_artifact_info", "What is served.", ["artifact_id", "model", "method"], registry=registry)
        info.labels(artifact.artifact_id, model, artifact.metadata.primary).set(1)
        self._class_names = artifact.metadata.classifier.class_names
        self._operating_points = artifact.metadata.operating_points
        self._start_from_zero()

    def watch(self, queue_depth: Callable[[], int], admitted: Callable[[], int]) -> None:
        """Ask for these numbers at each scrape, instead of being told of each change."""
        self._queue_depth.set_function(queue_depth)
        self._admitted.set_function(admitted)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for this number at each scrape."""
        self._connections.set_function(count)

    def set_ready(self, ready: bool) -> None:
        """Work is taken from now on, or no longer; what was scored before, the warm-up, is not counted."""
        self._ready.set(ready)
        self._has_begun |= ready

    def request_answered(self, route: str, status: int, seconds: float) -> None:
        """A request has been answered, well or not."""
        self._of(self._requests, route, str(status)).inc()
        self._of(self._request_seconds, route).observe(seconds)

    def request_refused(self, kind: Kind) -> None:
        """A request gets no results."""
        self._refused.labels(kind.code).inc()

    def connection_ended(self, reason: str) -> None:
        """A connection is over, without an answer to its last request, or without a request at all."""
        self._ended.labels(reason).inc()

    def stages(self, timings: Timings) -> None:
        """Where an answered request spent its time."""
        self._of(self._stage_seconds, "decode").observe(timings["decode"] / 1000)
        self._of(self._stage_seconds, "queue").observe(timings["queue"] / 1000)
        self._of(self._stage_seconds, "inference").observe(timings["inference"] / 1000)

    def image_scored(self, ood_score: float, class_index: int) -> None:
        """An image has a score: it is counted at every operating point, whichever the client asked for."""
        self._scores.observe(ood_score)
        own = class_index < MAX_CLASS_SERIES
        name = (str(class_index), self._class_names[class_index]) if own else ("other", "other")
        self._of(self._classes, *name).inc()
        for point in self._operating_points:
            self._of(self._images, "reject" if ood_score > point.threshold else "accept", point.name).inc()

    def image_failed(self, kind: Kind) -> None:
        """An image has no score."""
        self._image_errors.labels(kind.code).inc()

    def images_dropped(self, kind: Kind, count: int) -> None:
        """Nobody waits for these images any more."""
        self._dropped.labels(kind.code).inc(count)

    def batch_scored(self, size: int, seconds: float) -> None:
        """A forward pass has ended well."""
        if not self._has_begun:
            return
        self._batch_size.observe(size)
        self._batch_seconds.observe(seconds)
        self._last_forward.set(time.time())

    def batch_failed(self, size: int) -> None:
        """A forward pass has raised."""
        self._batch_size.observe(size)
        self._batch_failures.inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _of(self, metric: M, *labels: str) -> M:
        """One series of a metric; `labels` alone would check and lock for every event."""
        key = (metric, labels)
        if key not in self._series:
            self._series[key] = metric.labels(*labels)
        series: M = self._series[key]
        return series

    def _start_from_zero(self) -> None:
        # A counter that appears with its first event hides it: a rate needs two values.
        for point in self._operating_points:
            for decision in ("accept", "reject"):
                self._images.labels(decision, point.name)
        for error, kind in KINDS.items():
            self._refused.labels(kind.code)
            if issubclass(error, (ImageError, DecodingError, InferenceError, EmptyImageError)):
                self._image_errors.labels(kind.code)
            if issubclass(error, (ClientGoneError, DeadlinePassedError)):
                self._dropped.labels(kind.code)


def score_buckets(artifact: Artifact) -> list[float]:
    """Upper bounds: quantiles of the calibration scores, every threshold, and a few beyond, where OOD images fall."""
    scores = artifact.calibration_scores
    quantiles = np.quantile(scores, SCORE_QUANTILES)
    thresholds = [point.threshold for point in artifact.metadata.operating_points]
    beyond = scores[-1] + (scores[-1] - np.median(scores)) * np.array(BEYOND)
    return sorted({float(bound) for bound in [*quantiles, *thresholds, *beyond]})


def _powers_of_two(largest: int) -> Sequence[float]:
    return [2**power for power in range((largest - 1).bit_length() + 1)]
