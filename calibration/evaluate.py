"""How well an artifact separates: its methods side by side, on held-out ID images and OOD folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.classes import ClassRow, class_rows
from calibration.dataset import LabelledImages
from calibration.grouped import groups_of
from calibration.rates import Judged, RejectRate, Reliability, reject_rates, reliability
from calibration.scored import Indices, ScoredFolder, score_folder
from calibration.separation import Separation, separate_all
from scoring.artifact import Artifact
from scoring.errors import DatasetError
from scoring.scorer import Scorer


@dataclass(frozen=True)
class Agreement:
    """Share of images whose routed class, whose masks score them, is the predicted class; nothing is promised of it."""

    inside: float
    ood: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Everything measured.

    Attributes:
        id_images: ID images scored.
        accuracy: top-1 on ID images; None where their folders are not the classes'.
        separations: a row for each method and OOD folder, and for each method's mean.
        reject_rates: a row for each operating point.
        ood_images: OOD images scored, by folder.
        unreadable: reason by file.
        reliability: a row for each rate that could have been promised.
        classes: a row for each class.
        agreement: of routed and predicted class.
        artifact: what was evaluated.
        inside: scores of the ID images.
        outside: scores of the OOD images, by folder.
    """

    id_images: int
    accuracy: float | None
    separations: list[Separation]
    reject_rates: list[RejectRate]
    ood_images: dict[str, int]
    unreadable: dict[Path, str]
    reliability: list[Reliability]
    classes: list[ClassRow]
    agreement: Agreement
    artifact: Artifact
    inside: ScoredFolder
    outside: dict[str, ScoredFolder]

    @property
    def method(self) -> str:
        """The method that the artifact decides by."""
        return self.artifact.metadata.primary


def evaluate(scorer: Scorer, id_folder: Path, ood_folders: Mapping[str, Path]) -> Evaluation:
    """Score the folders and compare.

    Raises:
        DatasetError: a folder is missing, empty, or none of its images can be read.
    """
    artifact = scorer.artifact
    method, points, groups = artifact.metadata.primary, artifact.metadata.operating_points, groups_of(artifact)
    inside = score_folder(scorer, id_folder, "ID")
    outside = {name: score_folder(scorer, folder, name) for name, folder in ood_folders.items()}
    labels = _labels(artifact, id_folder, inside)
    judged = Judged(inside.scores[method], inside.predicted)
    return Evaluation(
        id_images=len(inside.paths),
        accuracy=None if labels is None else float((labels == inside.predicted).mean()),
        separations=separate_all(inside.scores, {name: folder.scores for name, folder in outside.items()}),
        reject_rates=reject_rates(
            points,
            groups,
            judged,
            {name: Judged(folder.scores[method], folder.predicted) for name, folder in outside.items()},
        ),
        ood_images={name: len(folder.paths) for name, folder in outside.items()},
        unreadable={path: why for folder in (inside, *outside.values()) for path, why in folder.unreadable.items()},
        reliability=reliability(groups, judged),
        classes=class_rows(
            artifact.metadata.classifier.class_names, artifact.counts.numpy(), labels, judged, groups, points[0]
        ),
        agreement=Agreement(inside.agreement, {name: folder.agreement for name, folder in outside.items()}),
        artifact=artifact,
        inside=inside,
        outside=outside,
    )


def _labels(artifact: Artifact, folder: Path, scored: ScoredFolder) -> Indices | None:
    classes = artifact.metadata.classifier
    for names in (classes.class_folders, classes.class_names):
        try:
            labels = dict(LabelledImages.read(folder, names, class_count=0).items)
        except DatasetError:
            continue  # the ID images need no labels
        if all(path in labels for path in scored.paths):
            return np.array([labels[path] for path in scored.paths])
    return None
