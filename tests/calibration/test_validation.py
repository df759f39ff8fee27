"""Outliers on their way through a classifier: made of the images that they say, read, resumed, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calibration import validation
from calibration.dataset import LabelledImages, list_images
from calibration.outliers import KINDS
from calibration.partial import Partial
from calibration.passes import Collected, collect_statistics
from calibration.validation import make_outliers, read_outliers
from scoring.classifier import Classifier, load_classifier
from scoring.errors import DatasetError
from tests.calibration import networks
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders
from tests.calibration.stopping import stopped_after
from tests.factories.tiny import CLASSES, tiny

COUNT = 21  # images: two full batches and one that is not


@pytest.fixture
def classifier() -> Classifier:
    return load_classifier(tiny(), torch.device("cpu"))


@pytest.fixture
def images(tmp_path: Path) -> LabelledImages:
    """Of which the third is none."""
    folder = write_class_folders(tmp_path / "data", CLASSES[:3], COUNT // 3)
    found = LabelledImages.read(folder, CLASSES, len(CLASSES))
    found.paths[2].write_bytes(NOT_AN_IMAGE)
    return found


def collect(classifier: Classifier, images: LabelledImages) -> Collected:
    return collect_statistics(classifier, images, Partial(None, "", []))


def test_made_of_the_images_that_they_say(
    classifier: Classifier, images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each outlier has the features of what its rule makes of the image that is its source in the sample."""
    monkeypatch.setattr(validation, "MADE", 10)
    collected = collect(classifier, images)
    found = make_outliers(classifier, images, collected, None, "key")
    assert list(found.outliers) == list(KINDS)
    places = [i * COUNT // 10 for i in range(10)]
    assert 2 in places
    readable = [place for place in places if place != 2]
    pixels = {place: classifier.preprocess.read(images.paths[place].read_bytes()) for place in readable}
    first, second = [place for place in places[:8] if place != 2], places[8:]
    for kind, rule in KINDS.items():
        seeds = (0, 8)  # the first readable place of each batch of 8 files
        made = [rule(torch.stack([pixels[p] for p in own]), s) for own, s in zip((first, second), seeds, strict=True)]
        features = torch.cat([classifier.features(own) for own in made])
        torch.testing.assert_close(found.outliers[kind].features, features)
        sources = found.outliers[kind].sources
        assert collected.places[sources].tolist() == readable
        own = classifier.features(torch.stack([pixels[place] for place in readable]))
        torch.testing.assert_close(collected.sample.features[sources], own)
    assert list(found.unreadable) == [images.paths[2]]


def test_read_from_folders(classifier: Classifier, images: LabelledImages, tmp_path: Path) -> None:
    """A kind a folder, of no source; a file that is no image is told, and costs nothing else."""
    near = list_images(write_class_folders(tmp_path / "near", ["a"], 6))
    far = list_images(write_class_folders(tmp_path / "far", ["b"], 9))
    far[3].write_bytes(NOT_AN_IMAGE)
    folders = {name: LabelledImages(tuple((p, -1) for p in paths), ()) for name, paths in {"n": near, "f": far}.items()}
    found = read_outliers(classifier, folders, None, "key")
    assert {name: own.sources.tolist() for name, own in found.outliers.items()} == {"n": [-1] * 6, "f": [-1] * 8}
    pixels = torch.stack([classifier.preprocess.read(path.read_bytes()) for path in near])
    torch.testing.assert_close(found.outliers["n"].features, classifier.features(pixels))
    assert list(found.unreadable) == [far[3]]


def test_a_large_folder_is_thinned_evenly(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 images, where 4 are wanted, every third is read."""
    monkeypatch.setattr(validation, "MADE", 4)
    paths = list_images(write_class_folders(tmp_path / "far", ["b"], 12))
    found = read_outliers(classifier, {"far": LabelledImages(tuple((p, -1) for p in paths), ())}, None, "key")
    pixels = torch.stack([classifier.preprocess.read(path.read_bytes()) for path in paths[::3]])
    torch.testing.assert_close(found.outliers["far"].features, classifier.features(pixels))


@pytest.mark.parametrize("batches", [1, 3])
def test_stopped_and_begun_again(
    classifier: Classifier, images: LabelledImages, tmp_path: Path, batches: int, always: None
) -> None:
    """The features are, bit for bit, those of a pass never stopped; another key begins anew, with a warning."""
    collected = collect(classifier, images)
    wanted = make_outliers(classifier, images, collected, None, "key")
    with stopped_after(batches):
        make_outliers(classifier, images, collected, tmp_path / "partial", "key")
    found = make_outliers(classifier, images, collected, tmp_path / "partial", "key")
    for kind, (features, sources) in wanted.outliers.items():
        assert torch.equal(found.outliers[kind].features, features)
        assert torch.equal(found.outliers[kind].sources, sources)
    assert (found.unreadable, found.warnings) == (wanted.unreadable, ())
    (warning,) = make_outliers(classifier, images, collected, tmp_path / "partial", "another").warnings
    assert "begun anew" in warning


def test_features_that_are_not_finite(images: LabelledImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that answers an outlier with NaN is refused, with the file that it was made of."""
    classifier = load_classifier(networks.fine(), torch.device("cpu"))
    collected = collect(classifier, images)
    features = classifier.features
    monkeypatch.setattr(classifier, "features", lambda pixels, alone: features(pixels, alone=alone) * torch.nan)
    with pytest.raises(DatasetError, match=f"NaN or infinity.*{images.paths[0]}"):
        make_outliers(classifier, images, collected, None, "key")
