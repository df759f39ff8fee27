"""Outliers made of images, against their rules in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calibration.outliers import (
    BLOB_MEAN,
    BLOB_SPREAD,
    BLOBS,
    BLUR,
    GRID,
    KINDS,
    NOISE,
    RULES,
    TILES,
    Rule,
    add_noise,
    blend,
    blur,
    make_blobs,
    scramble_phase,
    shuffle_patches,
    tile,
)
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


def slow_smooth(image: np.ndarray, width: float) -> np.ndarray:
    """Each pixel the mean of all, weighted by a Gaussian of its distance."""
    _, height, breadth = image.shape
    smooth = np.empty(image.shape)
    for y in range(height):
        for x in range(breadth):
            total, weights = np.zeros(3), 0.0
            for v in range(height):
                for u in range(breadth):
                    weight = math.exp(-0.5 * (((y - v) / (width * height)) ** 2 + ((x - u) / (width * breadth)) ** 2))
                    total += weight * image[:, v, u]
                    weights += weight
            smooth[:, y, x] = total / weights
    return smooth


@pytest.mark.parametrize("size", [(9, 14), (12, 5), (1, 1)], ids=str)
def test_blur(size: tuple[int, int]) -> None:
    """Each pixel is the mean of its image under a Gaussian, whose width was drawn for the image; to rounding."""
    pixels = random_pixels(*size)
    rng = np.random.default_rng(5)
    widths = [rng.uniform(*BLUR) for _ in pixels]
    wanted = np.stack([slow_smooth(image, width) for image, width in zip(pixels.numpy(), widths, strict=True)])
    assert np.abs(blur(pixels, 5).numpy() - wanted).max() < 0.51


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_blend(size: tuple[int, int]) -> None:
    """Each pixel is the mean of two: itself and the one that is there when the image is turned over."""
    pixels = random_pixels(*size)
    height, width = size
    mirrored = np.random.default_rng(5).random(len(pixels)) < 0.5
    for before, after, also in zip(pixels.tolist(), blend(pixels, 5).tolist(), mirrored, strict=True):
        for channel in range(3):
            for y in range(height):
                for x in range(width):
                    other = before[channel][height - 1 - y][width - 1 - x if also else x]
                    assert after[channel][y][x] == (before[channel][y][x] + other) // 2


@pytest.mark.parametrize("size", [(9, 14), (12, 5)], ids=str)
def test_blobs(size: tuple[int, int]) -> None:
    """Smoothed draws, stretched to the same mean and spread; to rounding."""
    found = make_blobs(random_pixels(*size), 5)
    rng = np.random.default_rng(5)
    for after in found.numpy():
        width = rng.uniform(*BLOBS)
        smooth = slow_smooth(rng.standard_normal((3, *size), dtype=np.float32), width)
        for channel, values in zip(after, smooth, strict=True):
            stretched = BLOB_MEAN + BLOB_SPREAD * (values - values.mean()) / values.std()
            assert np.abs(channel - stretched.clip(0, 255)).max() < 0.51


def test_blobs_show_nothing_of_the_images() -> None:
    """Other images of the same size give the same blobs."""
    assert torch.equal(make_blobs(random_pixels(16, 16), 1), make_blobs(random_pixels(16, 16).flip(0, 2) // 2, 1))


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (12, 5), (1, 1)], ids=str)
def test_phases(size: tuple[int, int]) -> None:
    """Every frequency keeps its size and turns by the phase of the noise, alike in all channels; the mean stays."""
    pixels = random_pixels(*size)
    draws = np.random.default_rng(5).standard_normal((len(pixels), 1, *size), dtype=np.float32)
    for before, after, noise in zip(pixels.numpy(), scramble_phase(pixels, 5).numpy(), draws, strict=True):
        phase = np.angle(np.fft.fft2(noise.astype(np.float64)))
        phase[:, 0, 0] = 0
        wanted = np.fft.ifft2(np.fft.fft2(before) * np.exp(1j * phase)).real
        assert np.abs(after - wanted.clip(0, 255)).max() < 0.51


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles(size: tuple[int, int]) -> None:
    """Each place is that of the patch which a walk back and forth through it has reached."""
    pixels = random_pixels(*size)
    found = tile(pixels, 5)
    rng = np.random.default_rng(5)

    def walk(side: int) -> list[int]:
        length = max(1, side // TILES)
        first = int(rng.integers(side - length + 1))
        steps = [first + i for i in range(length)] + [first + length - 1 - i for i in range(length)]
        return [steps[i % (2 * length)] for i in range(side)]

    for before, after in zip(pixels.numpy(), found.numpy(), strict=True):
        rows, columns = walk(size[0]), walk(size[1])
        wanted = [[[channel[y, x] for x in columns] for y in rows] for channel in before]
        assert after.tolist() == wanted


@pytest.mark.parametrize("rule", KINDS.values(), ids=[*KINDS])
def test_a_seed_is_a_result(rule: Rule) -> None:
    """The same again, another for another seed, uint8 of the same shape; and the images themselves stay."""
    pixels = random_pixels(28, 28)
    before = pixels.clone()
    found = rule(pixels, 1)
    assert torch.equal(found, rule(pixels, 1))
    assert not torch.equal(found, rule(pixels, 2))
    assert not torch.equal(found, pixels)
    assert (found.dtype, found.shape) == (torch.uint8, pixels.shape)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("rule", KINDS.values(), ids=[*KINDS])
def test_an_outlier_is_of_its_own_image(rule: Rule) -> None:
    """Another last image in the batch changes no other outlier: cross-validation relies on where each comes from."""
    pixels = random_pixels(20, 12)
    other = torch.cat([pixels[:-1], 255 - pixels[-1:]])
    assert torch.equal(rule(pixels, 1)[:-1], rule(other, 1)[:-1])


@pytest.mark.parametrize("rule", KINDS.values(), ids=[*KINDS])
def test_of_one_image(rule: Rule) -> None:
    """A batch of one is a batch."""
    pixels = random_pixels(12, 20, count=1)
    assert rule(pixels, 3).shape == pixels.shape


def test_int8_is_compared_on_two_of_them() -> None:
    """What int8 may cost is measured on the same outliers as ever."""
    assert (KINDS["patches"], KINDS["noise"]) == RULES
