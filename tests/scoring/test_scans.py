"""JPEGs that would keep a decoder busy are refused by their structure, and no others."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from scoring.errors import ImageError, UndecodableError
from scoring.images import open_image, to_rgb
from scoring.scans import END, MAX_SCANS, START, has_too_many_scans


def jpeg(**options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


PROGRESSIVE = jpeg(progressive=True)
OWN = PROGRESSIVE.count(START)
FILM = random.Random(0).randbytes(10_000_000)  # nobody's picture, with some marks of scans


def with_scans(count: int) -> bytes:
    """A JPEG of so many scans: the last one, which refines all pixels, again and again."""
    last = PROGRESSIVE[PROGRESSIVE.rindex(START) : -len(END)]
    return PROGRESSIVE[: -len(END)] + last * (count - OWN) + END


def test_scans_are_limited():
    """As many as are allowed are decoded; one more is refused when the header is read, in words that say so."""
    assert to_rgb(open_image(with_scans(MAX_SCANS))).size == (64, 64)
    with pytest.raises(UndecodableError, match=f"at most {MAX_SCANS}"):
        open_image(with_scans(MAX_SCANS + 1))


@pytest.mark.parametrize("picture", [jpeg(), jpeg(restart_marker_blocks=1), PROGRESSIVE], ids=len)
def test_what_follows_the_picture_does_not_count(picture):
    """A phone's moving picture is a JPEG with a film behind it, which may hold anything."""
    assert FILM.count(START) > MAX_SCANS
    assert not has_too_many_scans(picture + FILM)
    assert to_rgb(open_image(picture + FILM)).size == (64, 64)


def test_what_a_segment_holds_does_not_count():
    """Nor does a thumbnail, or any other data of a segment that decoders skip."""
    segment = b"\xff\xe5\xff\xfe" + START * 32766
    assert not has_too_many_scans(PROGRESSIVE[:2] + segment + PROGRESSIVE[2:])


@pytest.mark.parametrize(
    "disguise",
    [
        b"\xff\xe5\x00\x01",  # a segment shorter than its own length
        b"\xff\xd9",  # the end before the picture: nobody stops there who looks for a picture
        b"\x00",  # what is no segment
        b"\xff\xff\xfe\x00\x02",  # filled up
        b"\xff\x01",  # a mark that stands alone
    ],
    ids=bytes.hex,
)
def test_a_disguise_does_not_help(disguise):
    """Where decoders might go on and this might not, the marks count wherever they are; or the header is refused."""
    bomb = with_scans(10 * MAX_SCANS)
    for at in (2, bomb.index(START), bomb.rindex(START)):
        hidden = bomb[:at] + disguise + bomb[at:]
        with pytest.raises(ImageError):
            to_rgb(open_image(hidden))


def test_data_that_end_early_are_for_the_decoder():
    """A picture that was cut off, with a few scans, is not refused for their number."""
    assert not has_too_many_scans(PROGRESSIVE[: len(PROGRESSIVE) // 2])
