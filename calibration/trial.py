"""Trying engines on calibration images: how fast each is, and how far its features are from the reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from calibration.loader import read_batches
from scoring.classifier import REFERENCE, Classifier
from scoring.engines.engine import DTYPES, ENGINES, EngineChoice
from scoring.errors import DatasetError, EngineError
from scoring.preprocess import Preprocess
from scoring.types import Features, PixelBatch

SAMPLE = 16  # images
# Not int8, whose price on accuracy a few images cannot tell.
CANDIDATES = tuple(EngineChoice(name=name, precision=precision) for name, precision in product(ENGINES, DTYPES))
REPEATS = 5


@dataclass(frozen=True)
class Trial:
    """What became of one engine.

    Attributes:
        choice: the engine.
        images_per_s: how fast it is; 0 where it cannot be used.
        deviation: of its features from the reference's, |f - r| / |r| of the worst image.
        obstacle: why it cannot be used, where it cannot.
    """

    choice: EngineChoice
    images_per_s: float = 0.0
    deviation: float = float("inf")
    obstacle: str = ""

    def __str__(self) -> str:
        if self.obstacle:
            return f"{self.choice}: {self.obstacle}"
        return f"{self.choice}: {self.images_per_s:.1f} images/s, features differ by {self.deviation:.2g}"


def sample(paths: Sequence[Path], preprocess: Preprocess) -> PixelBatch:
    """A batch of the first images that can be read.

    Raises:
        DatasetError: none of the first ones can.
    """
    for batch in read_batches(paths, preprocess, batch_size=SAMPLE):
        if batch.pixels is not None:
            return batch.pixels
    raise DatasetError(f"none of the {len(paths)} images can be read: no engine can be tried")


def try_engines(
    classifier: Classifier, pixels: PixelBatch, candidates: Sequence[EngineChoice] = CANDIDATES
) -> list[Trial]:
    """Try each candidate on one batch; the classifier runs by the reference afterwards."""
    classifier.use(REFERENCE)
    reference = classifier.features(pixels)
    trials = [_try(classifier, choice, pixels, reference) for choice in candidates]
    classifier.use(REFERENCE)
    return trials


def fastest(trials: Sequence[Trial], tolerance: float) -> EngineChoice:
    """The fastest engine whose features are within the tolerance; the reference always is."""
    close = [trial for trial in trials if trial.deviation <= tolerance]
    return max(close, key=lambda trial: trial.images_per_s).choice


def _try(classifier: Classifier, choice: EngineChoice, pixels: PixelBatch, reference: Features) -> Trial:
    try:
        classifier.use(choice)
        features = classifier.features(pixels)
    except EngineError as error:
        return Trial(choice, obstacle=str(error))
    except Exception as error:  # compilers fail on networks that torch runs well, each in its own way
        return Trial(choice, obstacle=f"fails on this network: {' '.join(str(error).split())[:200]}")
    deviation = float(((features - reference).norm(dim=1) / reference.norm(dim=1)).max())
    seconds = statistics.median(_time(classifier, pixels) for _ in range(REPEATS))
    return Trial(choice, len(pixels) / seconds, deviation)


def _time(classifier: Classifier, pixels: PixelBatch) -> float:
    started = time.perf_counter()
    classifier.features(pixels)
    if classifier.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
