"""How well an artifact separates: LINe, MSP and Energy side by side, on held-out ID images and OOD folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.dataset import LabelledImages, list_images
from calibration.separation import Separation, mean_separation, separate
from calibration.walk import Pass, walk
from scoring import conformal, methods
from scoring.conformal import FloatArray
from scoring.errors import DatasetError
from scoring.scorer import NOT_FINITE, Scorer
from scoring.types import Features

METHODS = ("line", "msp", "energy")


@dataclass(frozen=True)
class ScoredFolder:
    """Scores of one folder.

    Attributes:
        scores: by method; higher = more out-of-distribution, one an image.
        predicted: index of the predicted class, one an image.
        paths: the images that could be read.
        unreadable: reason by file, of the others.
    """

    scores: dict[str, FloatArray]
    predicted: npt.NDArray[np.int64]
    paths: list[Path]
    unreadable: dict[Path, str]


@dataclass(frozen=True)
class RejectRate:
    """What became of the promised false-reject rate on the ID images.

    Attributes:
        realised: share of ID images rejected.
        interval: 90 % interval of the true rate, over the draw of the calibration set.
        ood: share of images rejected, by OOD folder; nothing is promised of these.
    """

    operating_point: str
    alpha: float
    realised: float
    interval: tuple[float, float]
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
    """

    id_images: int
    accuracy: float | None
    separations: list[Separation]
    reject_rates: list[RejectRate]
    ood_images: dict[str, int]
    unreadable: dict[Path, str]


def evaluate(scorer: Scorer, id_folder: Path, ood_folders: Mapping[str, Path]) -> Evaluation:
    """Score the folders and compare.

    Raises:
        DatasetError: a folder is missing, empty, or none of its images can be read.
    """
    inside = score_folder(scorer, id_folder, "ID")
    outside = {name: score_folder(scorer, folder, name) for name, folder in ood_folders.items()}
    separations = [
        separate(method, name, inside.scores[method], folder.scores[method])
        for method in METHODS
        for name, folder in outside.items()
    ]
    unreadable = dict(inside.unreadable)
    for folder in outside.values():
        unreadable |= folder.unreadable
    return Evaluation(
        id_images=len(inside.paths),
        accuracy=_accuracy(scorer, id_folder, inside),
        separations=separations + [mean_separation(separations, method) for method in METHODS],
        reject_rates=_reject_rates(scorer, inside, outside),
        ood_images={name: len(folder.paths) for name, folder in outside.items()},
        unreadable=unreadable,
    )


def score_folder(scorer: Scorer, folder: Path, title: str) -> ScoredFolder:
    """Score every image below a folder with every method.

    Raises:
        DatasetError: the folder is missing, empty, or none of its images can be read.
    """
    paths = list_images(folder)
    chunks: dict[str, list[FloatArray]] = {method: [] for method in METHODS}
    predicted: list[npt.NDArray[np.int64]] = []
    read: list[Path] = []
    record = Pass()
    for indices, (scores, classes) in walk(paths, scorer.classifier, partial(_score, scorer), title, record):
        finite: npt.NDArray[np.bool_] = np.logical_and.reduce([np.isfinite(values) for values in scores.values()])
        for method, values in scores.items():
            chunks[method].append(values[finite])
        predicted.append(classes[finite])
        read += [paths[index] for index, good in zip(indices, finite, strict=True) if good]
        record.unreadable |= {paths[i]: NOT_FINITE for i, good in zip(indices, finite, strict=True) if not good}
    if not read:
        raise DatasetError(f"{folder}: for none of its {len(paths)} files is the classifier's answer finite")
    scores = {method: np.concatenate(parts) for method, parts in chunks.items()}
    return ScoredFolder(scores, np.concatenate(predicted), read, record.unreadable)


def _score(scorer: Scorer, features: Features) -> tuple[dict[str, FloatArray], npt.NDArray[np.int64]]:
    logits, ood_scores = scorer.detector.score(features)
    logits = logits.double()  # MSP of a sure network would tie at 0 in float32
    scores = {
        "line": ood_scores.double().cpu().numpy(),
        "msp": methods.msp(logits).cpu().numpy(),
        "energy": methods.energy(logits).cpu().numpy(),
    }
    return scores, logits.argmax(1).cpu().numpy()


def _accuracy(scorer: Scorer, folder: Path, scored: ScoredFolder) -> float | None:
    classes = scorer.artifact.metadata.classifier
    for names in (classes.class_folders, classes.class_names):
        try:
            labels = dict(LabelledImages.read(folder, names, class_count=0).items)
        except DatasetError:
            continue  # the ID images need no labels
        if all(path in labels for path in scored.paths):
            wanted = np.array([labels[path] for path in scored.paths])
            return float((wanted == scored.predicted).mean())
    return None


def _reject_rates(scorer: Scorer, inside: ScoredFolder, outside: Mapping[str, ScoredFolder]) -> list[RejectRate]:
    count = len(scorer.artifact.calibration_scores)
    return [
        RejectRate(
            operating_point=point.name,
            alpha=point.alpha,
            realised=float((inside.scores["line"] > point.threshold).mean()),
            interval=conformal.reject_rate_interval(count, point.alpha),
            ood={name: float((folder.scores["line"] > point.threshold).mean()) for name, folder in outside.items()},
        )
        for point in scorer.artifact.metadata.operating_points
    ]
