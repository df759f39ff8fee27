"""Prometheus metrics of one app: one registry each, prefix `line_ood_`, seconds, counters in `_total`.

An image counts once, by its decision; a request once, by its route and status. So the sums agree:
images accepted and rejected at one operating point, image errors and dropped images are the images admitted.
What is counted of each model stands in `service.model_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

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

from service.model_metrics import SECONDS, ModelFamilies
from service.problems import KINDS, Kind

LOADS = ("switched", "unchanged", "refused", "self_test_failed", "failed")  # how a load of a model may end
ENDS = (  # of connections, see `service.protocol`
    "silent",
    "body_late",
    "answer_not_taken",
    "too_many_connections",
    "malformed_pipeline",
    "malformed_body",
)

M = TypeVar("M", Counter, Histogram)


class Metrics:
    """Counts what the service does.

    Args:
        max_batch: images in one forward pass, at most.
    """

    def __init__(self, *, max_batch: int) -> None:
        self.registry = registry = CollectorRegistry()
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
        self._refused = Counter(
            "line_ood_refused_requests", "Requests without results, by reason.", ["reason"], registry=registry
        )
        self._ended = Counter(
            "line_ood_ended_connections", "Connections ended without an answer.", ["reason"], registry=registry
        )
        self._connections = Gauge("line_ood_open_connections", "Connections of clients.", registry=registry)
        self._ready = Gauge("line_ood_ready", "1 while every model takes work, as /readyz says.", registry=registry)
        self._loads = Counter(
            "line_ood_loads", "Loads of a model after the start, by outcome.", ["model", "outcome"], registry=registry
        )
        self.of_models = ModelFamilies(registry, max_batch)
        # A counter that appears with its first event hides it: a rate needs two values.
        for kind in KINDS.values():
            self._refused.labels(kind.code)
        for reason in ENDS:
            self._ended.labels(reason)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for this number at each scrape."""
        self._connections.set_function(count)

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Likewise; a model that has lost its thread tells nobody."""
        self._ready.set_function(is_ready)

    def request_answered(self, route: str, status: int, seconds: float) -> None:
        """A request has been answered, well or not."""
        self._of(self._requests, route, str(status)).inc()
        self._of(self._request_seconds, route).observe(seconds)

    def request_refused(self, kind: Kind) -> None:
        """A request gets no results."""
        self._refused.labels(kind.code).inc()

    def expect_loads(self, models: Iterable[str]) -> None:
        """Count loads of these models, from zero."""
        for model in models:
            for outcome in LOADS:
                self._loads.labels(model, outcome)

    def connection_ended(self, reason: str) -> None:
        """A connection is over, without an answer to its last request, or without a request at all."""
        self._ended.labels(reason).inc()

    def load_ended(self, model: str, outcome: str) -> None:
        """A model has been loaded again, or was not to be."""
        self._loads.labels(model, outcome).inc()

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
