"""What lies at the target: of each image its files and bytes, the oldest first, so that the cap can be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.capture.names import DIGITS, SIDE, parse_stem, split_path


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of one image.

    Attributes:
        stem: their path without suffix.
        suffixes: of the side file and the image, in the order in which they are to be deleted; one of them may be gone.
        bytes: of all of them.
    """

    stem: str
    suffixes: tuple[str, ...]
    bytes: int

    @property
    def paths(self) -> list[str]:
        """The side file first: it always has its image."""
        return [self.stem + suffix for suffix in self.suffixes]

    @property
    def is_whole(self) -> bool:
        """Whether both files are there."""
        return len(self.suffixes) > 1 and self.suffixes[0] == SIDE

    @property
    def day(self) -> str:
        """The folder."""
        return self.stem.partition("/")[0]

    @property
    def digest(self) -> str:
        """First digits of the image's SHA-256."""
        return self.stem[-DIGITS:]


class Shelf:
    """Counts what is put there and taken away. Belongs to one thread.

    Args:
        kept: what lies there.

    Attributes:
        bytes: of all of it.
    """

    def __init__(self, kept: Iterable[Kept] = ()) -> None:
        self.bytes = 0
        self._kept: dict[str, Kept] = {}
        self._digests: Counter[str] = Counter()
        for each in sorted(kept, key=lambda each: each.stem):
            self.add(each)

    def add(self, kept: Kept) -> None:
        """An image has been put there."""
        self._kept[kept.stem] = kept
        self.bytes += kept.bytes
        self._digests[kept.digest] += kept.is_whole

    def remove(self, kept: Kept) -> None:
        """An image has been taken away."""
        del self._kept[kept.stem]
        self.bytes -= kept.bytes
        self._digests[kept.digest] -= kept.is_whole
        if self._digests[kept.digest] == 0:
            del self._digests[kept.digest]

    def oldest(self) -> Kept | None:
        """What is to go first."""
        return next(iter(self._kept.values()), None)

    def holds(self, digest: str) -> bool:
        """Whether this very image is there, with its side file."""
        return self._digests[digest[:DIGITS]] > 0


def kept_of(sizes: Mapping[str, int]) -> list[Kept]:
    """The images among files, by their paths and sizes; what is not ours is left out."""
    files: dict[str, list[str]] = {}
    for path in sizes:
        stem, suffix = split_path(path)
        if suffix and parse_stem(stem):
            files.setdefault(stem, []).append(suffix)
    return [
        Kept(stem, tuple(sorted(suffixes, key=lambda suffix: suffix != SIDE)), sum(sizes[stem + s] for s in suffixes))
        for stem, suffixes in files.items()
    ]
