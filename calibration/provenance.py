"""What an artifact says of the run that made it."""

from __future__ import annotations

import contextlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from scoring.classifier import Classifier
from scoring.groups import ClassGroups
from scoring.metadata import (
    ClassifierReference,
    DataCounts,
    Digests,
    Metadata,
    Method,
    OperatingPoint,
    Provenance,
    Quantisation,
)
from scoring.types import ClassCounts

if TYPE_CHECKING:
    from calibration.ensemble import Fitted
    from calibration.job import Job

RECORDED_PACKAGES = ("line-ood", "torch", "torchvision", "numpy", "numba", "openvino", "nncf", "pillow", "simplejpeg")


def versions() -> dict[str, str]:
    """Of everything that can change a number, and is installed."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def describe(
    job: Job,
    classifier: Classifier,
    digests: Digests,
    method: Method,
    fitted: Fitted,
    counts: ClassCounts,
    groups: ClassGroups,
    unreadable: int,
    quantisation: Quantisation | None,
) -> Metadata:
    """The artifact's metadata, with `groups` of the held-out images by their scores of the primary.

    Raises:
        TooFewImagesError: there are too few images for one of the job's rates.
    """
    return Metadata(
        method=method,
        methods=fitted.settings,
        combined=list(fitted.combined),
        primary=job.primary,
        alone_from=job.alone_from,
        operating_points=[_operating_point(job, name, groups) for name in job.alphas],
        classifier=ClassifierReference(
            spec=job.spec,
            class_names=list(job.class_names or job.mask_images.class_folders),
            class_folders=list(job.mask_images.class_folders),
            feature_count=classifier.head.weight.shape[1],
        ),
        preprocess=classifier.preprocess,
        engine=classifier.choice,
        digests=digests,
        data=DataCounts(
            mask_images=int(counts.sum()),
            calibration_images=int(groups.counts.sum()),
            unreadable=unreadable,
            classes_without_images=int((counts == 0).sum()),
        ),
        provenance=Provenance(
            command=job.command, created=datetime.now(UTC).isoformat(timespec="seconds"), versions=versions()
        ),
        quantisation=quantisation,
    )


def _operating_point(job: Job, name: str, groups: ClassGroups) -> OperatingPoint:
    alpha = job.alphas[name]
    by_class = groups.thresholds(alpha, job.guarantee, job.delta)
    threshold = float(by_class[0]) if job.alone_from is None else None
    return OperatingPoint(name=name, alpha=alpha, guarantee=job.guarantee, delta=job.delta, threshold=threshold)
