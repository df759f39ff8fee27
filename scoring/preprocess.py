"""From an RGB picture to what the network reads, in two halves.

On the CPU, before the queue: resize, centre crop, uint8. On the device: (pixels / 255 - mean) / std.
A quarter of the bytes travels, and the arithmetic is where it is cheap.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float32
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from scoring.errors import PreprocessError, TooManyPixelsError
from scoring.images import MAX_PIXELS, open_image, to_rgb
from scoring.types import PixelBatch, Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
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
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    resize: PositiveInt | None
    crop: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]
    mean: Annotated[Channels, Field(strict=False)]
    std: Annotated[Spread, Field(strict=False)]
    interpolation: Interpolation = "bilinear"
    exif_transpose: bool = False

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
        width, height = image.size
        self._check_resized(width, height, max_pixels)
        return self.fit(to_rgb(image, exif_transpose=self.exif_transpose))

    def fit(self, image: Image) -> Pixels:
        """Resize and crop an RGB picture."""
        if self.resize is not None:
            mode = InterpolationMode(self.interpolation)
            image = transforms.resize(image, [self.resize], interpolation=mode, antialias=True)
        image = transforms.center_crop(image, list(self.crop))
        pixels: Tensor = transforms.pil_to_tensor(image)
        return pixels

    def normalise(self, pixels: PixelBatch) -> Float32[Tensor, "batch 3 height width"]:
        """The device's half: (pixels / 255 - mean) / std."""
        mean, std = (_per_channel(values, pixels.device) for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std

    def digest(self) -> str:
        """SHA-256 over every field, as hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def _check_resized(self, width: int, height: int, max_pixels: int) -> None:
        # A 1x50000 strip is small to decode, but resized to a short side of 256 it is 3 gigapixels.
        if self.resize is None:
            return
        long_side = max(width, height) * self.resize // min(width, height)
        if self.resize * long_side > max_pixels:
            raise TooManyPixelsError(
                f"the image has {width}x{height} pixels; resized to a short side of {self.resize} it would have "
                f"{self.resize * long_side}, at most {max_pixels} are accepted"
            )


def _channels(values: list[float] | tuple[float, ...]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _per_channel(values: Channels, device: torch.device) -> Float32[Tensor, "1 3 1 1"]:
    return torch.tensor(values, device=device).reshape(1, 3, 1, 1)
