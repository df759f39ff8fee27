"""Probe images: made by rule, so that any machine can score them again and compare with what calibration measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from scoring.types import PixelBatch

SCALES = (1, 4, 16, 64)  # side of a block of one colour: from television noise to large patches
PROBES = 2 * len(SCALES)


def probe_pixels(size: tuple[int, int]) -> PixelBatch:
    """The same `PROBES` images for everybody who asks for this (height, width)."""
    random = np.random.default_rng(0)
    images = [_blocks(random, size, scale) for scale in SCALES for _ in range(2)]
    return torch.from_numpy(np.stack(images))


def _blocks(random: np.random.Generator, size: tuple[int, int], scale: int) -> npt.NDArray[np.uint8]:
    height, width = size
    coarse = random.integers(0, 256, (3, -(-height // scale), -(-width // scale)), dtype=np.uint8)
    return coarse.repeat(scale, 1).repeat(scale, 2)[:, :height, :width]
