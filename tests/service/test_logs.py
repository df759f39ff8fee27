"""What is no business of the log."""

from __future__ import annotations

import subprocess
import sys

ODD_IMAGES = """
import io
from PIL import Image, TiffImagePlugin
from scoring.images import open_image
from service.logs import configure

configure("info")
for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B):
    exif = Image.Exif()
    exif[tag] = "a description"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    data = bytearray(buffer.getvalue())
    length = data.index(b"Exif") + 6 + 8 + 2 + 4  # of the only entry: beyond the end
    data[length : length + 4] = (5000).to_bytes(4, "big")
    open_image(bytes(data)).getexif().get(tag)
kept = getattr(TiffImagePlugin, "__warningregistry__", {})
print([each for each in kept if isinstance(each, tuple)])
"""


def test_what_pillow_finds_odd_in_images():
    """It is neither told nor remembered: whoever sends images could fill the log, and memory."""
    done = subprocess.run([sys.executable, "-c", ODD_IMAGES], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
