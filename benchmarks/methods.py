"""Every method of `scoring.methods` on the same features: how well each separates, and what all of them cost.

    python -m benchmarks.methods cifar10 DATA             the paper's CIFAR-10 network, as in benchmarks.cifar10
    python -m benchmarks.methods cifar10 DATA --images 5  the same, fitted to five images a class
    python -m benchmarks.methods lite0 DATA               the embedded default, as in benchmarks.embedded
    taskset -c 0 python -m benchmarks.methods cost        on one core, K = 1000, D = 2048, batch 8; and what they store

Fitted to the images of the masks, measured on ID images that neither masks nor thresholds have seen. Features come
through OpenVINO in float32. LINe, fitted to the same images, stands beside the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torchvision import models

from benchmarks.cifar10 import FACTORY
from benchmarks.scoring import BATCH, D, K, in_turn, make_detector, make_head
from calibration.dataset import LabelledImages, list_images
from calibration.learnt import learn
from calibration.separation import mean_separation, separate
from calibration.settings import PRESETS, LineSettings
from calibration.statistics import FeatureStatistics
from calibration.walk import Pass, walk
from scoring.backbone import noise
from scoring.classifier import Classifier, load_classifier
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.embedded import SPEC
from scoring.engines.engine import EngineChoice
from scoring.methods import METHODS, Method, Sample, fit_all, objections, tensors_of
from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts, load_spec
from scoring.types import Features, Head

CPU = torch.device("cpu")
OPENVINO = EngineChoice(name="openvino")


@dataclass(frozen=True)
class Case:
    """A network with its images."""

    classifier: Classifier
    settings: LineSettings
    sample: LabelledImages
    inside: dict[str, list[Path]]
    outside: dict[str, list[Path]]


def cifar10(data: Path) -> Case:
    """5000 images to fit to, 5000 ID images."""
    parts = load_spec(f"{FACTORY}:cifar10", data / "cifar10" / "densenet_bc_100_12.pth.tar")
    measured, _ = LabelledImages.read(data / "cifar10" / "test", None, 10).split(0.5)
    ood = {name: list_images(data / "ood" / name) for name in ("cifar100_test", "textures", "streetview_chars")}
    train = LabelledImages.read(data / "cifar10" / "train", None, 10)
    return Case(load(parts), PRESETS["line-cifar10"], train, {"cifar10": measured.paths}, ood)


def lite0(data: Path) -> Case:
    """500 images to fit to, the 500 others and imagenette as ID images."""
    sample, measured = LabelledImages.read(data / "imagenet_sample", None, 1000).split(0.5)
    inside = {"imagenet_sample": measured.paths, "imagenette": list_images(data / "imagenette_val")}
    ood = {name: list_images(data / "ood" / name) for name in ("textures", "streetview_chars")}
    return Case(load(load_spec(SPEC)), LineSettings(), sample, inside, ood)


def load(parts: ClassifierParts) -> Classifier:
    """The network, in OpenVINO."""
    return load_classifier(parts, CPU, choice=OPENVINO)


def features_of(classifier: Classifier, paths: Sequence[Path], title: str) -> tuple[Features, list[int]]:
    """Features of the files that are images, and which these are."""
    found: list[Features] = []
    kept: list[int] = []
    for indices, features in walk(paths, classifier, lambda features: features.cpu(), title, Pass()):
        found.append(features)
        kept += indices
    return torch.cat(found).float(), kept


def measure(case: Case, images: int) -> None:
    """Print a table for each set of ID images: FPR95 / AUROC of each method and OOD folder, and the mean."""
    head = case.classifier.head
    features, kept = features_of(case.classifier, case.sample.paths, "sample")
    sample = first_of_each(Sample(features, case.sample.labels(kept)), images)
    line = line_of(sample, head, case.settings)
    for name, reason in objections(sample, head, line).items():
        print(f"{name} is not for this network: {reason}")
    started = time.perf_counter()
    methods = fit_all(METHODS, sample, head, line)
    print(
        f"fitted to {len(sample.features)} images in {time.perf_counter() - started:.1f} s; "
        f"{len(save(tensors_of(methods))) / 1e6:.2f} MB"
    )
    outside = {
        name: scores(line, methods, features_of(case.classifier, paths, name)[0])
        for name, paths in case.outside.items()
    }
    for name, paths in case.inside.items():
        inside = scores(line, methods, features_of(case.classifier, paths, name)[0])
        show(name, inside, outside)


def first_of_each(sample: Sample, images: int) -> Sample:
    """The first images of each class."""
    rows = torch.cat([(sample.labels == c).nonzero()[:images, 0] for c in sample.labels.unique()]).sort().values
    return Sample(sample.features[rows], sample.labels[rows])


def line_of(sample: Sample, head: Head, settings: LineSettings) -> LineDetector:
    """LINe, fitted to the same features."""
    return learn(FeatureStatistics.of(sample.features, sample.labels, len(head.bias)), head, settings).detector


def scores(line: LineDetector, methods: dict[str, Method], features: Features) -> dict[str, FloatArray]:
    """Scores of all images, by method."""
    logits, routed = line.route(features)
    found = {"line": line.energy(features, routed)}
    found |= {name: method.score(features, logits, routed) for name, method in methods.items()}
    return {name: values.double().numpy() for name, values in found.items()}


def show(title: str, inside: dict[str, FloatArray], outside: dict[str, dict[str, FloatArray]]) -> None:
    """Print one table, in percent."""
    print(f"\n| {title}, FPR95 / AUROC | {' | '.join(outside)} | mean |\n|---|{'---|' * (len(outside) + 1)}")
    for method, values in inside.items():
        rows = [separate(method, name, values, found[method]) for name, found in outside.items()]
        rows.append(mean_separation(rows, method))
        print(f"| {method} | {' | '.join(f'{100 * row.fpr95:.2f} / {100 * row.auroc:.2f}' for row in rows)} |")


def cost() -> None:
    """Print what each method costs beside the forward pass of ResNet-50 with random weights, and what it stores."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    preprocess = Preprocess(resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    classifier = Classifier(models.resnet50(weights=None), preprocess, CPU, OPENVINO)
    head, features = make_head(K, D), (0.5 * torch.randn(3000, D)).relu()
    detector = make_detector(head)
    methods = fit_and_time(Sample(features, torch.arange(3000) % K), head, detector)
    pixels, batch = noise(preprocess, BATCH), features[:BATCH].contiguous()
    logits, routed = detector.route(batch)
    with torch.inference_mode():
        each = in_turn(*(partial(method.score, batch, logits, routed) for method in methods.values()))
        forward, together = in_turn(
            lambda: classifier.features(pixels),
            lambda: [method.score(batch, logits, routed) for method in methods.values()],
        )
        _, line = in_turn(lambda: classifier.features(pixels), lambda: detector.score(batch))
    for name, seconds in zip(methods, each, strict=True):
        print(f"{name}: {1000 * seconds:.3f} ms, caches warm")
    print(
        f"after a forward pass of {1000 * forward:.1f} ms: line {1000 * line:.2f} ms, "
        f"the {len(methods)} others {1000 * together:.2f} ms or {100 * together / forward:.1f} %"
    )


def fit_and_time(sample: Sample, head: Head, line: LineDetector) -> dict[str, Method]:
    """Fit, and print how long that takes, how long restoring, and bytes stored."""
    methods: dict[str, Method] = {}
    for name, method in METHODS.items():
        started = time.perf_counter()
        fitted = methods[name] = method.fit(sample, head, line)
        loading = time.perf_counter()
        method.restore(head, line, fitted.settings(), fitted.tensors())
        done = time.perf_counter()
        stored = sum(tensor.nbytes for tensor in fitted.tensors().values()) / 1e6
        print(f"{name}: fitted in {loading - started:.2f} s, restored in {done - loading:.2f} s, {stored:.3f} MB")
    return methods


CASES = {"cifar10": cifar10, "lite0": lite0}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=[*CASES, "cost"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=sys.maxsize, help="of a class to fit to, at most")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        cost()
    else:
        measure(CASES[arguments.what](arguments.data), arguments.images)
