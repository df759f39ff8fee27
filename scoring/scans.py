"""How often a JPEG goes over its pixels.

Every scan of a progressive JPEG may refine all pixels, for a dozen bytes: 100 KB of them keep a decoder busy for
minutes. Encoders write about ten.
"""

from __future__ import annotations

import re

MAX_SCANS = 64  # of 50 million pixels: some seconds

START = b"\xff\xda"
END = b"\xff\xd9"
SEGMENTS = range(0xC0, 0xFF)  # markers that a length follows, but for those below
BARE = range(0xD0, 0xDA)
AFTER_PIXELS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # \x00 and restarts belong to them


def has_too_many_scans(data: bytes) -> bool:
    """Whether a decoder of this JPEG would go over more than `MAX_SCANS` scans.

    Looking for their mark is quick, and settles nearly all. What follows the picture, as the film does that phones
    append, may hold it by chance: then the segments are followed. Where they are not as they should be, decoders may
    see scans that this does not, and the mark counts wherever it stands.
    """
    return data.count(START) > MAX_SCANS and not _ends_within(data, MAX_SCANS)


def _ends_within(data: bytes, scans: int) -> bool:
    at = 2  # behind the mark of the beginning
    while data[at : at + 2] != END:
        head = data[at : at + 4]
        size = int.from_bytes(head[2:])
        if len(head) < 4 or head[0] != 0xFF or head[1] not in SEGMENTS or head[1] in BARE or size < 2:
            return False
        at += 2 + size
        if head[:2] == START:
            scans -= 1
            found = AFTER_PIXELS.search(data, at)
            if scans < 0 or found is None:
                return scans >= 0
            at = found.start()
    return True
