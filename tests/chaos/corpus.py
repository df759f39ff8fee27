"""Images to spoil: real photographs, where they are, in every kind of file that cameras and programs make."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scoring.embedded import SAMPLE
from tests.data import data_folder

PHOTOS = 6
SIDE = 200  # pixels, at most: so that ten thousand take minutes


def corpus() -> list[bytes]:
    """Always the same, where the photographs are the same."""
    folder = data_folder() / "imagenet_sample"
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
    chosen = paths[:: max(len(paths) // PHOTOS, 1)][:PHOTOS] or [SAMPLE]
    files = [SAMPLE.read_bytes(), *(path.read_bytes() for path in chosen)]
    for path in chosen:
        photo = Image.open(path).convert("RGB")
        photo.thumbnail((SIDE, SIDE))
        files += [encode(photo) for encode in ENCODERS]
    return files


def _saved(image: Image.Image, form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: on its side
    exif[0x010E] = "a description" * 20
    return exif


def _text() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "x" * 300, zip=True)
    info.add_itxt("Title", "ein Bild", "de")
    return info


def _frames(image: Image.Image) -> dict[str, object]:
    return {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}


ENCODERS: list[Callable[[Image.Image], bytes]] = [
    lambda image: _saved(image, "JPEG", quality=85),
    lambda image: _saved(image, "JPEG", progressive=True),
    lambda image: _saved(image, "JPEG", quality=95, subsampling=0, restart_marker_blocks=4),
    lambda image: _saved(image, "JPEG", exif=_exif(), icc_profile=bytes(range(256)) * 4, comment=b"comment"),
    lambda image: _saved(image.convert("CMYK"), "JPEG"),
    lambda image: _saved(image.convert("L"), "JPEG", optimize=True),
    lambda image: _saved(image, "PNG"),
    lambda image: _saved(image.convert("RGBA"), "PNG", exif=_exif()),
    lambda image: _saved(image.convert("LA"), "PNG"),
    lambda image: _saved(image.convert("P"), "PNG", bits=8, transparency=3),
    lambda image: _saved(image.convert("1"), "PNG"),
    lambda image: _saved(image.convert("I;16"), "PNG"),
    lambda image: _saved(image, "PNG", pnginfo=_text()),
    lambda image: _saved(image, "PNG", **_frames(image)),
    lambda image: _saved(image, "WEBP"),
    lambda image: _saved(image.convert("RGBA"), "WEBP", lossless=True, exif=_exif()),
    lambda image: _saved(image, "WEBP", **_frames(image)),
    lambda image: _saved(image, "BMP"),
    lambda image: _saved(image.convert("P"), "BMP"),
    lambda image: _saved(image.convert("1"), "BMP"),
    lambda image: _saved(image.convert("P"), "GIF", **_frames(image)),
    lambda image: _saved(image, "TIFF"),
    lambda image: _saved(image.convert("I;16"), "TIFF", compression="tiff_lzw"),
]
