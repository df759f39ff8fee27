"""The data files: complete, and the published numbers as they were published."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torchvision
from pydantic import ValidationError

from calibration.field import catalogue
from calibration.field.benchmark import Benchmark, load
from calibration.settings import PRESETS
from scoring.errors import DatasetError

NAMES = ("line-cifar10", "line-cifar100", "line-imagenet", "openood-cifar10", "openood-cifar100", "openood-imagenet")

# The table of published results as it was handed to the project: benchmark, network, OOD set, FPR95 / AUROC, remark.
LINE_TABLE = """
line-imagenet    | ResNet-50       | iNaturalist | 12.26 / 97.56 | paper
line-imagenet    | ResNet-50       | SUN         | 19.48 / 95.26 | paper
line-imagenet    | ResNet-50       | Places      | 28.52 / 92.85 | paper
line-imagenet    | ResNet-50       | Textures    | 22.54 / 94.44 | paper
line-imagenet    | ResNet-50       | mean        | 20.70 / 95.03 | paper
line-cifar10     | DenseNet-BC-100 | mean        | 14.72 / 96.99 | paper (from memory)
line-cifar100    | DenseNet-BC-100 | mean        | 35.67 / 88.67 | paper
openood-imagenet |                 | iNaturalist | 38.52 / -     | later re-runs by others
openood-imagenet |                 | Textures    | - / 86.49     | later re-runs by others
openood-imagenet |                 | OpenImage-O | - / 87.3      | later re-runs by others
openood-imagenet |                 | NINCO       | - / 81.9      | later re-runs by others
openood-imagenet |                 | SSB-hard    | - / 71.38     | later re-runs by others
openood-imagenet |                 | near mean   | - / 76.64     | later re-runs by others
"""
OTHERS = "Energy 58.41/86.17, ReAct 31.43/92.95, DICE 34.75/90.77, ASH-S 22.80/95.12, SCALE 20.05/95.71"

# Sets as the papers have them, near sets before the bar.
SETS = {
    "line-imagenet": " | iNaturalist SUN Places Textures",
    "line-cifar10": " | SVHN LSUN-C LSUN-R iSUN Textures Places365",
    "line-cifar100": " | SVHN LSUN-C LSUN-R iSUN Textures Places365",
    "openood-imagenet": "SSB-hard NINCO | iNaturalist Textures OpenImage-O",
    "openood-cifar10": "CIFAR-100 TinyImageNet | MNIST SVHN Textures Places365",
    "openood-cifar100": "CIFAR-10 TinyImageNet | MNIST SVHN Textures Places365",
}

# What torchvision itself checks a download with.
DATASETS = torchvision.datasets
CHECKSUMS = {
    "cifar-10-python.tar.gz": DATASETS.CIFAR10.tgz_md5,
    "cifar-100-python.tar.gz": DATASETS.CIFAR100.tgz_md5,
    "test_32x32.mat": DATASETS.SVHN.split_list["test"][2],
    "dtd-r1.0.1.tar.gz": DATASETS.DTD._MD5,
    "test_256.tar": DATASETS.Places365._IMAGES_META["test", True][1],
    "ILSVRC2012_img_val.tar": DATASETS.imagenet.ARCHIVE_META["val"][1],
    "LSUN.tar.gz": "458a0a0ab8e5f1cb4516d7400568e460",  # these two as pytorch-ood does
    "LSUN_resize.tar.gz": "278b7b31c8cb7e804a1465a8ce03a2dc",
}


def number(text: str) -> float | None:
    return None if text.strip() == "-" else float(text)


def test_names() -> None:
    """There are the six, and each file is the one that its name says."""
    assert catalogue.names() == NAMES
    assert tuple(load(name).name for name in NAMES) == NAMES


def test_presets() -> None:
    """For each of the authors' settings there is the benchmark that they belong to."""
    assert set(PRESETS) <= set(NAMES)


@pytest.mark.parametrize("name", ["imagenet", "", "../line-imagenet", "line-imagenet.json", "LINE-IMAGENET", "\0"])
def test_an_unknown_name(name: str) -> None:
    """A name that is none, or is a path, is refused with those that there are."""
    with pytest.raises(DatasetError, match=f"benchmark {re.escape(repr(name))}: wanted one of {', '.join(NAMES)}"):
        load(name)


@pytest.mark.parametrize("name", NAMES)
def test_sets(name: str) -> None:
    """The OOD sets are those of the paper, near and far."""
    near, far = (part.split() for part in SETS[name].split("|"))
    assert [(each.name, each.kind) for each in load(name).ood] == [(e, "near") for e in near] + [
        (e, "far") for e in far
    ]


@pytest.mark.parametrize("name", NAMES)
def test_targets(name: str) -> None:
    """Numbers are of single sets and of means over all near, all far, or all sets where there is one kind alone."""
    near, far = (tuple(part.split()) for part in SETS[name].split("|"))
    means = {"near mean": near, "far mean": far} if near else {"mean": far}
    assert load(name).targets() == {each: (each,) for each in near + far} | means


@pytest.mark.parametrize("name", NAMES)
def test_every_set_says_where_it_is_from(name: str) -> None:
    """Folders stay below the root and differ from set to set, and checksums are the known ones."""
    benchmark = load(name)
    sets = [benchmark.inside, *benchmark.ood]
    folders = [folder for each in sets for folder in each.folders]
    assert len(set(folders)) == len(folders)
    assert not [folder for folder in folders if folder.startswith("/") or ".." in folder]
    for each in sets:
        assert each.source.md5 == CHECKSUMS.get(each.source.file or "")


@pytest.mark.parametrize("name", NAMES)
def test_lists(name: str) -> None:
    """OpenOOD's sets have lists, of the paths that its data folder has them under; LINe's are whole folders."""
    benchmark = load(name)
    family, dataset = name.split("-")
    for each in (benchmark.inside, *benchmark.ood):
        if family == "line":
            assert each.image_list is None
        else:
            assert each.image_list is not None
            assert each.image_list.file.startswith(f"benchmark_imglist/{dataset}/test_")
            large = dataset == "imagenet" and each.name != "Textures"
            assert each.folders[0] == f"images_{'largescale' if large else 'classic'}/{each.image_list.prefix}"


def test_the_published_table() -> None:
    """Every row of the table is there with its qualifier, and nothing besides is said of LINe."""
    wanted = []
    for line in LINE_TABLE.strip().splitlines():
        name, network, target, numbers, source = (cell.strip() for cell in line.split("|"))
        fpr95, auroc = numbers.split("/")
        wanted.append((name, network or None, target, number(fpr95), number(auroc), source))
    found = []
    for name in NAMES:
        titles = {sets: title for title, sets in load(name).targets().items()}
        for row in load(name).published:
            if row.method == "line":
                source, _, remark = row.source.partition("; ")
                assert bool(remark) == (name == "openood-imagenet" and len(row.sets) > 1)  # listed elsewhere: said
                found.append((name, row.network, titles[tuple(row.sets)], row.fpr95, row.auroc, source))
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))


def test_the_published_means_of_other_methods() -> None:
    """Five other methods have their means over LINe's four ImageNet sets, and nothing else."""
    wanted = {}
    for each in OTHERS.split(", "):
        method, numbers = each.split()
        wanted[method.lower()] = tuple(map(float, numbers.split("/")))
    rows = [(name, row) for name in NAMES for row in load(name).published if row.method != "line"]
    assert {row.method: (row.fpr95, row.auroc) for _, row in rows} == wanted
    assert len(rows) == len(wanted)
    assert {(name, row.network, *row.sets) for name, row in rows} == {
        ("line-imagenet", "ResNet-50", "iNaturalist", "SUN", "Places", "Textures")
    }


@pytest.mark.parametrize(
    ("name", "measure"), [("line-imagenet", "fpr95"), ("line-imagenet", "auroc"), ("openood-imagenet", "auroc")]
)
def test_published_means_are_means(name: str, measure: str) -> None:
    """Where each set of a mean has its number, the mean is theirs, to the digits that are printed."""
    rows = {tuple(row.sets): getattr(row, measure) for row in load(name).published if row.method == "line"}
    means = {sets: value for sets, value in rows.items() if len(sets) > 1}
    assert len(means) == 1
    for sets, value in means.items():
        assert value == pytest.approx(np.mean([rows[(each,)] for each in sets]), abs=0.005 + 1e-9)


def changed(**changes: object) -> str:
    return json.dumps(json.loads(catalogue.read("line-imagenet")) | changes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (changed(colour="red"), "colour"),
        (changed(ood=[]), "ood"),
        (changed(ood=2 * json.loads(catalogue.read("line-imagenet"))["ood"]), "wanted different names"),
        (changed(published=[{"sets": ["SUN", "Places"]}]), "published.0"),
        (changed(published=[json.loads(catalogue.read("openood-imagenet"))["published"][2]]), "OpenImage-O"),
        ("{", "JSON"),
    ],
)
def test_a_wrong_file(text: str, reason: str) -> None:
    """A file with an unknown field, without sets, with a set twice or numbers of unknown sets does not load."""
    with pytest.raises(ValidationError, match=reason):
        Benchmark.model_validate_json(text)
