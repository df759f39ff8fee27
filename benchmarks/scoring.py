"""What LINe's score costs beside the forward pass: time against K, D and batch, peak memory, a picture.

    python -m benchmarks.scoring OUT

The network is ResNet-50 with random weights (its speed does not depend on them), through OpenVINO in bfloat16 with all
cores. The score runs on one core: kernels, reference in torch, and reference compiled by torch.compile (which
needs a C++ compiler) are timed in turn. OUT gets scoring.json and scoring.png.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from torchvision import models

from scoring import line
from scoring.backbone import noise
from scoring.classifier import Classifier
from scoring.detector import LineDetector, LineMasks
from scoring.engines.engine import EngineChoice
from scoring.preprocess import Preprocess
from scoring.types import Head

K, D, BATCH = 1000, 2048, 8
REPEATS = 21
P_A = P_W = 10
DELTA = 0.8


def main(out: Path) -> None:
    """Measure, print, draw."""
    out.mkdir(parents=True, exist_ok=True)
    by_size = {
        "by_batch": {batch: seconds_of(K, D, batch) for batch in (1, 2, 4, 8, 16, 32, 64)},
        "by_classes": {k: seconds_of(k, D, BATCH) for k in (10, 100, 250, 500, 1000, 2000)},
        "by_features": {d: seconds_of(K, d, BATCH) for d in (128, 256, 512, 1024, 2048, 4096)},
    }
    result = {
        "share_of_forward": {batch: share_of_forward(batch) for batch in (1, BATCH, 32)},
        "against": against(BATCH),
        "peak_mb_batch_64": peak_memory(64),
        **by_size,
    }
    (out / "scoring.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=2))
    draw(by_size, out / "scoring.png")


def share_of_forward(batch: int) -> dict[str, float]:
    """Score and forward pass in turn; medians in ms an image, and their ratio."""
    torch.manual_seed(0)
    preprocess = Preprocess(resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    classifier = Classifier(
        models.resnet50(weights=None),
        preprocess,
        torch.device("cpu"),
        EngineChoice(name="openvino", precision="bfloat16"),
    )
    pixels = noise(preprocess, batch)
    features = classifier.features(pixels)
    detector = make_detector(classifier.head)
    forward, score = in_turn(lambda: classifier.features(pixels), lambda: detector.score(features))
    return {"forward_ms": 1000 * forward / batch, "score_ms": 1000 * score / batch, "share": score / forward}


def against(batch: int) -> dict[str, float]:
    """Kernels, reference and compiled reference in turn: ms an image, with all cores for torch."""
    head, features = make_head(K, D), make_features(D, batch)
    detector, masks = make_detector(head), make_masks(head)
    floors = line.weight_floors(masks.contribution, masks.weight_thresholds, masks.activation_mask)
    compiled = torch.compile(by_gathered_floors)
    kernel, reference, inductor = in_turn(
        lambda: detector.score(features),
        lambda: line.line(features, head, DELTA, floors),
        lambda: compiled(features, head.weight, head.bias, floors),
    )
    times = {"kernels": kernel, "torch": reference, "torch.compile": inductor}
    return {name: 1000 * seconds / batch for name, seconds in times.items()}


def by_gathered_floors(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, floors: torch.Tensor
) -> torch.Tensor:
    """The whole score as one expression that a compiler can fuse, instead of a loop over routed classes."""
    clipped = features.clamp(max=DELTA)
    routed = (clipped @ weight.T + bias).argmax(1)
    kept = torch.where(weight >= floors[routed][:, None], weight, 0)  # (B, K, D) unless it is fused
    return -((kept * clipped[:, None]).sum(2) + bias).logsumexp(1)


def peak_memory(batch: int) -> float:
    """MB that the process needs while it scores a batch, beyond what it had; the kernels are compiled before."""
    detector, features = make_detector(make_head(K, D)), make_features(D, batch)
    detector.score(features[:1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _memory("VmRSS")
    detector.score(features)
    return (_memory("VmHWM") - before) / 1024


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def seconds_of(classes: int, features: int, batch: int) -> float:
    """Median time of one batch."""
    detector, h = make_detector(make_head(classes, features)), make_features(features, batch)
    (seconds,) = in_turn(lambda: detector.score(h))
    return seconds


def in_turn(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, run one after the other again and again, so that all meet the same machine."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, own in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in times]


def make_head(classes: int, features: int) -> Head:
    """Random numbers of the size of a trained head's."""
    return Head(0.03 * torch.randn(classes, features), 0.1 * torch.randn(classes))


def make_features(features: int, batch: int) -> torch.Tensor:
    """Random numbers after ReLU."""
    return torch.randn(batch, features).relu()


def make_masks(head: Head) -> LineMasks:
    """Masks of random class means."""
    contribution = line.signed_contribution(torch.rand(head.weight.shape, dtype=torch.float64), head.weight)
    # One class stands for all: its percentile is theirs, as their means are alike.
    threshold = line.weight_threshold(contribution[0], head.weight, P_W)
    thresholds = torch.full((len(head.bias),), threshold, dtype=torch.float64)
    return LineMasks(contribution, line.activation_mask(contribution, P_A), thresholds, P_A)


def make_detector(head: Head) -> LineDetector:
    """A detector with random masks."""
    return LineDetector(head, make_masks(head), DELTA)


def draw(by_size: dict[str, dict[int, float]], path: Path) -> None:
    """Time of a batch against each of its three sizes; linear is a straight line."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - the backend has to be chosen first

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    titles = {"by_batch": f"batch (K={K}, D={D})", "by_classes": f"K (D={D}, batch {BATCH})"}
    titles["by_features"] = f"D (K={K}, batch {BATCH})"
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        axis.plot(list(by_size[key]), [1000 * seconds for seconds in by_size[key].values()], marker="o")
        axis.set(xlabel=title, ylabel="ms", xlim=0, ylim=0)
        axis.grid(alpha=0.3)
    figure.suptitle("LINe's score on one core")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
