"""What tuning on made outliers is worth on real ones: the tables of docs/tuning.md.

    python -m benchmarks.tuning DATA cifar10|lite0

DATA is laid out as for benchmarks.cifar10 and benchmarks.embedded. The search sees the images of the masks and outliers
made of them; the OOD folders, and the ID images they are measured against, are read when it is over. Then the whole
grid is scored on these, too, to see which made outliers would have told what.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.cifar10 import FACTORY
from calibration.dataset import LabelledImages, list_images
from calibration.ensemble import fit_ensemble, scores_of
from calibration.folds import Fold, MethodScores, Outliers
from calibration.grid import score_grid
from calibration.learnt import Learnt, learn
from calibration.loader import read_batches
from calibration.outliers import KINDS
from calibration.partial import Partial
from calibration.passes import collect_statistics
from calibration.report import choice_table, table
from calibration.roster import Roster, draw_up
from calibration.search import Row, Search, rows_of, tune
from calibration.separation import mean_separation, separate
from calibration.settings import PRESETS, LineSettings
from calibration.statistics import FeatureStatistics
from calibration.tuning import compare
from calibration.validation import make_outliers
from scoring.classifier import Classifier, load_classifier
from scoring.embedded import efficientnet_lite0
from scoring.engines.engine import EngineChoice
from scoring.ensemble import Ensemble
from scoring.methods import Sample
from scoring.spec import ClassifierParts, load_spec
from scoring.types import Features, Head

COMBINED = ("line", "energy")
NOTHING = Roster((), (), {})  # LINe alone


class Case(NamedTuple):
    """A network with its images; the preset is what it would have been calibrated with."""

    parts: ClassifierParts
    masks: LabelledImages
    inside: list[Path]
    outside: dict[str, list[Path]]
    preset: LineSettings


def cifar10(data: Path) -> Case:
    """5000 training images for the masks, 5000 test images as ID."""
    folder = data / "cifar10"
    measured, _ = LabelledImages.read(folder / "test", None, 10).split(0.5)
    return Case(
        load_spec(f"{FACTORY}:cifar10", folder / "densenet_bc_100_12.pth.tar"),
        LabelledImages.read(folder / "train", None, 10),
        measured.paths,
        {name: list_images(data / "ood" / name) for name in ("cifar100_test", "textures", "streetview_chars")},
        PRESETS["line-cifar10"],
    )


def lite0(data: Path) -> Case:
    """500 images of 500 classes for the masks, those of the other 500 as ID."""
    masks, holdout = LabelledImages.read(data / "imagenet_sample", None, 1000).split(0.5)
    return Case(
        efficientnet_lite0(),
        masks,
        holdout.paths,
        {name: list_images(data / "ood" / name) for name in ("textures", "streetview_chars")},
        LineSettings(),
    )


CASES = {"cifar10": cifar10, "lite0": lite0}


def features_of(classifier: Classifier, paths: Sequence[Path]) -> Features:
    """Features of images, all of which can be read."""
    batches = (batch.pixels for batch in read_batches(paths, classifier.preprocess))
    return torch.cat([classifier.features(pixels).cpu() for pixels in batches if pixels is not None])


def see(classifier: Classifier, masks: LabelledImages) -> tuple[Sample, dict[str, Outliers]]:
    """What the search may see: features of the images, and of what is made of some of them."""
    collected = collect_statistics(classifier, masks, Partial(None, "", []))
    return collected.sample, make_outliers(classifier, masks, collected, None, "").outliers


def line_of(sample: Sample, head: Head, settings: LineSettings) -> Learnt:
    """LINe as it would be served."""
    statistics = FeatureStatistics.of(sample.features, sample.labels, len(head.bias))
    return learn(statistics, head, settings)


def as_served(sample: Sample, head: Head, settings: LineSettings, roster: Roster) -> Ensemble:
    """All scores as they would be served."""
    return fit_ensemble(head, line_of(sample, head, settings), sample, roster).ensemble


def measured(ensemble: Ensemble, inside: Features, outside: dict[str, Features]) -> dict[str, MethodScores]:
    """Scores on the real folders, by method."""
    own = scores_of(ensemble, inside, ensemble.names)
    others = {kind: scores_of(ensemble, features, ensemble.names) for kind, features in outside.items()}
    return {name: MethodScores(own[name], {kind: each[name] for kind, each in others.items()}) for name in own}


def print_table(scores: dict[str, MethodScores]) -> None:
    """FPR95 / AUROC in percent, a row a method."""
    rows = [separate(m, kind, s.inside, out) for m, s in scores.items() for kind, out in s.outside.items()]
    lines = []
    for method in scores:
        own = [*(row for row in rows if row.method == method), mean_separation(rows, method)]
        lines.append([method, *(f"{100 * row.fpr95:.2f} / {100 * row.auroc:.2f}" for row in own)])
    print(table(["method", *next(iter(scores.values())).outside, "mean"], lines))


def in_hindsight(sample: Sample, head: Head, inside: Features, outside: dict[str, Features]) -> list[Row]:
    """The grid on the real folders, taught by the whole sample."""
    count = len(sample.labels)
    own = {kind: torch.arange(len(features)) for kind, features in outside.items()}
    fold = Fold(torch.arange(count), count + torch.arange(len(inside)), own)
    foreign = {kind: Outliers(features, torch.full((len(features),), -1)) for kind, features in outside.items()}
    labels = torch.cat([sample.labels, torch.zeros(len(inside), dtype=torch.int64)])  # unread: these do not teach
    return [*rows_of(score_grid(torch.cat([sample.features, inside]), labels, foreign, [fold], head))]


def print_hindsight(search: Search, real: list[Row]) -> None:
    """What each kind of made outliers knew: rank correlation of its AUROC with the real mean FPR95 over the grid."""
    wanted = [-row.mean_fpr95 for row in real]
    by_fpr95 = min(search.rows, key=lambda row: (row.mean_fpr95, -row.mean_auroc))
    picks = {"in hindsight": real[int(np.argmax(wanted))], "by mean AUROC": search.best, "by mean FPR95": by_fpr95}
    places = {str(row): place for place, row in enumerate(search.rows)}
    for name, row in picks.items():
        print(f"best {name}: {row}: mean FPR95 on the real folders {100 * real[places[str(row)]].mean_fpr95:.2f}")
    for kind in KINDS:
        known = spearmanr([row.auroc[kind] for row in search.rows], wanted).statistic
        print(f"rank correlation of {kind}: {known:.2f}")
    known = spearmanr([row.mean_auroc for row in search.rows], wanted).statistic
    print(f"rank correlation of their mean: {known:.2f}")


def main(data: Path, name: str) -> None:
    """Search, choose, and only then measure."""
    case = CASES[name](data)
    classifier = load_classifier(case.parts, torch.device("cpu"), choice=EngineChoice.parse("openvino:float32"))
    head = classifier.head
    sample, outliers = see(classifier, case.masks)
    started = time.perf_counter()
    search = tune(sample.features, sample.labels, outliers, head)
    settings = search.best.settings
    roster = draw_up(sample, head, line_of(sample, head, settings).detector, None, COMBINED)
    tuning = compare(sample, outliers, head, roster, settings=settings, search=search, primary=None)
    print(f"{name}: {len(search.rows)} settings, {len(roster.names)} scores in {time.perf_counter() - started:.0f} s")
    for warning in tuning.warnings:
        print(f"warning: {warning}")
    print(f"LINe: {search.best}; primary: {tuning.choice.primary}; best by cross-validation: {tuning.choice.best}")
    print(choice_table(tuning))
    inside = features_of(classifier, case.inside)
    outside = {ood: features_of(classifier, paths) for ood, paths in case.outside.items()}
    tuned = measured(as_served(sample, head, settings, roster), inside, outside)
    plain = [row for row in search.rows if row.p_a == row.p_w == 0 and row.clip_quantile is not None]
    react = max(plain, key=lambda row: (row.mean_auroc, -row.mean_fpr95)).settings
    others = {
        f"line, {called}": measured(as_served(sample, head, each, NOTHING), inside, outside)["line"]
        for called, each in (("not tuned", case.preset), ("as ReAct, its clip tuned", react))
    }
    print_table(tuned | others)
    print_hindsight(search, in_hindsight(sample, head, inside, outside))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
