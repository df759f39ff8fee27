"""Outliers made of images, against their rules in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calibration.outliers import GRID, NOISE, RULES, add_noise, shuffle_patches
from scoring.types import PixelBatch

SIZES = [(224, 224), (16, 16), (30, 45), (5, 70), (1, 1)]


def random_pixels(height: int, width: int, count: int = 3) -> PixelBatch:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_shuffled_patches(size: tuple[int, int]) -> None:
    """Each patch of the new image is one of the old, each of the old is there once, and the rest is where it was."""
    pixels = random_pixels(*size)
    found = shuffle_patches(pixels, 5)
    height, width = (max(1, side // GRID) for side in size)
    rows, columns = (min(GRID, side) for side in size)
    rng = np.random.default_rng(5)
    for before, after in zip(pixels.numpy(), found.numpy(), strict=True):
        wanted = before.copy()
        for place, origin in enumerate(rng.permutation(rows * columns)):
            (y, x), (v, u) = divmod(place, columns), divmod(int(origin), columns)
            for i in range(height):
                for j in range(width):
                    wanted[:, y * height + i, x * width + j] = before[:, v * height + i, u * width + j]
        assert (after == wanted).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_noise(size: tuple[int, int]) -> None:
    """Each value has moved by a draw of its own, and none has left 0..255."""
    pixels = random_pixels(*size)
    found = add_noise(pixels, 5)
    draws = iter(np.random.default_rng(5).normal(0, NOISE, pixels.numel()))
    wanted = [min(255, max(0, round(value + next(draws)))) for value in pixels.flatten().tolist()]
    assert found.flatten().tolist() == wanted


@pytest.mark.parametrize("rule", RULES)
def test_a_seed_is_a_result(rule: object) -> None:
    """The same again, another for another seed, uint8 of the same shape; and the images themselves stay."""
    assert callable(rule)
    pixels = random_pixels(28, 28)
    before = pixels.clone()
    found = rule(pixels, 1)
    assert torch.equal(found, rule(pixels, 1))
    assert not torch.equal(found, rule(pixels, 2))
    assert not torch.equal(found, pixels)
    assert (found.dtype, found.shape) == (torch.uint8, pixels.shape)
    assert torch.equal(pixels, before)
