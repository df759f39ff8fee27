"""The network of the paper's CIFAR-10 table, calibrated and measured on real images by the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scoring.artifact import Artifact
from tests.calibration.command import start
from tests.calibration.conftest import ROOT
from tests.data import real_data

DENSENET = f"{ROOT / 'tests' / 'factories' / 'densenet_bc.py'}:cifar10"


def some_files(source: Path, target: Path, start: int, stop: int) -> Path:
    """Copy the files from `start` to `stop` of each class folder."""
    for folder in sorted(child for child in source.iterdir() if child.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[start:stop]:
            shutil.copy(file, target / folder.name)
    return target


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifact and evaluation: 5 + 10 images a class to calibrate, 10 others and two OOD folders to evaluate."""
    folder = tmp_path_factory.mktemp("cifar10")
    weights = real_data("cifar10/densenet_bc_100_12.pth.tar")
    masks = some_files(real_data("cifar10/train"), folder / "masks", 0, 5)
    holdout = some_files(real_data("cifar10/test"), folder / "holdout", 0, 10)
    inside = some_files(real_data("cifar10/test"), folder / "id", 10, 20)
    textures = some_files(real_data("ood/textures"), folder / "textures", 0, 12)
    characters = folder / "characters"
    characters.mkdir()
    files = [path for path in sorted(real_data("ood/streetview_chars").rglob("*")) if path.is_file()]
    for i, file in enumerate(files[:: len(files) // 60][:60]):
        shutil.copy(file, characters / f"{i:02}{file.suffix}")
    artifact = folder / "a.safetensors"
    calibrated = start(
        *("calibrate", "--model", DENSENET, "--weights", weights, "--data", masks, "--holdout", holdout),
        *("--preset", "line-cifar10", "--alpha", "0.1", "--out", artifact),
    )
    assert calibrated.code == 0, calibrated.err
    assert calibrated.err == ""
    evaluated = start(
        *("evaluate", "--artifact", artifact, "--weights", weights, "--id", inside, "--out", folder),
        *("--ood", f"textures={textures}", "--ood", f"characters={characters}"),
    )
    assert evaluated.code == 0, evaluated.err
    assert evaluated.err == ""
    return folder


def test_calibration(results: Path) -> None:
    """The network is right on its own images, which says that weights, classes and preprocessing fit together."""
    summary = json.loads((results / "a.summary.json").read_text())
    assert summary["accuracy"]["calibration_images"] > 0.85
    assert summary["warnings"] == []
    artifact = Artifact.load(results / "a.safetensors")
    assert artifact.counts.tolist() == [5] * 10
    assert artifact.metadata.method.model_dump() == {
        "name": "line",
        "variant": "signed",
        "p_a": 90,
        "p_w": 90,
        "clip": 1,
        "clip_quantile": None,
    }
    assert float(artifact.masks.activation_mask.float().mean()) == pytest.approx(0.1, abs=0.01)


def test_evaluation(results: Path) -> None:
    """LINe tells textures and street-view characters from CIFAR-10, and keeps the promised reject rate on ID images."""
    evaluation = json.loads((results / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.85
    assert evaluation["ood_images"] == {"textures": 60, "characters": 60}
    auroc = {row["ood"]: row["auroc"] for row in evaluation["separations"] if row["method"] == "line"}
    assert min(auroc.values()) > 0.8, auroc
    (rate,) = evaluation["reject_rates"]
    # 100 held-out images at 10 %: Beta(10, 91) over the draw, then 100 images tested; 4 sigma is 0.17.
    assert rate["realised"] < 0.27
    assert min(rate["ood"].values()) > 2 * rate["realised"]
