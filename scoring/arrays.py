"""RGB pictures as arrays (height, width, 3): resized, turned and cropped, each in the thread that asks for it.

As many threads decode as there are cores, so none of this may wake torch's intra-op threads: on busy cores their
barriers make a copy of 0.1 ms last 16 ms. torch's resize of uint8 in this very layout wakes none; the rest is numpy's,
which has none. So there is no number of threads to set, and none that the inference would find changed.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

UPRIGHT = 1  # the orientation, as EXIF counts them, of a picture that needs no turning


def resize(
    picture: UInt8[np.ndarray, "height width 3"], size: tuple[int, int], interpolation: str
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resize to (width, height), antialiased, `bilinear` or `bicubic`, in torch's 8-bit arithmetic.

    Within 2 grey levels of Pillow's, which does the same in the same order: along the rows, then along the columns.
    Only where Pillow begins with the columns, as version 13 does in pictures several times as tall as wide, bicubic
    overshoots are clipped elsewhere, and single pixels differ by 20.
    """
    width, height = size
    pixels = torch.from_numpy(picture).permute(2, 0, 1)  # 3 height width, the channels still innermost
    mode = InterpolationMode(interpolation)
    resized: torch.Tensor = transforms.resize(pixels, [height, width], interpolation=mode, antialias=True)
    return resized.permute(1, 2, 0).numpy()


def turn(
    picture: UInt8[np.ndarray, "height width 3"], orientation: int
) -> UInt8[np.ndarray, "upright_height upright_width 3"]:
    """A view of the picture turned upright from its EXIF orientation, 1 to 8."""
    upright = picture.transpose(1, 0, 2) if orientation >= 5 else picture
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return upright[::rows, ::columns]


def centre_crop(
    picture: UInt8[np.ndarray, "height width 3"], crop: tuple[int, int]
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Copy (height, width) around the middle; what is missing is black. The picture itself can be forgotten."""
    (rows, to_rows), (columns, to_columns) = map(_overlap, picture.shape, crop)
    cropped = np.zeros((*crop, 3), dtype=np.uint8)
    cropped[to_rows, to_columns] = picture[rows, columns]
    return cropped


def _overlap(found: int, wanted: int) -> tuple[slice, slice]:
    """Where to read and where to write along one axis, rounded as torchvision rounds."""
    if found >= wanted:
        start = round((found - wanted) / 2)
        return slice(start, start + wanted), slice(0, wanted)
    start = (wanted - found) // 2
    return slice(0, found), slice(start, start + found)
