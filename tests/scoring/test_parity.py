"""The authors' own code on their own kind of network and real images: the same scores, the same predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from calibration.dataset import LabelledImages
from calibration.job import Job, calibrate
from calibration.settings import PRESETS
from scoring.classifier import load_classifier
from scoring.scorer import ImageScore, Scorer
from scoring.spec import load_spec
from tests.data import ROOT, golden_scores, real_data

SPEC = f"{ROOT / 'tests' / 'factories' / 'densenet_bc.py'}:cifar10"


class Official(NamedTuple):
    """What the authors' code said, and a scorer calibrated by ours on the same 500 images."""

    golden: dict[str, Any]
    scorer: Scorer
    pixels: torch.Tensor  # (200, 3, 32, 32)


@pytest.fixture(scope="module")
def official() -> Official:
    golden = json.loads(golden_scores().read_text())
    folder = real_data("cifar10")
    classes = tuple(golden["classes"])

    def labelled(names: list[tuple[str, str]]) -> LabelledImages:
        return LabelledImages(tuple((folder / path, classes.index(name)) for name, path in names), classes)

    classifier = load_classifier(load_spec(SPEC, folder / "densenet_bc_100_12.pth.tar"), torch.device("cpu"))
    masks = labelled([(name, path) for name, path in golden["train"]])
    holdout = labelled([(test["cls"], test["name"]) for test in golden["test"][::10]])  # their number does not matter
    job = Job(SPEC, masks, holdout, PRESETS["line-cifar10"], {"default": 0.1}, "tests", classes)
    scorer = Scorer(classifier, calibrate(job, classifier).artifact)
    files = [folder / test["name"] for test in golden["test"]]
    return Official(golden, scorer, torch.stack([classifier.preprocess.read(file.read_bytes()) for file in files]))


@pytest.fixture(scope="module")
def in_batches(official: Official) -> list[ImageScore]:
    """All 200 test images, 64 at a time."""
    return [score for part in official.pixels.split(64) for score in official.scorer.score(part)]


def test_the_settings_are_the_authors(official: Official) -> None:
    """The preset is what the golden file was made with, on as many images."""
    method, golden = official.scorer.artifact.metadata.method, official.golden
    assert (method.p_a, method.p_w, method.clip) == (golden["p_a"], golden["p_w"], golden["clip"])
    assert official.scorer.artifact.counts.tolist() == [golden["train_per_class"]] * 10


def test_scores_are_those_of_the_authors(official: Official, in_batches: list[ImageScore]) -> None:
    """Each of the 200 images, to 1e-3, with the sign turned: higher = more out-of-distribution."""
    wanted = [-test["line_score"] for test in official.golden["test"]]
    assert [score.ood_score for score in in_batches] == pytest.approx(wanted, abs=1e-3)
    assert np.std(wanted) > 1  # no constant


def test_predictions_are_those_of_the_authors(official: Official, in_batches: list[ImageScore]) -> None:
    """Each of the 200 images."""
    found = [official.scorer.predictions(score, 1)[0].index for score in in_batches]
    assert found == [test["prediction"] for test in official.golden["test"]]


def test_contributions_are_those_of_the_authors(official: Official) -> None:
    """Summed over the features of each class."""
    found = official.scorer.artifact.masks.contribution.double().sum(1).tolist()
    assert found == pytest.approx(official.golden["contribution_sum"], abs=1e-4)


def test_scores_do_not_depend_on_the_batch(official: Official, in_batches: list[ImageScore]) -> None:
    """One at a time, where the authors' code crashes; every tenth image, to 1e-4."""
    alone = [official.scorer.score(official.pixels[index : index + 1])[0].ood_score for index in range(0, 200, 10)]
    assert alone == pytest.approx([score.ood_score for score in in_batches[::10]], abs=1e-4)


def test_survives_the_file(official: Official, in_batches: list[ImageScore], tmp_path: Path) -> None:
    """Saved and loaded, the artifact scores the same."""
    path = tmp_path / "artifact.safetensors"
    official.scorer.artifact.save(path)
    weights = real_data("cifar10/densenet_bc_100_12.pth.tar")
    loaded = Scorer.load(path, torch.device("cpu"), weights=weights)
    found = [score.ood_score for score in loaded.score(official.pixels[:32])]
    assert found == pytest.approx([score.ood_score for score in in_batches[:32]], abs=1e-5)
