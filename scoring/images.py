"""Bytes to an RGB picture, with every limit checked before a pixel is decoded.

The plug-ins of Pillow are opened by the signature of the bytes, so that only the accepted formats can
ever run, and nothing depends on Pillow's process-wide settings.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Image, fromarray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from scoring.errors import TooManyPixelsError, UndecodableError, UnsupportedFormatError

MAX_PIXELS = 50_000_000
ACCEPTED_FORMATS = ("JPEG", "PNG", "WebP", "BMP")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Read the header of an encoded image; its pixels stay encoded.

    Raises:
        UnsupportedFormatError: the signature is none of `ACCEPTED_FORMATS`.
        TooManyPixelsError: the header declares more than `max_pixels`.
        UndecodableError: the header is broken.
    """
    if not data:
        raise UndecodableError("the image is empty: 0 bytes")
    opener = _opener(data)
    try:
        image = opener(io.BytesIO(data))
    except Exception as error:  # hostile bytes make the decoders raise anything from struct.error to SyntaxError
        raise UndecodableError(f"the image's header cannot be read: {error or type(error).__name__}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixelsError(f"the image has {width}x{height} pixels, at most {max_pixels} are accepted")
    return image


def to_rgb(image: ImageFile, *, exif_transpose: bool = False) -> Image:
    """Decode to 8-bit RGB.

    Grey values are repeated, palettes looked up, alpha is dropped (as training pipelines do), CMYK is
    converted, 16-bit samples keep their upper byte. `exif_transpose` turns the picture upright first.

    Raises:
        UndecodableError: the data end early or are broken.
    """
    try:
        image.load()
        upright: Image = ImageOps.exif_transpose(image) if exif_transpose else image
        return _to_8_bit(upright).convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # as above: whatever a decoder raises, the bytes are at fault
        raise UndecodableError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def _to_8_bit(image: Image) -> Image:
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # Pillow warns of any other way
    if not image.mode.startswith("I"):
        return image
    # Pillow would clip 16-bit grey at 255; colour PNGs of 16 bits lose their lower byte, so grey does too.
    return fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _opener(data: bytes) -> Callable[[io.BytesIO], ImageFile]:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile
    if data.startswith(b"BM"):
        return BmpImageFile
    raise UnsupportedFormatError(f"the image is none of {', '.join(ACCEPTED_FORMATS)}")
