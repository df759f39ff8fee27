"""Folders of images: one folder a class, or just images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scoring.errors import DatasetError
from scoring.types import Classes


@dataclass(frozen=True)
class LabelledImages:
    """Files with the index of their class.

    Attributes:
        items: (file, class index), sorted by class, then by path.
        class_folders: the folder that stands for each class, by class index.
    """

    items: tuple[tuple[Path, int], ...]
    class_folders: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, classes: Sequence[str] | None, class_count: int) -> LabelledImages:
        """List a folder that holds one folder a class.

        The folders are matched with `classes` by name where each of them is one; otherwise there has to be one
        for every class, and they are taken in alphabetical order.

        Raises:
            DatasetError: the folders cannot be matched with the classes, or hold no files.
        """
        found = sorted(child.name for child in _children(folder) if child.is_dir())
        if classes is not None and found and set(found) <= set(classes) and len(set(classes)) == len(classes):
            names = tuple(classes)
        elif len(found) == class_count:
            names = tuple(found)
        else:
            raise DatasetError(
                f"{folder}: wanted one folder for each of the {class_count} classes, or folders named as classes, "
                f"found {len(found)} folders: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
            )
        present = [(folder / name, index) for index, name in enumerate(names) if name in found]
        items = tuple((path, index) for class_folder, index in present for path in _files(class_folder))
        if not items:
            raise DatasetError(f"{folder}: its class folders hold no files")
        return cls(items, names)

    def split(self, holdout_fraction: float) -> tuple[LabelledImages, LabelledImages]:
        """Split into two disjoint parts, the second holding `holdout_fraction` of the images.

        The same files always fall on the same sides. Each class is split alike, and where classes have
        one image each, every other class goes to either side.
        """
        shuffled = sorted(self.items, key=lambda item: (item[1], _fingerprint(item[0])))
        held = [math.floor((i + 1) * holdout_fraction) > math.floor(i * holdout_fraction) for i in range(len(shuffled))]
        rest = tuple(item for item, out in zip(shuffled, held, strict=True) if not out)
        holdout = tuple(item for item, out in zip(shuffled, held, strict=True) if out)
        return type(self)(rest, self.class_folders), type(self)(holdout, self.class_folders)

    def thin(self, count: int) -> LabelledImages:
        """At most `count` of the images, evenly spread over all, and so over the classes."""
        kept = min(count, len(self.items))
        return type(self)(tuple(self.items[i * len(self.items) // kept] for i in range(kept)), self.class_folders)

    @property
    def paths(self) -> list[Path]:
        """The files alone."""
        return [path for path, _ in self.items]

    def labels(self, indices: Sequence[int]) -> Classes:
        """Class indices of some of the files."""
        return torch.tensor([self.items[index][1] for index in indices])


def list_images(folder: Path) -> list[Path]:
    """Every file below a folder, hidden ones left out, in the order of their paths.

    Raises:
        DatasetError: there is no such folder, or no file in it.
    """
    _children(folder)
    files = _files(folder)
    if not files:
        raise DatasetError(f"{folder}: holds no files")
    return files


def _children(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    return [child for child in folder.iterdir() if not child.name.startswith(".")]


def _files(folder: Path) -> list[Path]:
    # A notebook keeps copies in hidden folders: what lies there is hidden, too.
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _fingerprint(path: Path) -> str:
    # By the names of class and file alone, so that moving the data set does not change the split.
    return hashlib.sha256("/".join(path.parts[-2:]).encode()).hexdigest()
