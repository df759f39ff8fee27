"""How the files of an image are called.

    2026-11-24/20261124T091545.123456Z-reject-0123456789abcdef.jpg    the image, as it was sent
    2026-11-24/20261124T091545.123456Z-reject-0123456789abcdef.json   its side file

Day, time (UTC), reason, and the first 16 digits of the image's SHA-256: they sort by time, a listing alone tells what
lies there, and nothing in them comes from a client. Files of other names are not ours: neither counted nor deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from service.capture.record import REASONS, Reason

SIDE = ".json"
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/bmp": ".bmp"}
DIGITS = 16  # of the digest: 64 bits

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_STEM = re.compile(rf"({_DAY.pattern})/(\d{{8}}T\d{{6}}\.\d{{6}})Z-({'|'.join(REASONS)})-([0-9a-f]{{{DIGITS}}})")
_FORM = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True, slots=True)
class Name:
    """What a name says of an image."""

    time: datetime
    reason: Reason
    digest: str

    @property
    def stem(self) -> str:
        """The path of the image's files below the target, without their suffix."""
        utc = self.time.astimezone(UTC)
        return f"{utc:%Y-%m-%d}/{utc.strftime(_FORM)}Z-{self.reason}-{self.digest[:DIGITS]}"


def parse_stem(stem: str) -> Name | None:
    """Read a stem; None for what is not ours."""
    found = _STEM.fullmatch(stem)
    if found is None:
        return None
    day, stamp, reason, digest = found.groups()
    try:
        time = datetime.strptime(stamp, _FORM).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    return Name(time, cast(Reason, reason), digest) if f"{time:%Y-%m-%d}" == day else None


def is_day(folder: str) -> bool:
    """Whether a folder below the target is called like one of ours."""
    return _DAY.fullmatch(folder) is not None


def split_path(path: str) -> tuple[str, str]:
    """The stem and the suffix of a path below the target; the stem may be nobody's."""
    folder, _, name = path.rpartition("/")
    cut = name.rfind(".")
    is_suffix = cut > 0 and name[cut:] in (SIDE, *SUFFIXES.values())
    return (f"{folder}/{name[:cut]}", name[cut:]) if is_suffix else (path, "")
