"""Quantising: the same bytes from the same images, and not a word from those who do it."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from calibration.dataset import LabelledImages
from calibration.quantise import IMAGES, quantise, sample
from scoring.backbone import noise
from scoring.classifier import load_classifier
from scoring.errors import DatasetError, EngineError
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders
from tests.data import ROOT
from tests.factories.tiny import CLASSES, PREPROCESS, tiny
from tests.quantised import tiny_network

CPU = torch.device("cpu")


def test_is_the_same_every_time() -> None:
    """In this process, which has quantised before, and in another: a calibration can be gone on with."""
    again = quantise(load_classifier(tiny(), CPU).backbone, noise(PREPROCESS, 16))
    assert again.digest() == tiny_network().digest()
    code = "from tests.quantised import tiny_network; print(tiny_network().digest())"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert process.stdout == again.digest() + "\n"
    assert process.stderr == ""


def test_depends_on_the_images() -> None:
    """The ranges of activations are theirs."""
    assert tiny_network(1).digest() != tiny_network().digest()


def test_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed where there is no terminal, and logging and warnings are as they were."""
    before = (logging.getLoggerClass(), logging.root.manager.disable, list(warnings.filters))
    quantise(load_classifier(tiny(), CPU).backbone, noise(PREPROCESS, 8))
    assert (logging.getLoggerClass(), logging.root.manager.disable, list(warnings.filters)) == before
    assert capfd.readouterr() == ("", "")


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says how to get it."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineError, match="pip install nncf"):
        quantise(load_classifier(tiny(), CPU).backbone, noise(PREPROCESS, 8))


def test_says_that_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nncf raises at a network is no defect of ours."""
    import nncf

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported\noperation")

    monkeypatch.setattr(nncf, "quantize", fail)
    with pytest.raises(EngineError, match="nncf cannot quantise the network: unsupported operation"):
        quantise(load_classifier(tiny(), CPU).backbone, noise(PREPROCESS, 8))


def test_takes_images_of_all_classes(tmp_path: Path) -> None:
    """As the network gets them, at most IMAGES; a file that is no image is left out."""
    data = write_class_folders(tmp_path, CLASSES, 4)
    (data / "bee" / "001.png").write_bytes(NOT_AN_IMAGE)
    images = LabelledImages.read(data, CLASSES, 5)
    wanted = [PREPROCESS.read(path.read_bytes()) for path in images.paths if path != data / "bee" / "001.png"]
    assert torch.equal(sample(images, PREPROCESS), torch.stack(wanted))
    good = tuple(item for item in images.items if item[0] != data / "bee" / "001.png")
    assert len(sample(LabelledImages(good * 20, images.class_folders), PREPROCESS)) == IMAGES


def test_without_any_image(tmp_path: Path) -> None:
    """Where no file can be read there is nothing to quantise with."""
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(NOT_AN_IMAGE)
    with pytest.raises(DatasetError, match="none of 5 images"):
        sample(LabelledImages.read(tmp_path, CLASSES, 5), PREPROCESS)
