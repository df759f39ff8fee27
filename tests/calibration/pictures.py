"""Small seeded pictures on disk, for tests that read folders."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
NOT_AN_IMAGE = b"this is a text, not an image"


def write_picture(path: Path) -> Path:
    """Write a picture that depends on the names of folder and file alone: half noise, half a plain colour."""
    generator = np.random.default_rng(zlib.crc32("/".join(path.parts[-2:]).encode()))
    noise = generator.integers(0, 256, (SIDE, SIDE, 3))
    colour = generator.integers(0, 256, (1, 1, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((noise + colour) // 2).astype(np.uint8)).save(path)
    return path


def write_class_folders(folder: Path, classes: Iterable[str], count: int, start: int = 0) -> Path:
    """Write `count` pictures a class: folder/CLASS/000.png and so on; `start` is the first number."""
    for name in classes:
        for number in range(start, start + count):
            write_picture(folder / name / f"{number:03}.png")
    return folder
