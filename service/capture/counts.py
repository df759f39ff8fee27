"""Metrics of the capture, in the registry of the app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.capture.record import REASONS, Reason

Drop = Literal["rate_limit", "queue_full", "duplicate", "too_large", "stopping"]


class Counts:
    """Counts what becomes of the images that were chosen; from any thread.

    Each is kept, dropped or failed, once.

    Args:
        registry: where.
        models: names of the models that are served.
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        self._kept = Counter(
            "line_ood_captured_images", "Images kept for labelling.", ["model", "reason"], registry=registry
        )
        self._failures = Counter(
            "line_ood_capture_failures", "Images that could not be written, and failed listings.", registry=registry
        )
        self._dropped = Counter(
            "line_ood_capture_dropped", "Images chosen and not kept, by reason.", ["reason"], registry=registry
        )
        self._bytes = Gauge("line_ood_capture_bytes", "Bytes that are kept, side files included.", registry=registry)
        # A counter that appears with its first event hides it: a rate needs two values.
        for reason in REASONS:
            for model in models:
                self._kept.labels(model, reason)
        for drop in get_args(Drop):
            self._dropped.labels(drop)

    def kept(self, model: str, reason: Reason) -> None:
        """An image has been written, with its side file."""
        self._kept.labels(model, reason).inc()

    def dropped(self, reason: Drop, count: int = 1) -> None:
        """Images will not be kept, and nothing is wrong."""
        self._dropped.labels(reason).inc(count)

    def failed(self) -> None:
        """The target has failed."""
        self._failures.inc()

    def lies_there(self, size: int) -> None:
        """So many bytes are kept now."""
        self._bytes.set(size)
