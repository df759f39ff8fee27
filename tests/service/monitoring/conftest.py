"""An artifact without a classifier, limits, and images that have been answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from scoring.artifact import Artifact
from scoring.scorer import ImageScore
from service.batcher import Answer
from service.monitoring.limits import Limits
from service.monitoring.monitor import Monitor
from tests.scoring.artifacts import build

IMAGES = 199  # of the calibration; scores are -9, -8.75, ... in steps of a quarter
CLASSES = 3


@pytest.fixture
def artifact() -> Artifact:
    return dataclasses.replace(build(calibration_images=IMAGES), artifact_id="0123456789abcdef")


@pytest.fixture
def limits() -> Limits:
    return Limits(window_images=50, window_s=600, streams=3, false_alarm=0.01, spacing_s=0)


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(artifact: Artifact, limits: Limits, clock: Clock) -> Monitor:
    """Watches `m`."""
    monitor = Monitor(limits, clock=clock, wall=clock)
    monitor.watch("m", artifact)
    return monitor


def answers(scores: Sequence[float], class_index: int = 0) -> list[Answer]:
    """Images with these scores, all of one predicted class."""
    probabilities = np.eye(CLASSES)[class_index]
    return [Answer(ImageScore(probabilities, float(score), 0.5, class_index), 0, 0, 0) for score in scores]
