"""The calibration job: one streaming pass over the images of the masks, one over those of the thresholds.

Features, class means, contributions, masks; then held-out scores through the very path that is served.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from calibration.dataset import LabelledImages
from calibration.loader import read_batches
from calibration.masks import build_masks, choose_method
from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics, top_1
from scoring import conformal
from scoring.artifact import Artifact
from scoring.classifier import Classifier
from scoring.detector import LineDetector
from scoring.errors import DatasetError, TooFewImagesError
from scoring.metadata import (
    ClassifierReference,
    DataCounts,
    Engine,
    Metadata,
    Method,
    OperatingPoint,
    Provenance,
    digests_of,
)
from scoring.types import ClassCounts, Classes, PixelBatch

RECORDED_PACKAGES = ("line-ood", "torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Job:
    """What to calibrate on and what to keep.

    Attributes:
        spec: the classifier's SPEC, to be recorded.
        mask_images: images that make the masks.
        holdout_images: images that make the thresholds, none of them among `mask_images`.
        settings: LINe's hyper-parameters.
        alphas: target false-reject rate by name of operating point; the first one is the default.
        command: the command line, to be recorded.
        class_names: one a class; the names of the class folders where there are no others.
    """

    spec: str
    mask_images: LabelledImages
    holdout_images: LabelledImages
    settings: LineSettings
    alphas: dict[str, float]
    command: str
    class_names: tuple[str, ...] | None = None


@dataclass
class Pass:
    """What one pass over a set of images has met."""

    correct: int = 0
    seen: int = 0
    unreadable: dict[Path, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy of the classifier on the images that could be read."""
        return self.correct / self.seen


@dataclass(frozen=True)
class Calibration:
    """The outcome of a job."""

    artifact: Artifact
    mask_pass: Pass
    holdout_pass: Pass
    warnings: tuple[str, ...]

    @property
    def unreadable(self) -> dict[Path, str]:
        """Reason by file, of all that could not be read."""
        return self.mask_pass.unreadable | self.holdout_pass.unreadable


def calibrate(job: Job, classifier: Classifier) -> Calibration:
    """Run a job.

    Raises:
        TooFewImagesError: the held-out images cannot keep one of the promised rates.
        DatasetError: none of the images can be read, or features are not finite.
    """
    _check_alphas(job, len(job.holdout_images.items))  # before the hours of work, not after
    statistics, mask_pass = _collect_statistics(classifier, job.mask_images)
    method = choose_method(statistics, job.settings)
    masks = build_masks(statistics, classifier.head.weight.cpu(), method)
    detector = LineDetector(classifier, masks, method.clip)
    scores, holdout_pass = _score_holdout(classifier, detector, job.holdout_images)
    _check_alphas(job, len(scores))
    unreadable = len(mask_pass.unreadable) + len(holdout_pass.unreadable)
    metadata = _describe(job, classifier, method, statistics.counts, scores, unreadable)
    artifact = Artifact(metadata, masks, statistics.counts, scores)
    return Calibration(artifact, mask_pass, holdout_pass, _warnings(statistics, method))


def walk(
    images: LabelledImages, classifier: Classifier, title: str, record: Pass
) -> Iterator[tuple[PixelBatch, Classes]]:
    """Go through labelled images in batches of pixels and labels, noting in `record` what cannot be read.

    Raises:
        DatasetError: no image at all could be read.
    """
    paths = [path for path, _ in images.items]
    with tqdm(total=len(paths), desc=title, unit="image", disable=None) as progress:
        for batch in read_batches(paths, classifier.preprocess):
            record.unreadable |= {paths[index]: reason for index, reason in batch.unreadable.items()}
            if batch.pixels is not None:
                record.seen += len(batch.indices)
                yield batch.pixels, torch.tensor([images.items[index][1] for index in batch.indices])
            progress.update(len(batch.indices) + len(batch.unreadable))
    if not record.seen:
        path, reason = next(iter(record.unreadable.items()))
        raise DatasetError(f"none of the {len(paths)} images could be read; the first, {path}: {reason}")


def _check_alphas(job: Job, count: int) -> None:
    for alpha in job.alphas.values():
        if conformal.rank(count, alpha) < 1:
            raise TooFewImagesError(alpha, count, conformal.images_needed(alpha))


def _collect_statistics(classifier: Classifier, images: LabelledImages) -> tuple[FeatureStatistics, Pass]:
    class_count, feature_count = classifier.head.weight.shape
    statistics, record = FeatureStatistics(class_count, feature_count), Pass()
    for pixels, labels in walk(images, classifier, "masks", record):
        features, logits = classifier.forward(pixels)
        statistics.update(features, labels)
        record.correct += top_1(logits, labels)
    return statistics, record


def _score_holdout(
    classifier: Classifier, detector: LineDetector, images: LabelledImages
) -> tuple[conformal.FloatArray, Pass]:
    record, scores = Pass(), []
    for pixels, labels in walk(images, classifier, "thresholds", record):
        features, logits = classifier.forward(pixels)
        scores.append(detector.ood_scores(features))
        record.correct += top_1(logits, labels)
    found = np.sort(np.concatenate(scores))
    if not np.isfinite(found).all():
        raise DatasetError("the classifier answers held-out images with NaN or infinity: no threshold can be given")
    return found, record


def _describe(
    job: Job,
    classifier: Classifier,
    method: Method,
    counts: ClassCounts,
    scores: conformal.FloatArray,
    unreadable: int,
) -> Metadata:
    return Metadata(
        method=method,
        operating_points=[
            OperatingPoint(name=name, alpha=alpha, threshold=conformal.threshold(scores, alpha))
            for name, alpha in job.alphas.items()
        ],
        classifier=ClassifierReference(
            spec=job.spec,
            class_names=list(job.class_names or job.mask_images.class_folders),
            class_folders=list(job.mask_images.class_folders),
            feature_count=classifier.head.weight.shape[1],
        ),
        preprocess=classifier.preprocess,
        engine=Engine(),
        digests=digests_of(classifier),
        data=DataCounts(
            mask_images=int(counts.sum()),
            calibration_images=len(scores),
            unreadable=unreadable,
            classes_without_images=int((counts == 0).sum()),
        ),
        provenance=Provenance(
            command=job.command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={name: version(name) for name in RECORDED_PACKAGES} | {"python": platform.python_version()},
        ),
    )


def _warnings(statistics: FeatureStatistics, method: Method) -> tuple[str, ...]:
    found = []
    if method.variant == "absolute":
        found.append(
            "the features can be negative (no ReLU before the head), so the paper's absolute contribution is used; "
            "LINe is weak on such networks: compare with energy and MSP by `line-ood evaluate` before relying on it"
        )
    empty = int((statistics.counts == 0).sum())
    if empty:
        found.append(
            f"{empty} of {len(statistics.counts)} classes have no images for their masks "
            "and take the mean over the other classes"
        )
    return tuple(found)
