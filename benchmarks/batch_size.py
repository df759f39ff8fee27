"""Time an image by the size of its batch, for which `service.batch_size` decides how many a pass holds.

    python -m benchmarks.batch_size

The embedded network and three of torchvision's with random weights, in `eager` on the CPU; sizes in turn, medians.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torchvision import models

from scoring.embedded import ARTIFACT
from scoring.scorer import Scorer

SIZES = (1, 2, 4, 8, 16, 32)
NETWORKS = ("resnet50", "mobilenet_v3_large", "swin_t")
SIDE = 224
WARM_UP, ROUNDS = 2, 6


def main() -> None:
    """Print a table."""
    print("| ms an image |", " | ".join(map(str, SIZES)), "|")
    print("|---" * (len(SIZES) + 1) + "|")
    embedded = Scorer.load(ARTIFACT, torch.device("cpu"))
    _show("embedded, with its score", embedded.score)
    for name in NETWORKS:
        _show(name, _forward(models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)))


def _forward(network: nn.Module) -> Callable[[Tensor], object]:
    @torch.inference_mode()
    def run(pixels: Tensor) -> Tensor:
        scores: Tensor = network(pixels / 255)
        return scores

    return run


def _show(name: str, run: Callable[[Tensor], object]) -> None:
    batches = [_noise(size) for size in SIZES]
    rounds = [[_ms_an_image(run, batch) for batch in batches] for _ in range(WARM_UP + ROUNDS)]
    medians = map(median, zip(*rounds[WARM_UP:], strict=True))
    print(f"| {name} |", " | ".join(f"{each:.1f}" for each in medians), "|", flush=True)


def _noise(count: int) -> Tensor:
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    return pixels.contiguous(memory_format=torch.channels_last)


def _ms_an_image(run: Callable[[Tensor], object], batch: Tensor) -> float:
    """Of as many passes as have the images of the largest batch."""
    passes = max(SIZES) // len(batch)
    started = perf_counter()
    for _ in range(passes):
        run(batch)
    return 1000 * (perf_counter() - started) / (passes * len(batch))


if __name__ == "__main__":
    main()
