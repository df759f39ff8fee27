"""Folders that hold exactly the images of a benchmark's sets, for `calibration.evaluate` to score.

A set that is the whole of its folder stays where it is. Where a list leaves images out, a folder of links stands for
it, for as long as the context lasts, with the same paths below it, so that class folders still name classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from calibration.field.folders import Found, FoundSet


@dataclass(frozen=True)
class Folders:
    """What `calibration.evaluate.evaluate` takes: the ID folder, and the OOD folders by name."""

    inside: Path
    outside: dict[str, Path]


@contextmanager
def select(found: Found) -> Iterator[Folders]:
    """The folders of all sets that were found."""
    with ExitStack() as stack:
        inside = _folder(found.inside, stack)
        yield Folders(inside, {each.name: _folder(each, stack) for each in found.outside})


def _folder(found: FoundSet, stack: ExitStack) -> Path:
    if found.is_whole:
        return found.folder
    links = Path(stack.enter_context(TemporaryDirectory(prefix="line-ood-")))
    for image in found.images:
        link = links / image.relative_to(found.folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.absolute())
    return links
