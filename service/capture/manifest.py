"""What was captured, one row an image: read from the side files while a server may be writing and deleting."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from service.capture.names import DIGITS, SIDE, SUFFIXES, parse_stem
from service.capture.record import Reason, Record
from service.capture.shelf import Kept, kept_of
from service.capture.target import Target, TargetError, tell

AT_A_TIME = 512


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        image: its path below the target.
        record: its side file.
    """

    image: str
    record: Record


@dataclass(frozen=True, slots=True)
class Broken:
    """A side file that makes no row, and why."""

    path: str
    reason: str


def read_rows(
    target: Target, *, reasons: Collection[Reason] = (), since: datetime | None = None
) -> Iterator[Row | Broken]:
    """Every image with its side file, sorted by time.

    An image without a side file is passed over: it is being written, or being deleted.

    Args:
        target: where they are.
        reasons: only these; all, if there are none.
        since: not before.

    Raises:
        TargetError: there is nothing at this URL, or it cannot be listed.
    """
    if not target.exists():
        raise TargetError(f"{target.shown}: there is nothing")
    sizes = _sizes(target)
    wanted = sorted(each.stem for each in kept_of(sizes) if SIDE in each.suffixes and _is_wanted(each, reasons, since))
    for start in range(0, len(wanted), AT_A_TIME):
        stems = wanted[start : start + AT_A_TIME]
        for stem, content in zip(stems, target.read([stem + SIDE for stem in stems]), strict=True):
            if isinstance(content, FileNotFoundError):  # deleted since it was listed
                continue
            yield _row(target, sizes, stem, content)


def _sizes(target: Target) -> dict[str, int]:
    try:
        return target.sizes()
    except Exception as error:  # each file system raises what it likes
        raise TargetError(f"{target.shown}: cannot be listed: {tell(error)}") from error


def _is_wanted(kept: Kept, reasons: Collection[Reason], since: datetime | None) -> bool:
    name = parse_stem(kept.stem)
    assert name is not None, "a stem is listed by its name"
    return (not reasons or name.reason in reasons) and (since is None or name.time >= since)


def _row(target: Target, sizes: Mapping[str, int], stem: str, content: bytes | Exception) -> Row | Broken:
    path = stem + SIDE
    if isinstance(content, Exception):
        return Broken(path, f"cannot be read: {content}")
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Broken(path, ": ".join([*map(str, first["loc"]), first["msg"]]))
    if not stem.endswith(record.sha256[:DIGITS]):
        return Broken(path, f"sha256: wanted one that begins as the name ends, found {record.sha256}")
    image = stem + SUFFIXES[record.content_type]
    found = sizes.get(image)
    if found is None and not target.exists(image):  # a listing while images are written may have missed it
        return Broken(path, "its image is gone")
    if found not in (None, record.bytes):
        return Broken(path, f"its image: wanted {record.bytes} bytes, found {found}")
    return Row(image, record)
