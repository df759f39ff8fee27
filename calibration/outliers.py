"""Outliers that are made of in-distribution images: what a calibration can measure itself on without any others.

Each rule is a pure function of a batch of pixels and a seed, and keeps the batch's shape:

    shuffle_patches   GRID x GRID patches in another order: the textures of an object without its shape
    add_noise         Gaussian noise of NOISE grey levels on each channel of each pixel: the shape without its textures
"""

from __future__ import annotations

import numpy as np
import torch

from scoring.types import PixelBatch

GRID = 7  # patches along a side: 32 pixels of the usual 224
NOISE = 100.0  # standard deviation, in grey levels


def shuffle_patches(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Cut each image into patches and lay them in an order of its own; what is left over at the far edges stays."""
    random = np.random.default_rng(seed)
    height, width = (max(1, side // GRID) for side in pixels.shape[2:])
    rows, columns = min(GRID, pixels.shape[2]), min(GRID, pixels.shape[3])
    shuffled = pixels.clone()
    area = (
        shuffled[:, :, : rows * height, : columns * width].unflatten(3, (columns, width)).unflatten(2, (rows, height))
    )
    for image in area:  # (3, rows, height, columns, width)
        patches = image.permute(1, 3, 0, 2, 4).flatten(0, 1)  # (rows * columns, 3, height, width)
        order = torch.from_numpy(random.permutation(len(patches)))
        image.copy_(patches[order].unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4))
    return shuffled


def add_noise(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Add noise, and cut off what is darker than black or brighter than white."""
    noise = np.random.default_rng(seed).normal(0, NOISE, pixels.shape)
    return torch.from_numpy((pixels.numpy() + noise).round().clip(0, 255).astype(np.uint8))


RULES = (shuffle_patches, add_noise)
