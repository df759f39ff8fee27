"""The pictures of the load: original photographs, and one that is long and tiny for the null model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHORT_SIDE = 256  # of smaller ones the decoder would have less work than in earnest
REDUCED = 288  # short side of the pictures of imagenet_sample that are no originals but reduced copies

LONGEST_COMMENT = 65_537  # marker, length and what two bytes of length can count


def originals(data: Path) -> list[Path]:
    """All original JPEGs of DATA/imagenet_sample, about 110 KB each.

    Raises:
        SystemExit: there are none.
    """
    folder = data / "imagenet_sample"
    found = [path for path in sorted(folder.rglob("*.JPEG")) if _is_original(path)]
    if not found:
        raise SystemExit(f"{folder} holds no original JPEG larger than {SHORT_SIDE} pixels")
    return found


def _is_original(path: Path) -> bool:
    with Image.open(path) as image:
        short_side = min(image.size)
    return short_side > SHORT_SIDE and short_side != REDUCED


def tiny_classes(folder: Path, names: tuple[str, ...], per_class: int, side: int) -> None:
    """Make a folder of classes full of seeded noise, for the classifier that does next to nothing."""
    random = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=90)


def padded(jpeg: Path, size: int, file: Path) -> Path:
    """Blow a JPEG up to `size` bytes with comments, which decoders skip.

    What is left is the cost of taking a body as long as a photograph's: the null model's measure.
    """
    encoded = jpeg.read_bytes()
    missing = size - len(encoded)
    comments = b"".join(_comment(min(LONGEST_COMMENT, missing - at)) for at in range(0, missing, LONGEST_COMMENT))
    file.write_bytes(encoded[:2] + comments + encoded[2:])  # after the marker of the start
    return file


def _comment(length: int) -> bytes:
    """A JPEG comment of zeros, marker and all."""
    zeros = max(0, length - 4)
    return b"\xff\xfe" + (zeros + 2).to_bytes(2, "big") + bytes(zeros)


def write_list(paths: list[Path], file: Path) -> Path:
    """One path a line: what the load generator reads."""
    file.write_text("".join(f"{path.resolve()}\n" for path in paths))
    return file
