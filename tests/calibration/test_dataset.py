"""Folders to labelled files, and their split."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from calibration.dataset import LabelledImages, list_images
from scoring.errors import DatasetError

NAMES = ("zebra", "ant", "cat")  # not in alphabetical order


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return folder


def relative(images: LabelledImages, folder: Path) -> list[tuple[str, int]]:
    return [(path.relative_to(folder).as_posix(), label) for path, label in images.items]


def numbered(folder: Path, count: int, classes: Sequence[str] = NAMES) -> LabelledImages:
    make(folder, *(f"{name}/{i}.png" for name in classes for i in range(count)))
    return LabelledImages.read(folder, classes, len(classes))


def test_classes_by_name(tmp_path: Path) -> None:
    """Folders named as classes take the index of their name, in whatever order the classes are."""
    make(tmp_path, "ant/1.png", "ant/0.png", "cat/0.png", "zebra/0.png")
    images = LabelledImages.read(tmp_path, NAMES, 3)
    assert relative(images, tmp_path) == [("zebra/0.png", 0), ("ant/0.png", 1), ("ant/1.png", 1), ("cat/0.png", 2)]
    assert images.class_folders == NAMES
    assert images.paths == [path for path, _ in images.items]
    assert images.labels([3, 0, 2]).tolist() == [2, 0, 1]


def test_some_of_the_classes(tmp_path: Path) -> None:
    """Some of the classes are enough where folders are named as classes."""
    make(tmp_path, "cat/0.png")
    images = LabelledImages.read(tmp_path, NAMES, 3)
    assert relative(images, tmp_path) == [("cat/0.png", 2)]
    assert images.class_folders == NAMES


@pytest.mark.parametrize("classes", [None, ("tench", "goldfish", "shark"), ("n1", "n1", "n2")])
def test_classes_in_alphabetical_order(tmp_path: Path, classes: Sequence[str] | None) -> None:
    """Folders of other names, or of names that two classes share, are the classes in alphabetical order."""
    make(tmp_path, "n2/0.png", "n1/0.png", "n10/0.png")
    images = LabelledImages.read(tmp_path, classes, 3)
    assert images.class_folders == ("n1", "n10", "n2")
    assert relative(images, tmp_path) == [("n1/0.png", 0), ("n10/0.png", 1), ("n2/0.png", 2)]


@pytest.mark.parametrize("classes", [None, NAMES])
@pytest.mark.parametrize("folders", [("a", "b"), ("a", "b", "c", "d"), ("ant", "cats")])
def test_wrong_number_of_folders(tmp_path: Path, folders: Sequence[str], classes: Sequence[str] | None) -> None:
    """Neither the classes' names nor their number: refused, with the number wanted and what was found."""
    make(tmp_path, *(f"{name}/0.png" for name in folders))
    wanted = f"{tmp_path}: wanted one folder for each of the 3 classes"
    with pytest.raises(DatasetError, match=re.escape(wanted)) as caught:
        LabelledImages.read(tmp_path, classes, 3)
    assert f"found {len(folders)} folders: {', '.join(folders)}" in str(caught.value)


def test_many_wrong_folders_are_one_short_message(tmp_path: Path) -> None:
    """The message names a few folders of many."""
    make(tmp_path, *(f"{i:03}/0.png" for i in range(200)))
    with pytest.raises(DatasetError, match=r"found 200 folders: 000, 001, 002, 003, 004, \.\.\.") as caught:
        LabelledImages.read(tmp_path, None, 3)
    assert "005" not in str(caught.value)


def test_flat_folder(tmp_path: Path) -> None:
    """Images without class folders have no labels: refused."""
    make(tmp_path, "0.png", "1.png")
    with pytest.raises(DatasetError, match="found 0 folders"):
        LabelledImages.read(tmp_path, NAMES, 3)


@pytest.mark.parametrize("classes", [None, NAMES])
def test_nothing_in_it(tmp_path: Path, classes: Sequence[str] | None) -> None:
    """No folder, an empty one, and class folders without files are refused, each with its name."""
    with pytest.raises(DatasetError, match=f"{re.escape(str(tmp_path / 'none'))}: no such folder"):
        LabelledImages.read(tmp_path / "none", classes, 3)
    with pytest.raises(DatasetError, match=f"{re.escape(str(tmp_path))}: .* found 0 folders"):
        LabelledImages.read(tmp_path, classes, 3)
    for name in NAMES:
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=f"{re.escape(str(tmp_path))}: its class folders hold no files"):
        LabelledImages.read(tmp_path, classes, 3)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A file where a folder was wanted is refused."""
    make(tmp_path, "data.zip")
    with pytest.raises(DatasetError, match=r"data\.zip: no such folder"):
        LabelledImages.read(tmp_path / "data.zip", None, 3)
    with pytest.raises(DatasetError, match=r"data\.zip: no such folder"):
        list_images(tmp_path / "data.zip")


def test_below_the_class_folder(tmp_path: Path) -> None:
    """Files in folders below a class folder belong to the class; files beside the class folders to none."""
    make(tmp_path, "ant/a/b/0.png", "ant/1.png", "README.txt")
    assert relative(LabelledImages.read(tmp_path, NAMES, 3), tmp_path) == [("ant/1.png", 1), ("ant/a/b/0.png", 1)]


def test_hidden_files(tmp_path: Path) -> None:
    """Hidden files and hidden class folders are passed over."""
    make(tmp_path, "ant/.DS_Store", "ant/0.png", ".git/config", "cat/0.png", "zebra/._0.png", "zebra/0.png")
    read = LabelledImages.read(tmp_path, None, 3)
    assert relative(read, tmp_path) == [("ant/0.png", 0), ("cat/0.png", 1), ("zebra/0.png", 2)]
    assert [path.name for path in list_images(tmp_path / "zebra")] == ["0.png"]


def test_hidden_folders_inside(tmp_path: Path) -> None:
    """What lies in a hidden folder is hidden too: a notebook's copies must not count an image twice."""
    make(tmp_path, "ant/0.png", "ant/.ipynb_checkpoints/0-checkpoint.png")
    assert relative(LabelledImages.read(tmp_path, NAMES, 3), tmp_path) == [("ant/0.png", 1)]
    assert list_images(tmp_path) == [tmp_path / "ant" / "0.png"]


def test_hidden_above(tmp_path: Path) -> None:
    """A data set may itself lie in a hidden folder."""
    folder = make(tmp_path / ".cache" / "data", "ant/0.png")
    assert relative(LabelledImages.read(folder, NAMES, 3), folder) == [("ant/0.png", 1)]
    assert list_images(folder) == [folder / "ant" / "0.png"]


def test_list_images(tmp_path: Path) -> None:
    """Every file below a folder, in the order of their paths; none is an error."""
    with pytest.raises(DatasetError, match=f"{re.escape(str(tmp_path))}: holds no files"):
        list_images(tmp_path)
    make(tmp_path, "b.png", "a/1.png", "a/0.png", "c/d/e.png")
    assert list_images(tmp_path) == [tmp_path / name for name in ("a/0.png", "a/1.png", "b.png", "c/d/e.png")]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_split(tmp_path: Path, count: int, fraction: float) -> None:
    """The two sides share nothing, leave nothing out, and hold their share of all and, within one, of each class."""
    images = numbered(tmp_path, count)
    masks, holdout = images.split(fraction)
    assert not set(masks.items) & set(holdout.items)
    assert sorted(masks.items + holdout.items) == sorted(images.items)
    assert masks.class_folders == holdout.class_folders == images.class_folders
    assert abs(len(holdout.items) - fraction * len(images.items)) < 1
    held = Counter(label for _, label in holdout.items)
    assert all(abs(held[label] - fraction * count) <= 1 for label in range(len(NAMES)))


def test_split_leaves_images_for_the_masks(tmp_path: Path) -> None:
    """However large the held-out share, the masks get an image."""
    masks, _ = numbered(tmp_path, 2).split(0.99)
    assert masks.items


def test_split_of_one_image_a_class(tmp_path: Path) -> None:
    """One image a class: every other class goes to either side, so that neither side is the start of the alphabet."""
    classes = [f"n{i:02}" for i in range(10)]
    masks, holdout = numbered(tmp_path, 1, classes).split(0.5)
    assert {label for _, label in masks.items} in ({0, 2, 4, 6, 8}, {1, 3, 5, 7, 9})
    assert len(holdout.items) == 5


def test_split_is_not_the_order_of_names(tmp_path: Path) -> None:
    """Files that follow each other, as frames of a film do, are not put on one side in a row or in turn."""
    make(tmp_path, *(f"film/{i:03}.png" for i in range(100)))
    _, holdout = LabelledImages.read(tmp_path, ["film"], 1).split(0.5)
    held = sorted(int(path.stem) for path, _ in holdout.items)
    assert len(held) == 50
    assert held not in ([*range(50)], [*range(50, 100)], [*range(0, 100, 2)], [*range(1, 100, 2)])


def test_split_elsewhere(tmp_path: Path) -> None:
    """The same files fall on the same sides when the folder is moved and listed again."""
    there, here = tmp_path / "there", tmp_path / "a" / "b" / "here"
    images = numbered(there, 21)
    before = [relative(side, there) for side in images.split(0.3)]
    shutil.copytree(there, here)
    after = [relative(side, here) for side in LabelledImages.read(here, NAMES, 3).split(0.3)]
    assert before == after


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (10, 10), (39, 39), (40, 40), (1000, 40)])
def test_thin(tmp_path: Path, count: int, kept: int) -> None:
    """As many as asked for, or all; in their order, none twice, and from each class its share."""
    for name in "abcd":
        for number in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").touch()
    images = LabelledImages.read(tmp_path, None, 4)
    thin = images.thin(count)
    assert len(thin.items) == kept
    assert [each for each in images.items if each in thin.items] == list(thin.items)
    shares = [sum(label == each for _, label in thin.items) for each in range(4)]
    assert max(shares) - min(shares) <= 1
    assert thin.class_folders == images.class_folders
