"""What settings and methods are compared against: features of outliers, made of the masks' images or read from folders.

One more pass through the classifier, of at most MADE images a kind, resumable like the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from calibration.dataset import LabelledImages
from calibration.folds import Outliers
from calibration.outliers import KINDS, Rule
from calibration.partial import Partial, describe
from calibration.passes import Collected, refuse_unless
from calibration.sample import Places
from calibration.walk import Pass, walk
from scoring.classifier import Classifier
from scoring.types import Features

MADE = (
    1000  # images that outliers are made of, or read of a folder, at most: so many are scored, see `calibration.folds`
)

FeaturesByRule = Float32[Tensor, "image rule feature"]


@dataclass(frozen=True, eq=False)
class Validation:
    """Outliers, and what was met on the way.

    Attributes:
        outliers: by kind.
        unreadable: reason by file.
        warnings: of partial states.
    """

    outliers: dict[str, Outliers]
    unreadable: dict[Path, str]
    warnings: tuple[str, ...]


def make_outliers(
    classifier: Classifier, images: LabelledImages, collected: Collected, folder: Path | None, key: str
) -> Validation:
    """Outliers of every kind of `calibration.outliers`, made of some of the images.

    Args:
        classifier: whose features.
        images: those of the masks.
        collected: what their pass left behind.
        folder: for the partial state.
        key: of that pass.

    Raises:
        DatasetError: the features of an outlier are not finite.
    """
    made = images.thin(MADE)
    partial = Partial(folder, "outliers", [key, *KINDS])
    features, found, record = _collect(classifier, made.paths, [*KINDS.values()], "outliers", partial)
    rows = {images.items[place]: row for row, place in enumerate(collected.places.tolist())}
    sources = torch.tensor([rows.get(made.items[index], -1) for index in found.tolist()])  # -1: has taught nothing
    outliers = {kind: Outliers(own, sources) for kind, own in zip(KINDS, features.unbind(1), strict=True)}
    return Validation(outliers, record.unreadable, tuple(partial.warnings))


def read_outliers(
    classifier: Classifier, folders: Mapping[str, LabelledImages], folder: Path | None, key: str
) -> Validation:
    """Outliers of a kind for each folder: images that were never learnt from.

    Args:
        classifier: whose features.
        folders: their images, by name.
        folder: for the partial states.
        key: of the pass for the masks.

    Raises:
        DatasetError: no image of a folder can be read, or the features of one are not finite.
    """
    outliers: dict[str, Outliers] = {}
    unreadable: dict[Path, str] = {}
    warnings: list[str] = []
    for number, (name, images) in enumerate(folders.items()):
        kept = images.thin(MADE)
        partial = Partial(folder, f"validation-{number}", [key, *describe(kept)])
        features, found, record = _collect(classifier, kept.paths, [], name, partial)
        outliers[name] = Outliers(features[:, 0], torch.full_like(found, -1))
        unreadable |= record.unreadable
        warnings += partial.warnings
    return Validation(outliers, unreadable, tuple(warnings))


def _collect(
    classifier: Classifier, paths: Sequence[Path], rules: Sequence[Rule], title: str, partial: Partial
) -> tuple[FeaturesByRule, Places, Pass]:
    """Features of what the rules make of each file, or of the file itself where there are none; and of which files."""
    record, features, places = Pass(), list[Tensor](), list[Tensor]()
    if left := partial.load():
        record, tensors = left
        features, places = [tensors["features"]], [tensors["places"]]
    kinds = max(len(rules), 1)

    @torch.inference_mode()
    def run(found: Features) -> FeaturesByRule:
        by_rule: FeaturesByRule = found.float().cpu().unflatten(0, (kinds, -1)).transpose(0, 1)
        return by_rule

    for indices, found in walk(paths, classifier, run, title, record, rules):
        refuse_unless(np.isfinite(found.numpy()).all((1, 2)), paths, indices)
        features.append(found)
        places.append(torch.tensor(indices))
        partial.save_if_due(record, lambda: {"features": torch.cat(features), "places": torch.cat(places)})
    return torch.cat(features), torch.cat(places), record
