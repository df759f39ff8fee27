"""One stream of images: windows, evidence, and what they say against the calibration."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import numpy as np

from service.monitoring.baseline import Baseline
from service.monitoring.image_window import ImageWindow
from service.monitoring.psi import Counts, Shift
from service.monitoring.report import Drift, Rejects, StreamReport, WindowReport
from service.monitoring.state import StoredStream
from service.monitoring.time_window import TimeWindow


class Stream:
    """Bounded in memory, and the same work for every image.

    Args:
        baseline: what is expected of it.
        now: of a clock that never goes back.

    Attributes:
        images: how many were seen.
    """

    def __init__(self, baseline: Baseline, now: float) -> None:
        self._baseline = baseline
        self._find, self._groups = baseline.bins.find, baseline.groups
        self._recent = ImageWindow(baseline.limits.window_images, baseline.cells)
        self._lately = TimeWindow(baseline.limits.window_s, baseline.bins.count, now)
        self._evidence = baseline.begin()
        self._bets = [(name, baseline.bins.level_of[name], each) for name, each in self._evidence.items()]
        self._spacing, self._bets_from = baseline.limits.spacing_s, now
        self.images = 0

    def observe(self, ood_score: float, class_index: int, now: float) -> list[str]:
        """Take in an image; the operating points whose alarm it has raised."""
        place = self._find(ood_score, class_index)
        self.images += 1
        self._recent.add(place * self._groups.count + self._groups.of[class_index])
        self._lately.add(place, now)
        if now < self._bets_from:  # decided by the clock alone, so that the bets stay fair
            return []
        self._bets_from = now + self._spacing
        level = place % self._baseline.bins.levels
        return [name for name, own, evidence in self._bets if evidence.observe(level >= own)]

    def report(self, now: float) -> StreamReport:
        """What there is to say."""
        bins, groups = self._baseline.bins, self._groups
        cells = np.array(self._recent.counts).reshape(bins.count, groups.count)  # bin group
        by_bin = cells.sum(1)
        self._lately.advance(now)
        has_images = bool(by_bin.any())
        return StreamReport(
            images=self.images,
            alarm=any(evidence.is_alarmed for evidence in self._evidence.values()),
            drift={name: self._drift(name) for name in self._evidence},
            windows={"images": self._window(by_bin), "seconds": self._window(np.array(self._lately.counts))},
            score_shift=Shift.between(bins.by_decile(by_bin), bins.expected) if has_images else None,
            class_shift=Shift.between(cells.sum(0), groups.expected) if has_images else None,
        )

    def snapshot(self, now: float) -> dict[str, Any]:
        """What `restore` wants, cheaply; cells as bytes."""
        return {
            "images": self.images,
            "cells": self._recent.oldest_first().tobytes(),
            "time": {
                "width_s": self._lately.width,
                "elapsed_s": self._lately.elapsed(now),
                "steps": [list(step) for step in self._lately.steps],
            },
            "evidence": {
                name: {
                    "images": each.images,
                    "accepts": each.accepts,
                    "capital": list(each.capital),
                    "alarmed": each.is_alarmed,
                }
                for name, each in self._evidence.items()
            },
        }

    def restore(self, stored: StoredStream, now: float, downtime_s: float) -> None:
        """Go on from a snapshot that is `downtime_s` old.

        Raises:
            ValueError: it is not of such a stream.
        """
        cells, bins = array("I", base64.b64decode(stored.cells, validate=True)), self._baseline.bins.count
        if set(stored.evidence) != set(self._evidence) or max(cells, default=0) >= self._baseline.cells:
            raise ValueError("other operating points or cells than the artifact's")
        if any(len(step) != bins for step in stored.time.steps):
            raise ValueError(f"steps of {bins} bins were wanted")
        self.images = stored.images
        self._recent.refill(cells)
        if stored.time.width_s == self._lately.width:  # of another length nothing can be told
            self._lately.refill(stored.time.steps, stored.time.elapsed_s + downtime_s, now)
        for name, each in stored.evidence.items():
            evidence = self._evidence[name]
            evidence.images, evidence.accepts = each.images, each.accepts
            evidence.capital, evidence.is_alarmed = list(each.capital), each.alarmed

    def _window(self, counts: Counts) -> WindowReport:
        images = int(counts.sum())
        return WindowReport(images, {name: self._rejects(name, counts, images) for name in self._evidence if images})

    def _rejects(self, point: str, counts: Counts, images: int) -> Rejects:
        law = self._baseline.laws[point]
        low, high = law.interval(images)
        return Rejects(self._baseline.bins.rejected(counts, point) / images, law.expected, low, high)

    def _drift(self, point: str) -> Drift:
        evidence = self._evidence[point]
        return Drift(evidence.log_value, evidence.limit, self._baseline.bounds[point], evidence.is_alarmed)
