"""Bytes to an RGB picture, with every limit checked before a pixel is decoded.

The plug-ins of Pillow are opened by the signature of the bytes, so that only the accepted formats can
ever run, and nothing depends on Pillow's process-wide settings. They read every header; the pixels of a JPEG can also
be had from libjpeg-turbo directly, which is quicker.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base as Tag
from PIL.Image import Image, Transpose, fromarray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from scoring.arrays import UPRIGHT
from scoring.errors import TooManyPixelsError, UndecodableError, UnsupportedFormatError
from scoring.scans import MAX_SCANS, has_too_many_scans

MAX_PIXELS = 50_000_000
ACCEPTED_FORMATS = ("JPEG", "PNG", "WebP", "BMP")
MEDIA_TYPES: dict[Callable[[io.BytesIO], ImageFile], str] = {
    JpegImageFile: "image/jpeg",
    PngImageFile: "image/png",
    WebPImageFile: "image/webp",
    BmpImageFile: "image/bmp",
}
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Read the header of an encoded image; its pixels stay encoded.

    Raises:
        UnsupportedFormatError: the signature is none of `ACCEPTED_FORMATS`.
        TooManyPixelsError: the header declares more than `max_pixels`.
        UndecodableError: the header is broken, or decoding would take for ever.
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
    if isinstance(image, JpegImageFile) and has_too_many_scans(data):
        raise UndecodableError(f"the image is a JPEG of too many scans, at most {MAX_SCANS} are decoded")
    return image


def orientation_of(image: ImageFile) -> int:
    """How the picture, once decoded, has to be turned, as EXIF counts, 1 to 8; what cannot be read is upright.

    Not before it is decoded: a PNG's EXIF may follow its pixels, and Pillow would decode them here.
    """
    try:
        found = image.getexif().get(Tag.Orientation, UPRIGHT)
        return int(found) if found in TURNS else UPRIGHT
    except MemoryError:
        raise
    except Exception:  # garbage makes the parser raise anything, and is no reason to refuse good pixels
        return UPRIGHT


def to_rgb(image: ImageFile, *, exif_transpose: bool = False) -> Image:
    """Decode to 8-bit RGB.

    Grey values are repeated, palettes looked up, alpha is dropped (as training pipelines do), CMYK is
    converted, 16-bit samples keep their upper byte. `exif_transpose` turns the picture upright first.

    Raises:
        UndecodableError: the data end early or are broken.
    """
    try:
        image.load()
        orientation = orientation_of(image) if exif_transpose else UPRIGHT
        upright = image.transpose(TURNS[orientation]) if orientation in TURNS else image
        shallow = _to_8_bit(upright)
        return shallow if shallow.mode == "RGB" else shallow.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # as above: whatever a decoder raises, the bytes are at fault
        raise UndecodableError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def to_array(image: ImageFile, data: bytes, *, shrink: int = 1) -> UInt8[np.ndarray, "height width 3"]:
    """Decode `data`, whose header is `image`, to the pixels of `to_rgb`, as the fastest decoder does it.

    Args:
        image: from `open_image`; as one that is being decoded, it can be used once.
        data: what it was opened from.
        shrink: 2, 4 or 8 decode a JPEG to that fraction of its width and height, rounded up, for a fraction of the
            work: its DCT leaves out the fine detail. Other formats come in full.

    Raises:
        UndecodableError: the data end early or are broken.
    """
    width, height = image.size
    decoded = _by_turbo(image, data, -(-width // shrink), -(-height // shrink))
    if decoded is not None:
        return decoded
    if shrink > 1:
        image.draft(None, (width // shrink, height // shrink))
    return np.array(to_rgb(image))


def _by_turbo(image: ImageFile, data: bytes, width: int, height: int) -> UInt8[np.ndarray, "height width 3"] | None:
    """The pixels of a JPEG, or None for Pillow to read it, or to refuse it in its words.

    libjpeg-turbo completes broken data in grey with a mere warning, on which `decode_jpeg` is strict. Without one, the
    pixels are those of Pillow, which has the same library behind it. CMYK is Pillow's way of converting it alone.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    try:
        if simplejpeg.decode_jpeg_header(data)[1::-1] != image.size:
            return None  # the limits were checked on Pillow's reading of the header
        decoded: UInt8[np.ndarray, "height width 3"] = simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
        return decoded
    except (ValueError, KeyError):  # KeyError: a chroma subsampling that it has no name for
        return None


def _to_8_bit(image: Image) -> Image:
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # Pillow warns of any other way
    if not image.mode.startswith("I"):
        return image
    # Pillow would clip 16-bit grey at 255; colour PNGs of 16 bits lose their lower byte, so grey does too.
    return fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def media_type(data: bytes) -> str:
    """The format of an encoded image, by its signature alone: image/jpeg, image/png, image/webp or image/bmp.

    Raises:
        UnsupportedFormatError: the signature is none of `ACCEPTED_FORMATS`.
    """
    return MEDIA_TYPES[_opener(data)]


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
