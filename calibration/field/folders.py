"""Where the sets of a benchmark lie below a root, and which of their images belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calibration.dataset import list_images
from calibration.field.benchmark import Benchmark, ImageList, ImageSet
from scoring.errors import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # of the formats that `scoring.images` accepts


@dataclass(frozen=True)
class FoundSet:
    """A set that is there.

    Attributes:
        folder: where it lies.
        images: its images, in the order of their paths; all below `folder`.
        listed_in: the list that chose them; None: all that the folder holds.
        is_whole: the folder holds no other images.
    """

    name: str
    folder: Path
    images: tuple[Path, ...]
    listed_in: Path | None
    is_whole: bool


@dataclass(frozen=True)
class MissingSet:
    """A set that is not there, and what was looked for."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """A benchmark below a root.

    Attributes:
        inside: the ID set.
        outside: the OOD sets that are there, in the benchmark's order; at least one.
        missing: the others.
    """

    benchmark: Benchmark
    root: Path
    inside: FoundSet
    outside: tuple[FoundSet, ...]
    missing: tuple[MissingSet, ...]


def resolve(benchmark: Benchmark, root: Path) -> Found:
    """Look for the sets of a benchmark.

    Raises:
        DatasetError: the ID set is not there, or none of the OOD sets is; says what was looked for.
    """
    if not _is_folder(root):
        raise DatasetError(f"{root}: no such folder, wanted the one that the sets of {benchmark.name} lie in")
    inside = _find(benchmark.inside, root)
    if isinstance(inside, MissingSet):
        raise DatasetError(f"{benchmark.name} needs its ID set, {inside.name}: {inside.reason}")
    sets = [_find(each, root) for each in benchmark.ood]
    outside = tuple(each for each in sets if isinstance(each, FoundSet))
    missing = tuple(each for each in sets if isinstance(each, MissingSet))
    if not outside:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in missing)
        raise DatasetError(f"{benchmark.name} needs at least one of its OOD sets: {reasons}")
    return Found(benchmark, root, inside, outside, missing)


def _find(wanted: ImageSet, root: Path) -> FoundSet | MissingSet:
    reasons: list[str] = []
    for folder in (root / name for name in wanted.folders):
        found = _look_into(wanted, folder, root)
        if isinstance(found, FoundSet):
            return found
        reasons.append(found)
    return MissingSet(wanted.name, ", ".join(reasons))


def _look_into(wanted: ImageSet, folder: Path, root: Path) -> FoundSet | str:
    """The set, or why the folder is not it."""
    try:
        images = tuple(path for path in list_images(folder) if path.suffix.lower() in SUFFIXES)
    except (DatasetError, OSError) as error:  # a folder that may not be read is as good as none
        return str(error)
    if not images:
        return f"{folder}: holds no images ({', '.join(SUFFIXES)})"
    if wanted.image_list is None or not (file := root / wanted.image_list.file).is_file():
        return FoundSet(wanted.name, folder, images, None, is_whole=True)
    listed = _read_list(wanted.image_list, file)
    chosen = tuple(path for path in images if path.relative_to(folder).as_posix() in listed)
    if not chosen:
        return f"{folder}: holds none of the images that {file} lists"
    return FoundSet(wanted.name, folder, chosen, file, is_whole=len(chosen) == len(images))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, a place that may not be looked at
        return False


def _read_list(image_list: ImageList, file: Path) -> set[str]:
    """Paths below the set's folder: names to compare with, never to be opened, so that no list leads elsewhere."""
    text = file.read_text(encoding="utf-8", errors="replace")
    paths = (line.split(" ", 1)[0] for line in text.splitlines())  # a label follows
    prefix = f"{image_list.prefix}/"
    return {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}
