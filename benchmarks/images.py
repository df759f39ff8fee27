"""What each decoder of `scoring.preprocess` costs on one core, and how far its pixels are from Pillow's.

    python -m benchmarks.images DATA

DATA holds imagenet_sample, of which every fourth image is an original JPEG; they are read as they are, and enlarged to
12 megapixels. The time is the thread's own, so that others on the machine disturb it little; what counts is the ratio,
since the decoders take turns on each picture.
"""

from __future__ import annotations

import io
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

from PIL import Image

from scoring.preprocess import TURBO_INTERPOLATIONS, Decoder, Preprocess

ROUNDS = 7
ORIGINALS, ENLARGED = 60, 6
PIXELS = 12_000_000


@dataclass(frozen=True)
class Row:
    """One line of the table: times in milliseconds an image, deviations in grey levels."""

    name: str
    milliseconds: float
    speed_up: float
    mean: float
    largest: int


def main(data: Path) -> None:
    """Measure and print."""
    originals = [path.read_bytes() for path in sorted((data / "imagenet_sample").rglob("*.JPEG"))[::4]]
    originals = random.Random(0).sample(originals, ORIGINALS)  # noqa: S311  # no secret
    for title, files in (("originals", originals), ("enlarged", [_enlarged(file) for file in originals[:ENLARGED]])):
        print(f"\n{title}: {len(files)} JPEGs of {statistics.mean(map(len, files)) / 1000:.0f} KB\n")
        print("| decoder | ms | images/s | times Pillow | mean deviation | largest |\n|---|---|---|---|---|---|")
        for row in measure(files):
            print(
                f"| {row.name} | {row.milliseconds:.2f} | {1000 / row.milliseconds:.0f} | {row.speed_up:.2f} | "
                f"{row.mean:.4f} | {row.largest} |"
            )


def measure(files: Sequence[bytes]) -> list[Row]:
    """Every decoder with both interpolations; Pillow with the same one is what it is compared with."""
    readers = {
        f"{decoder} {interpolation}": _reader(decoder, interpolation)
        for interpolation, decoder in product(TURBO_INTERPOLATIONS, get_args(Decoder))
    }
    seconds = _seconds(readers, files)
    rows = []
    for name, reader in readers.items():
        pillow = f"pillow {reader.interpolation}"
        median = statistics.median(seconds[name])
        deviations = [_deviation(reader, readers[pillow], file) for file in files]
        rows.append(
            Row(
                name,
                1000 * median / len(files),
                statistics.median(seconds[pillow]) / median,
                statistics.mean(mean for mean, _ in deviations),
                max(largest for _, largest in deviations),
            )
        )
    return rows


def _reader(decoder: Decoder, interpolation: str) -> Preprocess:
    size = {"resize": 256, "crop": (224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Preprocess.model_validate(size | {"decoder": decoder, "interpolation": interpolation})


def _seconds(readers: Mapping[str, Preprocess], files: Sequence[bytes]) -> dict[str, list[float]]:
    """Of each round, by reader; within a round they take turns, in another order on each picture."""
    seconds: dict[str, list[float]] = {name: [0.0] * ROUNDS for name in readers}
    order = random.Random(0)  # noqa: S311  # no secret
    for turn, file in product(range(ROUNDS), files):
        for name in order.sample(list(readers), len(readers)):
            start = time.thread_time()
            readers[name].read(file)
            seconds[name][turn] += time.thread_time() - start
    return seconds


def _deviation(reader: Preprocess, pillow: Preprocess, file: bytes) -> tuple[float, int]:
    off = (reader.read(file).int() - pillow.read(file).int()).abs()
    return off.float().mean().item(), int(off.max())


def _enlarged(file: bytes) -> bytes:
    image = Image.open(io.BytesIO(file)).convert("RGB")
    factor = (PIXELS / (image.width * image.height)) ** 0.5
    buffer = io.BytesIO()
    larger = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    larger.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
