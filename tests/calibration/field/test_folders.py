"""Sets below a root: there, elsewhere, missing, listed, and roots that mean no good."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calibration.field.benchmark import load
from calibration.field.folders import FoundSet, resolve
from calibration.field.selection import select
from scoring.errors import DatasetError
from tests.calibration.field.roots import COUNT, write_root, write_set
from tests.calibration.pictures import NOT_AN_IMAGE

LINE, OPENOOD = load("line-imagenet"), load("openood-cifar10")


def below(found: FoundSet) -> list[str]:
    return [path.relative_to(found.folder).as_posix() for path in found.images]


def write_list(root: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    """The list of SVHN in openood-cifar10."""
    file = root / "benchmark_imglist" / "cifar10" / "test_svhn.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("\n".join(lines).encode(encoding))
    return file


def test_some_sets_missing(tmp_path: Path) -> None:
    """Sets that are there are found in the benchmark's order; each missing one says every folder looked for."""
    found = resolve(LINE, write_root(tmp_path, LINE, ["Textures", "SUN"]))
    assert (found.inside.name, found.inside.folder) == ("ImageNet-1k validation", tmp_path / "ILSVRC-2012" / "val")
    assert [(each.name, each.folder) for each in found.outside] == [
        ("SUN", tmp_path / "ood_datasets" / "SUN"),
        ("Textures", tmp_path / "ood_datasets" / "dtd" / "images"),
    ]
    assert below(found.outside[0]) == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
    assert all(each.is_whole and each.listed_in is None for each in (found.inside, *found.outside))
    assert {each.name: each.reason for each in found.missing} == {
        name: f"{tmp_path}/ood_datasets/{name}: no such folder, {tmp_path}/{name}: no such folder"
        for name in ("iNaturalist", "Places")
    }


def test_all_sets(tmp_path: Path) -> None:
    """Nothing is missing where all sets are there."""
    found = resolve(OPENOOD, write_root(tmp_path, OPENOOD, [each.name for each in OPENOOD.ood]))
    assert [each.name for each in found.outside] == [each.name for each in OPENOOD.ood]
    assert found.missing == ()


def test_another_folder(tmp_path: Path) -> None:
    """The first folder that holds images is taken, not one that is empty or holds other files only."""
    write_root(tmp_path, LINE, [])
    (tmp_path / "ood_datasets" / "SUN").mkdir(parents=True)
    (tmp_path / "ood_datasets" / "Places").mkdir(parents=True)
    (tmp_path / "ood_datasets" / "Places" / "test_32x32.mat").write_bytes(NOT_AN_IMAGE)
    write_set(tmp_path / "SUN")
    found = resolve(LINE, tmp_path)
    assert [each.folder for each in found.outside] == [tmp_path / "SUN"]
    reasons = {each.name: each.reason for each in found.missing}
    assert re.search(r"ood_datasets/Places: holds no images \(.jpg, .jpeg, .png, ", reasons["Places"])


def test_no_id_set(tmp_path: Path) -> None:
    """Without the ID set nothing can be measured: the error names it and each folder that would do."""
    write_set(tmp_path / "SUN")
    with pytest.raises(DatasetError, match="line-imagenet needs its ID set, ImageNet-1k validation") as refusal:
        resolve(LINE, tmp_path)
    assert all(str(tmp_path / folder) in str(refusal.value) for folder in LINE.inside.folders)


def test_no_ood_set(tmp_path: Path) -> None:
    """Without any OOD set likewise, with the folders of all of them."""
    with pytest.raises(DatasetError, match="line-imagenet needs at least one of its OOD sets") as refusal:
        resolve(LINE, write_root(tmp_path, LINE, []))
    assert all(str(tmp_path / folder) in str(refusal.value) for each in LINE.ood for folder in each.folders)


@pytest.mark.parametrize("root", ["nowhere", "a file", "loop", "nul \0 byte", "x" * 300])
def test_a_root_that_is_none(tmp_path: Path, root: str) -> None:
    """A root that is missing, a file, a loop of links or no name at all is refused by name."""
    (tmp_path / "a file").write_bytes(NOT_AN_IMAGE)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DatasetError, match=re.escape(f"{tmp_path / root}: no such folder")):
        resolve(LINE, tmp_path / root)


def test_folders_that_are_none(tmp_path: Path) -> None:
    """A file, a loop and a hidden folder in the place of sets make these missing, and nothing worse."""
    write_root(tmp_path, LINE, ["Textures"])
    (tmp_path / "SUN").write_bytes(NOT_AN_IMAGE)
    (tmp_path / "Places").symlink_to(tmp_path / "Places")
    write_set(tmp_path / "iNaturalist" / ".trash")
    found = resolve(LINE, tmp_path)
    assert [each.name for each in found.missing] == ["iNaturalist", "SUN", "Places"]


def test_a_folder_that_holds_itself(tmp_path: Path) -> None:
    """A link to a folder above is not followed for ever."""
    write_root(tmp_path, LINE, ["SUN"])
    (tmp_path / "ood_datasets" / "SUN" / "again").symlink_to(tmp_path)
    assert len(resolve(LINE, tmp_path).outside[0].images) == COUNT


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A root of openood-cifar10 with SVHN alone."""
    return write_root(tmp_path / "root", OPENOOD, ["SVHN"])


def test_a_list(listed: Path) -> None:
    """Where the list is there, its images are the set, in the folder's order; others of the folder are not."""
    file = write_list(listed, ["svhn/test/b/1.png -1", "svhn/test/a/4.png -1", "svhn/test/a/4.png -1", ""])
    (found,) = resolve(OPENOOD, listed).outside
    assert (below(found), found.listed_in, found.is_whole) == (["a/4.png", "b/1.png"], file, False)


def test_a_list_of_all(listed: Path) -> None:
    """A list that leaves nothing out leaves the folder whole; images that are not there are not invented."""
    write_list(listed, [f"svhn/test/{'ab'[i % 2]}/{i}.png -1" for i in range(COUNT + 3)])
    (found,) = resolve(OPENOOD, listed).outside
    assert (len(found.images), found.is_whole) == (COUNT, True)


def test_a_list_of_none(listed: Path) -> None:
    """A set of whose list no image is there is missing; the reason says list and folder."""
    file = write_list(listed, ["svhn/test/c/0.png -1"])
    with pytest.raises(DatasetError, match=re.escape(f"svhn/test: holds none of the images that {file} lists")):
        resolve(OPENOOD, listed)


@pytest.mark.parametrize(
    "hostile",
    [
        "svhn/test/../../../secret.png -1",
        "{outside} -1",
        "svhn/test/{outside} -1",
        "svhn/test/./a/0.png -1",
        "svhn/test/ -1",
        "a/0.png -1",
        "svhn/train/a/0.png -1",
        "svhn/test -1",
        "../svhn/test/a/0.png -1",
        "\0",
        "svhn/test/" + "x" * 5000,
    ],
)
def test_a_list_that_leads_elsewhere(listed: Path, hostile: str) -> None:
    """A list brings in no file that is not an image of the set's folder under that very name."""
    secret = write_set(listed.parent, 1) / "secret.png"
    secret.write_bytes((listed.parent / "a" / "0.png").read_bytes())
    write_list(listed, [hostile.format(outside=secret), "svhn/test/a/2.png -1"])
    (found,) = resolve(OPENOOD, listed).outside
    assert below(found) == ["a/2.png"]


def test_a_list_that_is_none(listed: Path) -> None:
    """A folder in the place of the list is no list: the whole folder counts; bytes that are no text list nothing."""
    file = listed / "benchmark_imglist" / "cifar10" / "test_svhn.txt"
    file.mkdir(parents=True)
    assert len(resolve(OPENOOD, listed).outside[0].images) == COUNT
    file.rmdir()
    write_list(listed, ["svhn/test/a/0.png -1"], "utf-16")
    with pytest.raises(DatasetError, match="holds none of the images"):
        resolve(OPENOOD, listed)


def test_select(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole set stays in its folder; a listed one gets links with the same paths, which go at the end."""
    write_list(listed, ["svhn/test/b/1.png -1", "svhn/test/a/4.png -1"])
    monkeypatch.chdir(listed.parent)
    with select(resolve(OPENOOD, Path(listed.name))) as folders:
        assert folders.inside == Path("root/images_classic/cifar10/test")
        links = folders.outside["SVHN"]
        assert sorted(str(path.relative_to(links)) for path in links.rglob("*.png")) == ["a/4.png", "b/1.png"]
        for name in ("a/4.png", "b/1.png"):
            assert (links / name).read_bytes() == (listed / "images_classic/svhn/test" / name).read_bytes()
    assert not links.exists()
    assert len(list((listed / "images_classic" / "svhn" / "test").rglob("*.png"))) == COUNT


def test_select_is_tidy_after_an_error(listed: Path) -> None:
    """The links go when the evaluation fails, too, and its error comes through."""
    write_list(listed, ["svhn/test/b/1.png -1"])

    def fail() -> None:
        with select(resolve(OPENOOD, listed)) as folders:
            seen.append(folders.outside["SVHN"])
            raise ZeroDivisionError

    seen: list[Path] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not seen[0].exists()
