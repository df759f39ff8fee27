"""From an RGB picture to what the network reads, in two halves.

On the CPU, before the queue: resize, centre crop, uint8. On the device: (pixels / 255 - mean) / std.
A quarter of the bytes travels, and the arithmetic is where it is cheap.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from scoring.arrays import UPRIGHT, centre_crop, resize, turn
from scoring.errors import PreprocessError, TooManyPixelsError
from scoring.images import MAX_PIXELS, open_image, orientation_of, to_array, to_rgb
from scoring.types import Images, PixelBatch, Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Decoder = Literal["pillow", "turbo", "turbo-scaled"]
TURBO_INTERPOLATIONS = ("bilinear", "bicubic")  # what torch resizes in 8 bits
Channels = tuple[float, float, float]
Spread = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Preprocess(BaseModel):
    """The preprocessing of one classifier, as recorded in its artifact.

    Attributes:
        resize: length of the shorter side after resizing, in pixels; None leaves the picture as it is.
        crop: (height, width) of the centre crop and so of the network's input; what is missing is black.
        mean: per RGB channel, of pixels in 0..1.
        std: per RGB channel, of pixels in 0..1.
        interpolation: how `resize` samples; always antialiased.
        exif_transpose: turn the picture as its EXIF orientation says; most training pipelines do not.
        decoder: what decodes and resizes. `pillow`: Pillow does both, as in most training pipelines. `turbo`:
            libjpeg-turbo decodes to the same pixels, torch resizes, bilinear or bicubic, 0.003 grey levels off on
            average and 2 at most, in little more than half the time. `turbo-scaled`: moreover, JPEGs of at least 4
            times `resize` come out of their DCT smaller: twice as fast again, 1 grey level off on average, at hard
            edges up to 60.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resize: PositiveInt | None
    crop: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]
    mean: Annotated[Channels, Field(strict=False)]
    std: Annotated[Spread, Field(strict=False)]
    interpolation: Interpolation = "bilinear"
    exif_transpose: bool = False
    decoder: Decoder = "pillow"

    @field_validator("decoder")
    @classmethod
    def _can_resize(cls, decoder: Decoder, info: Any) -> Decoder:
        interpolation = info.data.get("interpolation", "bilinear")  # absent where it is itself refused
        if decoder != "pillow" and interpolation not in TURBO_INTERPOLATIONS:
            raise ValueError(f"{decoder!r} resizes {' or '.join(TURBO_INTERPOLATIONS)}, not {interpolation}")
        if decoder == "turbo-scaled" and info.data.get("resize", 1) is None:
            raise ValueError(f"{decoder!r} needs a size to scale down to: resize is None")
        return decoder

    @classmethod
    def from_torchvision(cls, preset: Any) -> Preprocess:
        """Read the transforms that come with a torchvision weights entry.

        Raises:
            PreprocessError: they are not those of an image classifier.
        """
        try:
            (side,), (resize,) = preset.crop_size, preset.resize_size
        except (AttributeError, ValueError) as error:
            raise PreprocessError(f"{type(preset).__name__} are not the transforms of an image classifier") from error
        return cls(
            resize=resize,
            crop=(side, side),
            mean=_channels(preset.mean),
            std=_channels(preset.std),
            interpolation=preset.interpolation.value,
        )

    def read(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Decode one encoded image and make it as large as the network's input.

        Raises:
            ImageError: the image cannot be scored; says why.
        """
        image = open_image(data, max_pixels)
        size = self._resized(*image.size)
        _check_resized(image.size, size, max_pixels)
        if self.decoder == "pillow":
            return self.fit(to_rgb(image, exif_transpose=self.exif_transpose))
        picture = to_array(image, data, shrink=self._shrink(*image.size))
        return self._fit_array(picture, size, orientation_of(image) if self.exif_transpose else UPRIGHT)

    def fit(self, image: Image) -> Pixels:
        """Resize and crop an RGB picture."""
        if self.decoder != "pillow":
            return self._fit_array(np.array(image), self._resized(*image.size))
        if self.resize is not None:
            mode = InterpolationMode(self.interpolation)
            image = transforms.resize(image, [self.resize], interpolation=mode, antialias=True)
        image = transforms.center_crop(image, list(self.crop))
        pixels: Tensor = transforms.pil_to_tensor(image)
        return pixels

    def digest(self) -> str:
        """SHA-256 over every field, as hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing."""
        if self.resize is None:
            return width, height
        long_side = max(width, height) * self.resize // min(width, height)
        return (self.resize, long_side) if width <= height else (long_side, self.resize)

    def _shrink(self, width: int, height: int) -> int:
        """The denominator of the DCT's scale: what it leaves is at least twice what is wanted.

        The resize then still averages over several pixels: 1 grey level off on average, 4 on the worst photographs.
        Down to just above what is wanted it would be 2.4 and 10, for a seventh less time.
        """
        if self.decoder != "turbo-scaled" or self.resize is None:
            return 1
        room = min(width, height) // (2 * self.resize)
        return next((scale for scale in (8, 4, 2) if scale <= room), 1)

    def _fit_array(
        self,
        picture: UInt8[np.ndarray, "stored_height stored_width 3"],
        size: tuple[int, int],
        orientation: int = UPRIGHT,
    ) -> Pixels:
        # Turned when it is small: 12 megapixels take longer to turn than to decode. On its side a picture is resized
        # along the columns first, which rounds otherwise: 0.2 grey levels on average.
        upright = turn(resize(picture, size, self.interpolation), orientation)
        return torch.from_numpy(centre_crop(upright, self.crop)).permute(2, 0, 1)


def _check_resized(size: tuple[int, int], resized: tuple[int, int], max_pixels: int) -> None:
    # A 1x50000 strip is small to decode, but resized to a short side of 256 it is 3 gigapixels.
    pixels = resized[0] * resized[1]
    if pixels > max_pixels:
        raise TooManyPixelsError(
            f"the image has {size[0]}x{size[1]} pixels; resized to a short side of {min(resized)} it would have "
            f"{pixels}, at most {max_pixels} are accepted"
        )


def _channels(values: list[float] | tuple[float, ...]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


class Normalise(nn.Module):
    """The device's half: (pixels / 255 - mean) / std, in float32.

    Args:
        preprocess: whose mean and std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocess.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).reshape(1, 3, 1, 1))

    def forward(self, pixels: PixelBatch) -> Images:
        """Normalise a batch."""
        return (pixels.float() / 255 - self.mean) / self.std
