"""Outliers that are made of in-distribution images: what a calibration can measure itself on without any others.

Each rule is a pure function of a batch of pixels and a seed, and keeps the batch's shape. An outlier is made of its own
image alone, never of a neighbour in the batch, so that cross-validation can keep it away from what that image taught.

    shuffle_patches   GRID x GRID patches in another order: the textures of an object without its shape
    add_noise         Gaussian noise of NOISE grey levels on each channel of each pixel: the shape without its textures
    blur              a Gaussian as wide as BLUR of the side: colours and coarse layout, neither texture nor edge
    blend             the mean of the image and itself upside down, at times mirrored: two scenes, one through the other
    make_blobs        white noise smoothed by BLOBS of the side, nothing of the image: a scene that shows nothing
    scramble_phase    the image's power spectrum with the phases of noise: its colours and grain, spread over all of it
    tile              a patch of the image, 1 / TILES of its side, mirrored over the whole: a regular texture
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scoring.types import PixelBatch

GRID = 7  # patches along a side: 32 pixels of the usual 224
NOISE = 100.0  # standard deviation, in grey levels
BLUR = (1 / 32, 1 / 8)  # least and greatest standard deviation, as a share of the side
BLOBS = (1 / 16, 1 / 4)  # likewise
BLOB_MEAN, BLOB_SPREAD = 128.0, 64.0  # grey levels
TILES = 4  # patches along a side

Picture = Float[Tensor, "3 height width"]


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


def blur(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Smooth each image by a width of its own; beyond the edges there is nothing, and weighs nothing."""
    widths = np.random.default_rng(seed).uniform(*BLUR, len(pixels))
    return _to_pixels([_smooth(image.float(), width) for image, width in zip(pixels, widths, strict=True)])


def blend(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Lay each image over itself upside down, which is mirrored, too, or not: as the seed has it."""
    mirrored = np.random.default_rng(seed).random(len(pixels)) < 0.5
    turned = [image.flip(1, 2) if also else image.flip(1) for image, also in zip(pixels, mirrored, strict=True)]
    return ((pixels.short() + torch.stack(turned).short()) // 2).byte()


def make_blobs(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Smooth colour noise, each channel stretched to the same mean and spread; only the shape is the images'."""
    random = np.random.default_rng(seed)
    made = []
    for image in pixels:
        width = random.uniform(*BLOBS)  # a seeded generator of numpy # nosec B311
        noise = _smooth(torch.from_numpy(random.standard_normal(image.shape, dtype=np.float32)), width)
        centred = noise - noise.mean((1, 2), keepdim=True)
        spread = centred.std((1, 2), keepdim=True, correction=0).clamp(min=1e-6)  # of one pixel there is none
        made.append(BLOB_MEAN + BLOB_SPREAD * centred / spread)
    return _to_pixels(made)


def scramble_phase(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Turn the phase of each frequency as the phase of white noise, alike in the three channels: hues stay together."""
    noise = np.random.default_rng(seed).standard_normal((len(pixels), 1, *pixels.shape[2:]), dtype=np.float32)
    turn = torch.fft.rfft2(torch.from_numpy(noise))
    turn = torch.polar(torch.ones_like(turn.abs()), turn.angle())
    turn[:, :, 0, 0] = 1  # the mean colour stays
    spectrum = torch.fft.rfft2(pixels.float()) * turn
    return _to_pixels([*torch.fft.irfft2(spectrum, pixels.shape[2:])])


def tile(pixels: PixelBatch, seed: int) -> PixelBatch:
    """Cover each image with one patch of it, every second one mirrored, so that they meet without an edge."""
    random = np.random.default_rng(seed)
    sides = pixels.shape[2:]
    made = []
    for image in pixels:
        rows, columns = (_mirrored(side, random) for side in sides)
        made.append(image[:, rows][:, :, columns])
    return torch.stack(made)


def _mirrored(side: int, random: np.random.Generator) -> Tensor:
    """Places along one side: those of a patch, there and back, over and over."""
    length = max(1, side // TILES)
    first = int(random.integers(side - length + 1))
    there = torch.arange(first, first + length)
    both = torch.cat([there, there.flip(0)])
    return both[torch.arange(side) % len(both)]


def _smooth(picture: Picture, width: float) -> Picture:
    """A Gaussian with a standard deviation of `width` sides, each row and each column a weighted mean."""
    height, breadth = picture.shape[1:]
    return _weights(height, width) @ picture @ _weights(breadth, width).T


def _weights(side: int, width: float) -> Float[Tensor, "side side"]:
    place = torch.arange(side, dtype=torch.float32)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * (width * side) ** 2))
    return weights / weights.sum(1, keepdim=True)


def _to_pixels(pictures: list[Tensor]) -> PixelBatch:
    return torch.stack(pictures).round().clamp(0, 255).byte()


Rule = Callable[[PixelBatch, int], PixelBatch]

RULES = (shuffle_patches, add_noise)  # what int8 is compared on: far from each other, and quickly made
KINDS: dict[str, Rule] = {
    "patches": shuffle_patches,
    "noise": add_noise,
    "blur": blur,
    "blend": blend,
    "blobs": make_blobs,
    "phase": scramble_phase,
    "tiles": tile,
}
