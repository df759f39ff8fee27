"""Thresholds by predicted class in words: who stands alone, who is pooled, and between what the thresholds lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from calibration.mixture import Interval, Mixture
from scoring.artifact import Artifact
from scoring.groups import ClassGroups
from scoring.metadata import OperatingPoint


def groups_of(artifact: Artifact) -> ClassGroups:
    """Those of the primary method; who stands alone is the same for all."""
    return artifact.groups[artifact.metadata.primary]


def describe_groups(artifact: Artifact) -> dict[str, Any]:
    """Numbers of classes and of calibration images, and the range of thresholds; never a number a class."""
    groups = groups_of(artifact)
    own, pooled = groups.sizes[groups.alone], groups.sizes[~groups.alone]
    return {
        "classes_alone": len(own),
        "images_of_classes_alone": {"least": int(own.min()), "most": int(own.max())} if len(own) else None,
        "classes_pooled": len(pooled),
        "images_of_pool": int(pooled.max()) if len(pooled) else 0,
        "thresholds": {
            name: {"lowest": low, "highest": high} for name, (low, high) in threshold_ranges(artifact).items()
        },
    }


def threshold_ranges(artifact: Artifact) -> dict[str, tuple[float, float]]:
    """The lowest and the highest threshold of each operating point: the same where all classes share it."""
    points, groups = artifact.metadata.operating_points, groups_of(artifact)
    found = {point.name: point.thresholds_of(groups) for point in points}
    return {name: (float(thresholds.min()), float(thresholds.max())) for name, thresholds in found.items()}


def expected_rate(artifact: Artifact, point: OperatingPoint) -> Interval:
    """Between what the realised rate lies, of images that are predicted as the calibration images are."""
    groups = groups_of(artifact)
    return Mixture.of(groups, point.ranks_of(groups), groups.counts).rate_interval()


def alone_warnings(artifact: Artifact) -> Iterator[str]:
    """What is to be said where no class has enough images for thresholds of its own."""
    groups, least = groups_of(artifact), artifact.metadata.alone_from
    if least is not None and not groups.alone.any():
        most = int(groups.counts.max())
        yield (
            f"--per-class: no class stands alone, all share their thresholds: {least} held-out images of a predicted "
            f"class are needed, and the largest has {most}: {least - most} more"
        )
