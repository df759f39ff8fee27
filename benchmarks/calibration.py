"""How fast calibration is: beside the forward pass alone, and beside the authors' procedure.

    python -m benchmarks.calibration DATA [ENGINE ...]

DATA holds cifar10/train, cifar10/densenet_bc_100_12.pth.tar and imagenet_sample. For each network and ENGINE (`eager`,
`openvino:bfloat16`, ...; by default `eager`) the ceiling is the same classifier on the same batches, whose pixels are
in memory already; what shares the cores with it in a real pass is reading and decoding, measured alone beside it. The
authors' procedure is re-implemented from their code (commit 465ddf5: precompute.py, models/densenet.py, route.py), run
by torch in float32 as theirs is, and given its pixels from memory, while ours reads its files. In float32 the masks of
both are the same; in bfloat16 they cannot be. Everything is measured in turn in one process; figures are medians, and
ratios those of medians.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.dataset import LabelledImages
from calibration.loader import CPU_BATCH_SIZE, read_batches
from calibration.masks import build_masks
from calibration.partial import Partial
from calibration.passes import collect_statistics
from calibration.report import table
from calibration.settings import PRESETS, LineSettings
from scoring.classifier import Classifier, load_classifier
from scoring.detector import LineMasks
from scoring.embedded import SPEC
from scoring.engines.engine import EngineChoice
from scoring.metadata import Method
from scoring.spec import ClassifierParts, load_spec
from scoring.types import Classes, PixelBatch

FACTORY = Path(__file__).parents[1] / "tests" / "factories" / "densenet_bc.py"
ROUNDS = 5
AUTHORS_CLASSES = 10  # of which the masks are made in their way; the rest of 1000 take as long each

Floats = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One network and its images: many for our pass, few for the authors' procedure."""

    name: str
    parts: ClassifierParts
    images: LabelledImages
    few: LabelledImages
    settings: LineSettings


def cases(data: Path) -> Iterator[Case]:
    """The network of the paper's CIFAR-10 table, and one of 1000 classes with photographs."""
    parts = load_spec(f"{FACTORY}:cifar10", data / "cifar10" / "densenet_bc_100_12.pth.tar")
    images = LabelledImages.read(data / "cifar10" / "train", parts.class_names, 10)
    yield Case("DenseNet-BC, CIFAR-10", parts, every(5, images), every(50, images), PRESETS["line-cifar10"])
    parts = load_spec(SPEC)
    images = LabelledImages.read(data / "imagenet_sample", None, 1000)
    yield Case("EfficientNet-Lite0, ImageNet", parts, every(3, images), every(20, images), PRESETS["line-imagenet"])


def every(step: int, images: LabelledImages) -> LabelledImages:
    return LabelledImages(images.items[::step], images.class_folders)


def main(data: Path, engines: list[str]) -> None:
    """Print two tables."""
    passes, procedures = [], []
    for case in cases(data):
        for engine in engines:
            classifier = load_classifier(case.parts, torch.device("cpu"), choice=EngineChoice.parse(engine))
            passes.append([case.name, engine, *beside_the_forward_pass(classifier, case.images)])
            procedures.append([case.name, engine, *beside_the_authors(classifier, case)])
            print(passes[-1], procedures[-1], flush=True)
    threads = torch.get_num_threads()
    print(f"\nImages/s, {ROUNDS} rounds in turn, batches of {CPU_BATCH_SIZE}, {threads} threads.\n")
    head = ["network", "engine", "forward alone", "reading alone", "both, cores shared", "calibration", "of forward"]
    print(table(head, passes))
    head = [
        "network",
        "our engine",
        "images/s, authors",
        "ours",
        "times",
        "ms a mask, authors",
        "ours",
        "times",
        "masks",
    ]
    print("\n" + table(head, procedures))


def in_turn(runs: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each, one after the other, again and again; a first round only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if round_:
                taken[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in taken.items()}


# our pass, and its parts


def beside_the_forward_pass(classifier: Classifier, images: LabelledImages) -> list[str]:
    batches, _ = in_memory(classifier, images)
    seconds = in_turn(
        {
            "forward": lambda: forward_alone(classifier, batches),
            "reading": lambda: [None for _ in read_batches(images.paths, classifier.preprocess)],
            "pass": lambda: collect_statistics(classifier, images, Partial(None, "", [])),
        }
    )
    count = len(images.items)
    rates = [count / seconds["forward"], count / seconds["reading"], count / (seconds["forward"] + seconds["reading"])]
    rates.append(count / seconds["pass"])
    return [*(f"{rate:.1f}" for rate in rates), f"{seconds['forward'] / seconds['pass']:.2f}"]


def forward_alone(classifier: Classifier, batches: list[PixelBatch]) -> None:
    """As the engine is fastest: as many batches side by side as it has lanes."""
    lanes = classifier.engine.lanes
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(lambda pixels: classifier.features(pixels, alone=lanes == 1), batches))


def in_memory(classifier: Classifier, images: LabelledImages) -> tuple[list[PixelBatch], Classes]:
    found, indices = [], []
    for batch in read_batches(images.paths, classifier.preprocess):
        assert batch.pixels is not None
        found.append(batch.pixels)
        indices += batch.indices
    return found, images.labels(indices)


# the authors' procedure


def beside_the_authors(classifier: Classifier, case: Case) -> list[str]:
    batches, labels = in_memory(classifier, case.few)
    pixels, class_count = torch.cat(batches), len(classifier.head.bias)
    own, theirs = [], []
    seconds = in_turn(
        {
            "authors": lambda: theirs.append(authors_contribution(classifier, pixels, labels)),
            "ours": lambda: own.append(collect_statistics(classifier, case.few, Partial(None, "", []))[0]),
        },
        rounds=3,
    )
    method = Method(variant="signed", p_a=case.settings.p_a, p_w=case.settings.p_w, clip=None)
    started = time.perf_counter()
    masks = build_masks(own[-1], classifier.head.weight, method)
    ours_ms = 1000 * (time.perf_counter() - started) / class_count
    classes = labels.unique().tolist()[:AUTHORS_CLASSES]
    differing, authors_ms = compare_masks(theirs[-1], classifier, case.settings, masks, classes)
    entries = len(classes) * (masks.contribution.numel() + masks.contribution.shape[1])
    return [
        f"{len(labels) / seconds['authors']:.1f}",
        f"{len(labels) / seconds['ours']:.1f}",
        f"{seconds['authors'] / seconds['ours']:.1f}",
        f"{authors_ms:.2f}",
        f"{ours_ms:.2f}",
        f"{authors_ms / ours_ms:.1f}",
        f"{differing} of {entries} entries differ",
    ]


def authors_contribution(classifier: Classifier, pixels: PixelBatch, labels: Classes) -> Floats:
    """`_compute_taylor_scores` for one image at a time, all of them logged, then the mean of each class (K, D)."""
    network, layer = classifier.backbone.network, classifier.backbone.head.layer
    log = np.zeros((len(pixels), layer.in_features))
    caught: list[Tensor] = []

    def catch(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        args[0].retain_grad()
        caught.append(args[0])

    network.requires_grad_(True)
    hook = layer.register_forward_pre_hook(catch)
    for index, label in enumerate(labels.tolist()):
        network.zero_grad()
        outputs = network(classifier.backbone.normalise(pixels[index : index + 1]))
        outputs[0, label].backward(retain_graph=True)
        features = caught.pop()
        assert features.grad is not None
        log[index] = (features * features.grad)[0].detach().numpy()
    hook.remove()
    network.requires_grad_(False)
    network.zero_grad()
    means = np.zeros((len(classifier.head.bias), log.shape[1]))
    for c in labels.unique().tolist():
        is_own = (labels == c).numpy()
        means[c] = (is_own[:, None] * log).sum(0) / is_own.sum()
    return means


def authors_masks(contribution: Floats, weight: npt.NDArray[np.float32], settings: LineSettings) -> tuple[Masks, Masks]:
    """`calculate_shap_value` for one class: which neurons (D) and which weights (K, D) are kept."""
    matrix = abs(contribution) * weight
    kept = matrix > np.percentile(matrix, settings.p_w)
    masked_weight = torch.from_numpy(weight) * torch.Tensor(kept)  # a slice of their (K, K, D) tensor
    assert masked_weight.shape == weight.shape
    return contribution > np.percentile(contribution, settings.p_a), kept


def compare_masks(
    contribution: Floats, classifier: Classifier, settings: LineSettings, ours: LineMasks, classes: list[int]
) -> tuple[int, float]:
    """Entries of the masks that differ, and the authors' milliseconds a class."""
    weight = classifier.head.weight.numpy()
    differing, taken = 0, []
    for c in classes:
        started = time.perf_counter()
        neurons, weights = authors_masks(contribution[c], weight, settings)
        taken.append(time.perf_counter() - started)
        own = abs(ours.contribution[c].double().numpy()) * weight.astype(np.float64) > float(ours.weight_thresholds[c])
        differing += int((own != weights).sum()) + int((ours.activation_mask[c].numpy() != neurons).sum())
    return differing, 1000 * median(taken)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or ["eager"])
