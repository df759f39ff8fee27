"""What a calibration is worth on held-out images alone, and what int8 may cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calibration import outliers
from calibration.dataset import LabelledImages
from calibration.learnt import learn
from calibration.loader import CPU_BATCH_SIZE
from calibration.partial import Partial
from calibration.passes import collect_statistics
from calibration.quality import check_tolerance, describe, measure_quality
from calibration.settings import LineSettings
from scoring.classifier import Classifier, load_classifier
from scoring.detector import LineDetector
from scoring.errors import DatasetError, EngineError
from scoring.metadata import Quality, Quantisation
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders
from tests.calibration.test_separation import slow_fpr95
from tests.factories.tiny import CLASSES, PREPROCESS, tiny


def detector_of(classifier: Classifier, images: LabelledImages) -> LineDetector:
    statistics = collect_statistics(classifier, images, Partial(None, "masks", ())).statistics
    return learn(statistics, classifier.head, LineSettings()).detector


def test_measures(tmp_path: Path) -> None:
    """Against one image at a time: top-1 by its folder, FPR95 against all that the rules make of it."""
    data = write_class_folders(tmp_path, CLASSES, 5)
    (data / "cat" / "000.png").write_bytes(NOT_AN_IMAGE)
    images = LabelledImages.read(data, CLASSES, 5)
    classifier = load_classifier(tiny(), torch.device("cpu"))
    detector = detector_of(classifier, images)
    correct, inside, outside = 0, [], []
    read = {
        i: PREPROCESS.read(path.read_bytes())
        for i, path in enumerate(images.paths)
        if path.parts[-2:] != ("cat", "000.png")
    }
    for first in range(0, len(images.items), CPU_BATCH_SIZE):
        indices = [i for i in range(first, first + CPU_BATCH_SIZE) if i in read]
        pixels = torch.stack([read[i] for i in indices])
        made = [rule(pixels, indices[0]) for rule in outliers.RULES]
        for place, index in enumerate(indices):
            logits, (score,) = detector.score(classifier.features(pixels[place : place + 1]))
            correct += int(logits.argmax()) == images.items[index][1]
            inside.append(float(score))
            outside += [float(detector.score(classifier.features(batch[place : place + 1]))[1]) for batch in made]
    quality, count = measure_quality(classifier, detector, images)
    assert count == 24
    assert quality.accuracy == correct / 24
    assert quality.fpr95 == pytest.approx(slow_fpr95(inside, outside), abs=1 / 48)  # rounding may swap two neighbours
    assert 0 < quality.fpr95 <= 1


def test_without_any_image(tmp_path: Path) -> None:
    """Where no file can be read there is nothing to compare on."""
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "0.png").write_bytes(NOT_AN_IMAGE)
    classifier = load_classifier(tiny(), torch.device("cpu"))
    good = LabelledImages.read(write_class_folders(tmp_path / "good", CLASSES, 2), CLASSES, 5)
    detector = detector_of(classifier, good)
    with pytest.raises(DatasetError, match="none of 1 held-out images"):
        measure_quality(classifier, detector, LabelledImages(((tmp_path / "ant" / "0.png", 0),), CLASSES))


def change(accuracy: float, fpr95: float) -> Quantisation:
    before, after = Quality(accuracy=0.872, fpr95=0.3), Quality(accuracy=0.872 + accuracy, fpr95=0.3 + fpr95)
    return Quantisation(network="0" * 64, compared_images=500, float32=before, int8=after)


@pytest.mark.parametrize(("accuracy", "fpr95"), [(0, 0), (-0.01, 0.01), (0.1, -0.2)])
def test_what_is_tolerated(accuracy: float, fpr95: float) -> None:
    """One point of either, to the point; and being better."""
    check_tolerance(change(accuracy, fpr95), 0.01)


@pytest.mark.parametrize(("accuracy", "fpr95"), [(-0.012, 0), (0, 0.012), (-0.012, -0.1), (0.1, 0.012)])
def test_what_is_not(accuracy: float, fpr95: float) -> None:
    """More of one of them, however good the other is; both numbers and the bound are told."""
    quantisation = change(accuracy, fpr95)
    with pytest.raises(EngineError) as caught:
        check_tolerance(quantisation, 0.01)
    assert describe(quantisation) in str(caught.value)
    assert "--int8-tolerance allows 1 points of either" in str(caught.value)
    for number in (87.2, 87.2 + 100 * accuracy, 30, 30 + 100 * fpr95):
        assert f"{number:.2f}" in str(caught.value)
