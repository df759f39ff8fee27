"""A folder of images to what every method says of each: one pass, the unreadable left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.dataset import list_images
from calibration.walk import Pass, walk
from scoring import line
from scoring.conformal import FloatArray
from scoring.errors import DatasetError
from scoring.scorer import NOT_FINITE, Scorer
from scoring.types import Features

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScoredFolder:
    """Scores of one folder.

    Attributes:
        scores: by method; higher = more out-of-distribution, one an image.
        predicted: index of the predicted class, one an image.
        routed: index of the class whose masks scored the image; for `agreement` alone, never an answer.
        paths: the images that could be read.
        unreadable: reason by file, of the others.
    """

    scores: dict[str, FloatArray]
    predicted: Indices
    routed: Indices
    paths: list[Path]
    unreadable: dict[Path, str]

    @property
    def agreement(self) -> float:
        """Share of images whose routed class is the predicted one."""
        return float(np.mean(self.routed == self.predicted))


def score_folder(scorer: Scorer, folder: Path, title: str) -> ScoredFolder:
    """Score every image below a folder with every method.

    Raises:
        DatasetError: the folder is missing, empty, or none of its images can be read.
    """
    paths = list_images(folder)
    chunks: list[_Answers] = []
    read: list[Path] = []
    record = Pass()
    for indices, answers in walk(paths, scorer.classifier, partial(_score, scorer), title, record):
        finite = answers.finite
        chunks.append(answers.keep(finite))
        read += [paths[index] for index, good in zip(indices, finite, strict=True) if good]
        record.unreadable |= {paths[i]: NOT_FINITE for i, good in zip(indices, finite, strict=True) if not good}
    if not read:
        raise DatasetError(f"{folder}: for none of its {len(paths)} files is the classifier's answer finite")
    scores = {method: np.concatenate([chunk.scores[method] for chunk in chunks]) for method in chunks[0].scores}
    predicted = np.concatenate([chunk.predicted for chunk in chunks])
    routed = np.concatenate([chunk.routed for chunk in chunks])
    return ScoredFolder(scores, predicted, routed, read, record.unreadable)


class _Answers(NamedTuple):
    """Of one batch: scores by method, predicted and routed class."""

    scores: dict[str, FloatArray]
    predicted: Indices
    routed: Indices

    @property
    def finite(self) -> Flags:
        found: Flags = np.logical_and.reduce([np.isfinite(values) for values in self.scores.values()])
        return found

    def keep(self, rows: Flags) -> _Answers:
        scores = {method: values[rows] for method, values in self.scores.items()}
        return _Answers(scores, self.predicted[rows], self.routed[rows])


def _score(scorer: Scorer, features: Features) -> _Answers:
    logits, found = scorer.ensemble.score(features, scorer.ensemble.names)
    scores = {name: own.double().cpu().numpy() for name, own in found.items()}
    clipped = line.clip(features, scorer.artifact.metadata.method.clip)
    routed = line.routed_class(clipped, scorer.classifier.head)
    return _Answers(scores, logits.argmax(1).cpu().numpy(), routed.cpu().numpy())
