"""Measured beside published, and the record of it, from real evaluations of little roots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calibration.evaluate import Evaluation, evaluate
from calibration.field.benchmark import Benchmark, load
from calibration.field.comparison import HEADER, Row, beside
from calibration.field.folders import Found, resolve
from calibration.field.record import differences, record, warnings
from calibration.field.selection import select
from calibration.report import table
from scoring.preprocess import Preprocess
from scoring.scorer import Scorer
from tests.calibration.conftest import Calibrated
from tests.calibration.field.roots import COUNT, write_root
from tests.factories.tiny import PREPROCESS

LINE, OPENOOD = load("line-imagenet"), load("openood-imagenet")
FOUR = ("iNaturalist", "SUN", "Places", "Textures")


def measure(benchmark: Benchmark, root: Path, artifact: Path) -> tuple[Found, Evaluation]:
    """What the command does."""
    found = resolve(benchmark, root)
    with select(found) as folders:
        scorer = Scorer.load(artifact, torch.device("cpu"))
        return found, evaluate(scorer, folders.inside, folders.outside)


@pytest.fixture(scope="module")
def measured(calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Evaluation]:
    """line-imagenet with two of its four sets."""
    root = write_root(tmp_path_factory.mktemp("root"), LINE, ["SUN", "Textures"])
    found, evaluation = measure(LINE, root, calibrated.artifact)
    few = [row for row in evaluation.separations if row.method in ("line", "msp", "energy")]
    return found, replace(evaluation, separations=few)


def instead(
    evaluation: Evaluation, numbers: Mapping[tuple[str, str], tuple[float, float]], counts: Mapping[str, int]
) -> Evaluation:
    """The evaluation with these FPR95 and AUROC by method and set, and these numbers of images."""
    row = evaluation.separations[0]
    rows = [
        replace(row, method=method, ood=ood, fpr95=fpr95, auroc=auroc)
        for (method, ood), (fpr95, auroc) in numbers.items()
    ]
    return replace(evaluation, separations=rows, ood_images=dict(counts))


def by_key(rows: list[Row]) -> dict[tuple[str, str], Row]:
    keys = [(row.target, row.method) for row in rows]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows, strict=True))


def test_single_sets(measured: tuple[Found, Evaluation]) -> None:
    """A set's numbers are those of the evaluation, in percent, beside the published ones; other methods have theirs."""
    _, evaluation = measured
    rows = by_key(beside(LINE, evaluation))
    for separation in evaluation.separations:
        if separation.ood != "mean":
            row = rows[separation.ood, separation.method]
            assert (row.fpr95, row.auroc) == pytest.approx((100 * separation.fpr95, 100 * separation.auroc))
            assert row.note == f"{separation.ood}: {COUNT} of {10000 if row.target == 'SUN' else 5640} images"
    published = rows["SUN", "line"].published
    assert published is not None
    assert (published.fpr95, published.auroc, published.source) == (19.48, 95.26, "paper")
    assert rows["SUN", "msp"].published is None


def test_missing_sets(measured: tuple[Found, Evaluation]) -> None:
    """A set that was not measured has its published row, marked, and no row for methods without one."""
    rows = by_key(beside(LINE, measured[1]))
    row = rows["Places", "line"]
    assert row.published is not None
    assert (row.fpr95, row.auroc, row.published.fpr95, row.note) == (None, None, 28.52, "not measured")
    assert [method for target, method in rows if target == "Places"] == ["line"]


def test_a_partial_mean(measured: tuple[Found, Evaluation]) -> None:
    """A mean over some of its sets is marked with those it lacks, and not printed."""
    rows = by_key(beside(LINE, measured[1]))
    for method in ("line", "msp", "energy"):
        row = rows["mean", method]
        assert (row.fpr95, row.auroc) == (None, None)
        assert row.note.startswith("partial, not compared: without iNaturalist, Places; SUN: 6 of 10000 images; ")


def test_a_method_that_was_not_measured(measured: tuple[Found, Evaluation]) -> None:
    """A published method that this program did not measure is there, and says so."""
    row = by_key(beside(LINE, measured[1]))["mean", "dice"]
    assert row.published is not None
    assert (row.fpr95, row.published.fpr95, row.note) == (None, 34.75, "method not measured")


def test_order(measured: tuple[Found, Evaluation]) -> None:
    """Sets in the benchmark's order, then means; methods as measured, then the others as published."""
    methods = ["line", "msp", "energy"]
    assert [(row.target, row.method) for row in beside(LINE, measured[1])] == [
        ("iNaturalist", "line"),
        *(("SUN", each) for each in methods),
        ("Places", "line"),
        *(("Textures", each) for each in methods),
        *(("mean", each) for each in [*methods, "react", "dice", "ash-s", "scale"]),
    ]


def test_a_complete_mean(measured: tuple[Found, Evaluation]) -> None:
    """Over all sets of the right size the mean is printed: the paper's own numbers give the paper's mean, unmarked."""
    own = {row.sets[0]: row for row in LINE.published if row.method == "line" and len(row.sets) == 1}
    numbers = {("line", name): ((own[name].fpr95 or 0) / 100, (own[name].auroc or 0) / 100) for name in FOUR}
    counts = {each.name: each.images for each in LINE.ood}
    rows = by_key(beside(LINE, instead(measured[1], numbers, counts)))
    assert rows["mean", "line"].cells() == [
        *("mean", "line", "20.70", "20.70", "95.03", "95.03", "ResNet-50", "paper", "")
    ]
    assert all(row.note == "" for (_, method), row in rows.items() if method == "line")


def test_near_and_far(measured: tuple[Found, Evaluation]) -> None:
    """Near and far sets have a mean each: one that is whole is printed though the other is not."""
    numbers = {("line", "SSB-hard"): (0.5, 0.7), ("line", "NINCO"): (0.4, 0.8), ("line", "Textures"): (0.1, 0.9)}
    counts = {each.name: each.images for each in OPENOOD.ood if ("line", each.name) in numbers}
    rows = by_key(beside(OPENOOD, instead(measured[1], numbers, counts)))
    near, far = rows["near mean", "line"], rows["far mean", "line"]
    assert (near.fpr95, near.auroc) == pytest.approx((45, 75))
    assert (far.fpr95, far.auroc, far.note) == (None, None, "partial, not compared: without iNaturalist, OpenImage-O")
    assert near.cells()[2:8] == ["45.00", "-", "75.00", "76.64", "not said", near.cells()[7]]
    assert ("mean", "line") not in rows


def test_nothing_published(measured: tuple[Found, Evaluation]) -> None:
    """A benchmark without published numbers shows what was measured, and nothing of sets that were not."""
    benchmark = load("openood-cifar10")
    numbers, counts = {("line", "SVHN"): (0.25, 0.75)}, {"SVHN": 26032}
    rows = beside(benchmark, instead(measured[1], numbers, counts))
    assert [row.cells() for row in rows] == [
        ["SVHN", "line", "25.00", "-", "75.00", "-", "", "", ""],
        [
            *("far mean", "line", "-", "-", "-", "-", "", ""),
            "partial, not compared: without MNIST, Textures, Places365",
        ],
    ]


def test_table(measured: tuple[Found, Evaluation]) -> None:
    """The rows print as one table, a column for each name of the header."""
    rows = [row.cells() for row in beside(LINE, measured[1])]
    lines = table(HEADER, rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(HEADER)
    assert {line.count("|") for line in lines} == {len(HEADER) + 1}


IMAGENET = Preprocess(resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_same_preprocessing() -> None:
    """Each benchmark agrees with itself, and digits beyond the third of mean and std are no difference."""
    assert differences(LINE, IMAGENET) == []
    assert differences(LINE, IMAGENET.model_copy(update={"mean": (0.4852, 0.4561, 0.4059)})) == []


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"resize": 232}, "resize: the benchmark has 256, the artifact 232"),
        ({"resize": None}, "resize: the benchmark has 256, the artifact None"),
        ({"crop": (288, 224)}, "crop: the benchmark has (224, 224), the artifact (288, 224)"),
        (
            {"mean": (0.5, 0.5, 0.5)},
            "mean: the benchmark has (0.485, 0.456, 0.406), the artifact (0.5, 0.5, 0.5)",
        ),
        ({"std": (0.229, 0.224, 0.2275)}, "std: the benchmark has (0.229, 0.224, 0.225), the artifact"),
        ({"interpolation": "bicubic"}, "interpolation: the benchmark has bilinear, the artifact bicubic"),
        ({"exif_transpose": True}, "exif_transpose: the benchmark has False, the artifact True"),
        ({"decoder": "turbo"}, "decoder: the benchmark has pillow, the artifact turbo"),
    ],
)
def test_other_preprocessing(change: dict[str, object], wanted: str) -> None:
    """A field that differs is named, with both values, and no other."""
    (found,) = differences(LINE, IMAGENET.model_copy(update=change))
    assert found.startswith(wanted)


def test_warnings(measured: tuple[Found, Evaluation]) -> None:
    """Missing sets, other numbers of images and other preprocessing are said, once each, before anything is run."""
    found, _ = measured
    lines = warnings(found, IMAGENET)
    assert [line.split(":")[0] for line in lines] == [
        *("iNaturalist is skipped", "Places is skipped", "ImageNet-1k validation", "SUN", "Textures")
    ]
    assert lines[3] == f"SUN: {found.root}/ood_datasets/SUN has 6 images, the benchmark 10000"
    assert [line for line in warnings(found, PREPROCESS) if line not in lines] == [
        f"preprocessing, {difference}" for difference in differences(LINE, PREPROCESS)
    ]


def test_record(measured: tuple[Found, Evaluation]) -> None:
    """What was run survives JSON: sets with folders and counts, sets missing, artifact, preprocessing, the rows."""
    found, evaluation = measured
    content = json.loads(json.dumps(record(found, evaluation, "0123456789abcdef", PREPROCESS)))
    assert (content["benchmark"], content["artifact_id"]) == ("line-imagenet", "0123456789abcdef")
    assert content["root"] == str(found.root)
    assert content["id"] == {
        "name": "ImageNet-1k validation",
        "folder": str(found.root / "ILSVRC-2012" / "val"),
        "list": None,
        "images": {"benchmark": 50000, "found": COUNT, "scored": COUNT},
    }
    assert [(each["name"], each["images"]) for each in content["ood"]] == [
        ("SUN", {"benchmark": 10000, "found": COUNT, "scored": COUNT}),
        ("Textures", {"benchmark": 5640, "found": COUNT, "scored": COUNT}),
    ]
    assert [each["name"] for each in content["missing"]] == ["iNaturalist", "Places"]
    assert content["preprocessing_differences"] == differences(LINE, PREPROCESS)
    rows = {(row["target"], row["method"]): row for row in content["rows"]}
    assert rows["SUN", "line"]["published"]["fpr95"] == 19.48
    assert rows["mean", "line"]["fpr95"] is None


def test_a_listed_set(calibrated: Calibrated, tmp_path: Path) -> None:
    """Of a folder with a list exactly the listed images are scored, and the record says by which list."""
    benchmark = load("openood-cifar10")
    root = write_root(tmp_path, benchmark, ["SVHN", "MNIST"])
    file = root / "benchmark_imglist" / "cifar10" / "test_svhn.txt"
    file.parent.mkdir(parents=True)
    file.write_text("svhn/test/a/2.png -1\nsvhn/test/b/3.png -1\nsvhn/test/b/9.png -1\n")
    found, evaluation = measure(benchmark, root, calibrated.artifact)
    assert evaluation.ood_images == {"MNIST": COUNT, "SVHN": 2}
    svhn = record(found, evaluation, "", PREPROCESS)["ood"][1]
    assert svhn["list"] == str(file)
    assert svhn["images"] == {"benchmark": 26032, "found": 2, "scored": 2}
