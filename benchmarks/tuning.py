"""What tuning on made outliers is worth on real ones: the tables of docs/tuning.md.

    python -m benchmarks.tuning DATA cifar10|lite0

DATA is laid out as for benchmarks.cifar10 and benchmarks.embedded. The search sees the images of the masks and outliers
made of them; the OOD folders, and the ID images they are measured against, are read when it is over. Then the whole
grid is scored on these, too, to see which made outliers would have told what.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.cifar10 import FACTORY
from calibration.dataset import LabelledImages, list_images
from calibration.folds import Fold, MethodScores, Outliers, cross_validate
from calibration.grid import score_grid
from calibration.loader import read_batches
from calibration.masks import build_masks, choose_method
from calibration.outliers import KINDS
from calibration.primary import choose
from calibration.report import table
from calibration.search import Row, Search, rows_of, tune
from calibration.separation import mean_separation, separate
from calibration.settings import PRESETS, LineSettings
from calibration.statistics import FeatureStatistics
from scoring.classifier import Classifier, load_classifier
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.embedded import efficientnet_lite0
from scoring.engines.engine import EngineChoice
from scoring.methods import energy, msp
from scoring.spec import ClassifierParts, load_spec
from scoring.types import Classes, Features, Head

MADE = 1000  # images that outliers are made of, at most
Score = Callable[[Features], FloatArray]


class Case(NamedTuple):
    """A network with its images; the preset is what it would have been calibrated with."""

    parts: ClassifierParts
    masks: LabelledImages
    inside: list[Path]
    outside: dict[str, list[Path]]
    preset: LineSettings


class Seen(NamedTuple):
    """What the search may see."""

    sample: Features
    labels: Classes
    outliers: dict[str, Outliers]


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


def see(classifier: Classifier, masks: LabelledImages) -> Seen:
    """The one pass: features of the images, and of what is made of some of them."""
    sample = features_of(classifier, masks.paths)
    made = masks.thin(MADE)
    places = {path: index for index, path in enumerate(masks.paths)}
    sources = torch.tensor([places[path] for path in made.paths])
    chunks: dict[str, list[Features]] = {kind: [] for kind in KINDS}
    for batch in read_batches(made.paths, classifier.preprocess):
        assert batch.pixels is not None
        for kind, rule in KINDS.items():
            chunks[kind].append(classifier.features(rule(batch.pixels, batch.indices[0])).cpu())
    outliers = {kind: Outliers(torch.cat(found), sources) for kind, found in chunks.items()}
    return Seen(sample, masks.labels(range(len(masks.items))), outliers)


def line_score(seen: Seen, head: Head, settings: LineSettings) -> Score:
    """LINe as it would be served."""
    statistics = FeatureStatistics(*head.weight.shape)
    statistics.update(seen.sample, seen.labels)
    method = choose_method(statistics, settings)
    detector = LineDetector(head, build_masks(statistics, head.weight, method), method.clip)
    return lambda features: detector.score(features)[1].double().numpy()


def logit_score(head: Head, name: str) -> Score:
    """MSP or Energy."""
    function = {"msp": msp, "energy": energy}[name]
    return lambda features: function(torch.addmm(head.bias, features, head.weight.T).double()).numpy()


def methods_of(seen: Seen, head: Head, search: Search, preset: LineSettings) -> dict[str, Score]:
    """Tuned LINe and what it is compared with; ReAct has the best of its clips."""
    plain = [row for row in search.rows if row.p_a == row.p_w == 0 and row.clip_quantile is not None]
    react = max(plain, key=lambda row: (row.mean_auroc, -row.mean_fpr95))
    settings = {"line": search.best.settings, "preset": preset, "react": react.settings}
    scores = {name: line_score(seen, head, each) for name, each in settings.items()}
    return scores | {name: logit_score(head, name) for name in ("energy", "msp")}


def recommend(seen: Seen, head: Head, search: Search) -> str:
    """The primary score, chosen on made outliers alone."""
    scores = {"line": search.scores}
    for name in ("energy", "msp"):
        score = logit_score(head, name)
        scores[name] = cross_validate(lambda *_, score=score: score, *seen, search.folds)
    choice = choose(scores)
    for warning in choice.warnings:
        print(f"warning: {warning}")
    return choice.primary


def print_table(scores: dict[str, MethodScores]) -> None:
    """FPR95 / AUROC in percent, a row a method."""
    rows = [separate(m, kind, s.inside, out) for m, s in scores.items() for kind, out in s.outside.items()]
    lines = []
    for method in scores:
        own = [*(row for row in rows if row.method == method), mean_separation(rows, method)]
        lines.append([method, *(f"{100 * row.fpr95:.2f} / {100 * row.auroc:.2f}" for row in own)])
    print(table(["method", *next(iter(scores.values())).outside, "mean"], lines))


def in_hindsight(seen: Seen, head: Head, inside: Features, outside: dict[str, Features]) -> list[Row]:
    """The grid on the real folders, taught by the whole sample."""
    count = len(seen.sample)
    own = {kind: torch.arange(len(features)) for kind, features in outside.items()}
    fold = Fold(torch.arange(count), count + torch.arange(len(inside)), own)
    foreign = {kind: Outliers(features, torch.full((len(features),), -1)) for kind, features in outside.items()}
    labels = torch.cat([seen.labels, torch.zeros(len(inside), dtype=torch.int64)])  # of those that do not teach: unread
    return [*rows_of(score_grid(torch.cat([seen.sample, inside]), labels, foreign, [fold], head))]


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
    seen, head = see(classifier, case.masks), classifier.head
    started = time.perf_counter()
    search = tune(*seen, head)
    print(f"{name}: {len(search.rows)} settings in {time.perf_counter() - started:.0f} s; best: {search.best}")
    for note in search.notes:
        print(f"note: {note}")
    print(f"primary: {recommend(seen, head, search)}")
    inside = features_of(classifier, case.inside)
    outside = {ood: features_of(classifier, paths) for ood, paths in case.outside.items()}
    methods = methods_of(seen, head, search, case.preset)
    print_table({m: MethodScores(s(inside), {k: s(f) for k, f in outside.items()}) for m, s in methods.items()})
    print_hindsight(search, in_hindsight(seen, head, inside, outside))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
