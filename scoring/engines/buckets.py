"""Batch sizes that an engine is prepared for, and filling a batch up to one of them."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from scoring.types import PixelBatch


def bucket_of(count: int) -> int:
    """The smallest power of two that holds so many images."""
    return 1 << (count - 1).bit_length()


def buckets(largest: int) -> list[int]:
    """Batch sizes that meet every bucket of batches up to `largest`, ascending."""
    powers = [1 << power for power in range(bucket_of(largest).bit_length())]
    return [min(power, largest) for power in powers]


def pad(pixels: PixelBatch) -> UInt8[Tensor, "bucket 3 height width"]:
    """Fill a batch up to its bucket with black images, whose features nobody reads."""
    missing = bucket_of(len(pixels)) - len(pixels)
    return torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels
