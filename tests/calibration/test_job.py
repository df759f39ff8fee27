"""Whole calibrations of real networks and real files, against LINe in plain loops."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calibration.dataset import LabelledImages
from calibration.job import Calibration, Job, calibrate
from calibration.report import as_text, calibration_summary
from calibration.settings import LineSettings
from scoring.artifact import Artifact
from scoring.classifier import Classifier, load_classifier
from scoring.errors import DatasetError, LineOodError, TooFewImagesError
from scoring.preprocess import Normalise
from scoring.spec import ClassifierParts
from tests import reference
from tests.calibration import networks
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders
from tests.factories.tiny import CLASSES as TINY_CLASSES
from tests.factories.tiny import tiny

ALPHAS = {"usual": 0.1}
SETTINGS = {
    "default": LineSettings(),
    "many neurons, few weights": LineSettings(p_a=15, p_w=85, clip=0.3, clip_quantile=None),
    "few neurons, many weights": LineSettings(p_a=90, p_w=30, clip=None, clip_quantile=0.6),
    "nothing removed": LineSettings(p_a=0, p_w=0, clip=None, clip_quantile=None),
}


def bind(parts: ClassifierParts) -> Classifier:
    return load_classifier(parts, torch.device("cpu"))


def make_job(
    folder: Path,
    classes: Sequence[str] = TINY_CLASSES,
    settings: LineSettings = LineSettings(),  # noqa: B008 - frozen
    alphas: Mapping[str, float] = ALPHAS,
    counts: tuple[int, int] = (7, 6),
) -> Job:
    """`counts` pictures a class for masks and thresholds."""
    for name, count, first in zip(("masks", "holdout"), counts, (0, 100), strict=True):
        write_class_folders(folder / name, classes, count, first)
    masks, holdout = (LabelledImages.read(folder / name, classes, 5) for name in ("masks", "holdout"))
    return Job("spec", masks, holdout, settings, dict(alphas), "a command", tuple(classes))


def plain_features(parts: ClassifierParts, images: LabelledImages) -> list[list[float]]:
    """What the layers before the head say of each image alone."""
    layers = list(parts.module.eval())[:-1]
    assert parts.preprocess is not None
    rows = []
    for path, _ in images.items:
        values = Normalise(parts.preprocess)(parts.preprocess.read(path.read_bytes())[None])
        for layer in layers:
            values = layer(values)
        rows.append(values[0].double().tolist())
    return rows


def compare(parts: ClassifierParts, job: Job, calibration: Calibration, *, absolute: bool) -> None:
    """Contributions, masks, thresholds and held-out scores are those of the slow oracle."""
    artifact = calibration.artifact
    weight, bias = (values.double().tolist() for values in (parts.module[-1].weight, parts.module[-1].bias))
    labels = [label for _, label in job.mask_images.items]
    features = plain_features(parts, job.mask_images)

    wanted = reference.contribution(features, labels, weight, absolute=absolute)
    np.testing.assert_allclose(artifact.masks.contribution, wanted, rtol=1e-4, atol=1e-6)

    stored = artifact.masks.contribution.double().tolist()  # rounded to float32: an entry may sit on its percentile
    method = artifact.metadata.method
    learnt = reference.masks(stored, weight, method.p_a, method.p_w)
    assert artifact.masks.activation_mask.tolist() == learnt.activation
    assert artifact.masks.weight_thresholds.tolist() == pytest.approx(
        [reference.weight_threshold(row, weight, method.p_w) for row in stored], rel=1e-12
    )

    held = plain_features(parts, job.holdout_images)
    scores = [reference.ood_score(row, weight, bias, method.clip, learnt) for row in held]
    np.testing.assert_allclose(artifact.calibration_scores, scores, rtol=1e-4, atol=1e-5)
    logits = [reference.linear(row, weight, bias) for row in held]
    assert artifact.predicted.tolist() == [row.index(max(row)) for row in logits]


@pytest.mark.parametrize("name", SETTINGS)
def test_whole_job(tmp_path: Path, name: str) -> None:
    """Masks, thresholds and held-out scores of a whole job are LINe's, for settings of either extreme."""
    job = make_job(tmp_path, settings=SETTINGS[name])
    calibration = calibrate(job, bind(tiny()))
    assert calibration.artifact.metadata.method.variant == "signed"
    assert calibration.warnings == ()
    compare(tiny(), job, calibration, absolute=False)


def test_settings_are_kept(tmp_path: Path) -> None:
    """The artifact says which settings were used, and the clip that a quantile came to."""
    job = make_job(tmp_path, settings=LineSettings(p_a=30, p_w=60, clip=None, clip_quantile=0.9))
    method = calibrate(job, bind(tiny())).artifact.metadata.method
    assert (method.p_a, method.p_w, method.clip_quantile) == (30, 60, 0.9)
    wanted = np.quantile(plain_features(tiny(), job.mask_images), 0.9, method="lower")
    assert method.clip == pytest.approx(wanted, rel=2**-12 + 1e-5)
    fixed = calibrate(replace(job, settings=LineSettings(10, 10, 0.8, None)), bind(tiny()))
    assert (fixed.artifact.metadata.method.clip, fixed.artifact.metadata.method.clip_quantile) == (0.8, None)


def test_clip_at_zero(tmp_path: Path) -> None:
    """A clip quantile that falls among the zeros of a ReLU is refused: every image would have the same score."""
    job = make_job(tmp_path, networks.CLASSES)
    features = plain_features(networks.sparse(), job.mask_images)
    assert 0.95 < np.mean(np.array(features) == 0) < 1
    with pytest.raises(LineOodError, match="clip"):
        calibrate(job, bind(networks.sparse()))


def test_negative_features(tmp_path: Path) -> None:
    """Features of either sign take the paper's absolute contribution, and a warning says that LINe is weak there."""
    job = make_job(tmp_path, networks.CLASSES)
    calibration = calibrate(job, bind(networks.negative()))
    assert calibration.artifact.metadata.method.variant == "absolute"
    (warning,) = calibration.warnings
    assert "negative" in warning
    assert "line-ood evaluate" in warning
    assert "line-paper" not in calibration.artifact.scores  # it is what line already is
    compare(networks.negative(), job, calibration, absolute=True)


def test_classes_without_images(tmp_path: Path) -> None:
    """Classes without images take the mean over the others: counted, warned of, and never NaN."""
    job = make_job(tmp_path)
    some = LabelledImages(tuple(item for item in job.mask_images.items if item[1] not in {1, 4}), TINY_CLASSES)
    job = replace(job, mask_images=some)
    calibration = calibrate(job, bind(tiny()))
    (warning,) = calibration.warnings
    assert "2 of 5 classes have no images" in warning
    artifact = calibration.artifact
    assert artifact.counts.tolist() == [7, 0, 7, 7, 0]
    assert artifact.metadata.data.classes_without_images == 2
    assert artifact.masks.contribution.isfinite().all()
    assert np.isfinite(artifact.calibration_scores).all()
    compare(tiny(), job, calibration, absolute=False)


def test_a_class_whose_images_cannot_be_read(tmp_path: Path) -> None:
    """A class of which no file can be read is a class without images."""
    job = make_job(tmp_path)
    for path in (tmp_path / "masks" / "cat").iterdir():
        path.write_bytes(NOT_AN_IMAGE)
    calibration = calibrate(job, bind(tiny()))
    assert any("1 of 5 classes have no images" in warning for warning in calibration.warnings)
    assert calibration.artifact.counts.tolist() == [7, 7, 0, 7, 7]
    assert calibration.artifact.masks.contribution.isfinite().all()


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.3, 3)])
def test_too_few_images(alpha: float, needed: int) -> None:
    """Too few held-out images are refused with the number needed, before any image is read: these do not exist."""
    items = tuple((Path(f"nowhere/{i}.png"), i % 5) for i in range(needed - 1))
    images = LabelledImages(items, TINY_CLASSES)
    job = Job("spec", images, images, LineSettings(), {"easy": 0.9, "hard": alpha}, "a command")
    with pytest.raises(TooFewImagesError, match=f"needs at least {needed} held-out images, found {needed - 1}"):
        calibrate(job, bind(tiny()))


def test_just_enough_images(tmp_path: Path) -> None:
    """The number that the refusal names is enough: the threshold is then the largest score."""
    job = make_job(tmp_path, counts=(2, 4))
    enough = LabelledImages(job.holdout_images.items[:19], TINY_CLASSES)
    artifact = calibrate(replace(job, holdout_images=enough, alphas={"a": 0.05}), bind(tiny())).artifact
    assert artifact.metadata.operating_points[0].threshold == artifact.calibration_scores.max()


def test_too_few_that_can_be_read(tmp_path: Path) -> None:
    """Files that turn out not to be images do not count for the rate that is promised."""
    job = make_job(tmp_path, counts=(2, 2))
    job.holdout_images.items[3][0].write_bytes(NOT_AN_IMAGE)
    with pytest.raises(TooFewImagesError, match="needs at least 10 held-out images, found 9: give 1 more"):
        calibrate(replace(job, alphas={"a": 1 / 11}), bind(tiny()))


def test_unreadable_files(tmp_path: Path) -> None:
    """Files that are no images are listed with their reasons and counted, and the rest is as if they were not there."""
    job = make_job(tmp_path)
    wanted = calibrate(job, bind(tiny())).artifact
    bad = [
        tmp_path / "masks" / "bee" / "0.txt",
        tmp_path / "masks" / "eel" / "9.png",
        tmp_path / "holdout" / "ant" / "z",
    ]
    for path in bad:
        path.write_bytes(NOT_AN_IMAGE)
    masks, holdout = (LabelledImages.read(tmp_path / name, TINY_CLASSES, 5) for name in ("masks", "holdout"))
    calibration = calibrate(replace(job, mask_images=masks, holdout_images=holdout), bind(tiny()))
    assert set(calibration.unreadable) == set(bad)
    assert all("none of JPEG" in reason for reason in calibration.unreadable.values())
    data = calibration.artifact.metadata.data
    assert (data.unreadable, data.mask_images, data.calibration_images) == (3, 35, 30)
    assert calibration.artifact.counts.tolist() == wanted.counts.tolist()
    # Batches fall differently, and a network may round differently in another batch.
    np.testing.assert_allclose(calibration.artifact.masks.contribution, wanted.masks.contribution, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(calibration.artifact.calibration_scores, wanted.calibration_scores, rtol=1e-4)


@pytest.mark.parametrize("name", ["masks", "holdout"])
def test_nothing_readable(tmp_path: Path, name: str) -> None:
    """Where no file at all is an image, the job ends with the first file and its reason."""
    job = make_job(tmp_path)
    for path in (tmp_path / name).rglob("*.png"):
        path.write_bytes(NOT_AN_IMAGE)
    count = 35 if name == "masks" else 30
    with pytest.raises(
        DatasetError, match=rf"none of the {count} files could be read as an image; the first, .*ant.*none of JPEG"
    ):
        calibrate(job, bind(tiny()))


@pytest.mark.parametrize("name", ["masks", "holdout"])
@pytest.mark.parametrize("count", [1, 5, 7])
def test_answers_that_are_not_finite(tmp_path: Path, name: str, count: int) -> None:
    """A network that answers some images with NaN is refused in either pass, by the names of the first batch's."""
    job = make_job(tmp_path, networks.CLASSES)
    (tmp_path / name / "apple" / "0.txt").write_bytes(
        NOT_AN_IMAGE
    )  # so that places in the batch are not those of files
    bad = sorted((tmp_path / name).rglob("*.png"))[:count]
    for path in bad:
        Image.new("RGB", (32, 32), "white").save(path)
    with pytest.raises(DatasetError, match="NaN") as caught:
        calibrate(relisted(job, tmp_path), bind(networks.fragile()))
    named = ", ".join(map(str, bad[:5])) + (" and 2 more" if count == 7 else "")
    assert str(caught.value).endswith(f": {named}")


def relisted(job: Job, folder: Path) -> Job:
    masks, holdout = (LabelledImages.read(folder / name, networks.CLASSES, 5) for name in ("masks", "holdout"))
    return replace(job, mask_images=masks, holdout_images=holdout)


def test_folders_that_are_not_named_as_classes(tmp_path: Path) -> None:
    """Folders taken for the classes in alphabetical order, as no name fits, are warned of with examples of both."""
    job = make_job(tmp_path)
    assert calibrate(job, bind(tiny())).warnings == ()
    assert calibrate(replace(job, class_names=None), bind(tiny())).warnings == ()
    (warning,) = calibrate(replace(job, class_names=("A", "B", "C", "D", "E")), bind(tiny())).warnings
    assert "the class folders (ant, bee, cat, ...) are not named as the classifier's classes (A, B, C, ...)" in warning
    assert "alphabetical order" in warning


def test_held_out_folders_of_other_names(tmp_path: Path) -> None:
    """So are held-out folders that are named otherwise than those of the masks."""
    job = make_job(tmp_path)
    held = replace(job.holdout_images, class_folders=("v", "w", "x", "y", "z"))
    (warning,) = calibrate(replace(job, holdout_images=held), bind(tiny())).warnings
    assert "held-out class folders (v, w, x, ...) are not named as the others (ant, bee, cat, ...)" in warning


def test_operating_points(tmp_path: Path) -> None:
    """Each operating point has the threshold of its own alpha, in the order given: the l-th largest held-out score."""
    job = make_job(tmp_path, alphas={"usual": 0.1, "loose": 0.5, "strict": 0.04})
    artifact = calibrate(job, bind(tiny())).artifact
    points = artifact.metadata.operating_points
    assert [(point.name, point.alpha) for point in points] == [("usual", 0.1), ("loose", 0.5), ("strict", 0.04)]
    largest_first = sorted(artifact.calibration_scores.tolist(), reverse=True)
    assert [point.threshold for point in points] == [largest_first[3 - 1], largest_first[15 - 1], largest_first[1 - 1]]


def test_accuracy(tmp_path: Path) -> None:
    """Each pass reports the share of its readable images that the classifier itself names rightly."""
    job = make_job(tmp_path)
    (tmp_path / "masks" / "ant" / "000.png").write_bytes(NOT_AN_IMAGE)
    calibration = calibrate(job, bind(tiny()))
    module = tiny().module
    for images, record in ((job.mask_images, calibration.mask_pass), (job.holdout_images, calibration.holdout_pass)):
        readable = LabelledImages(
            tuple(item for item in images.items if item[0] not in record.unreadable), TINY_CLASSES
        )
        logits = module[-1](torch.tensor(plain_features(tiny(), readable)))
        right = [int(row.argmax()) == label for row, (_, label) in zip(logits, readable.items, strict=True)]
        assert record.seen == len(right)
        assert record.accuracy == sum(right) / len(right)


def test_what_is_recorded(tmp_path: Path) -> None:
    """The artifact names the classifier, its digests, the data and where it comes from."""
    job = replace(make_job(tmp_path), class_names=("A", "B", "C", "D", "E"))
    classifier = bind(tiny())
    metadata = calibrate(job, classifier).artifact.metadata
    assert metadata.classifier.spec == "spec"
    assert metadata.classifier.class_names == ["A", "B", "C", "D", "E"]
    assert metadata.classifier.class_folders == list(TINY_CLASSES)
    assert metadata.classifier.feature_count == 24
    assert metadata.preprocess == tiny().preprocess
    assert metadata.digests.weights == classifier.digest()
    assert metadata.digests.preprocess == classifier.preprocess.digest()
    assert metadata.data.model_dump() == {
        "mask_images": 35,
        "calibration_images": 30,
        "unreadable": 0,
        "classes_without_images": 0,
    }
    assert metadata.provenance.command == "a command"
    assert torch.__version__.startswith(metadata.provenance.versions["torch"])
    assert metadata.provenance.versions["numpy"] == np.__version__
    assert metadata.provenance.versions["line-ood"] == version("line-ood")
    age = datetime.now(UTC) - datetime.fromisoformat(metadata.provenance.created)
    assert timedelta(seconds=-1) < age < timedelta(minutes=5)


def test_names_of_folders(tmp_path: Path) -> None:
    """Classes that nobody names are called like their folders."""
    job = replace(make_job(tmp_path), class_names=None)
    assert calibrate(job, bind(tiny())).artifact.metadata.classifier.class_names == list(TINY_CLASSES)


def test_same_again(tmp_path: Path) -> None:
    """The same job gives the same tensors and thresholds, bit for bit."""
    job = make_job(tmp_path)
    one, two = (calibrate(job, bind(tiny())).artifact for _ in range(2))
    assert torch.equal(one.masks.contribution, two.masks.contribution)
    assert torch.equal(one.masks.activation_mask, two.masks.activation_mask)
    assert torch.equal(one.masks.weight_thresholds, two.masks.weight_thresholds)
    assert one.calibration_scores.tolist() == two.calibration_scores.tolist()
    assert one.metadata.operating_points == two.metadata.operating_points


def test_artifact_survives_the_file(tmp_path: Path) -> None:
    """What a job makes passes every check of loading, and comes back the same."""
    made = calibrate(make_job(tmp_path), bind(tiny())).artifact
    made.save(tmp_path / "a.safetensors")
    loaded = Artifact.load(tmp_path / "a.safetensors")
    assert loaded.metadata == made.metadata
    assert torch.equal(loaded.masks.contribution, made.masks.contribution)
    assert loaded.calibration_scores.tolist() == made.calibration_scores.tolist()


def test_summary(tmp_path: Path) -> None:
    """The summary is JSON with the counts, both accuracies, and for each operating point the interval of its rate."""
    job = make_job(tmp_path)
    job.mask_images.items[0][0].write_bytes(NOT_AN_IMAGE)
    calibration = calibrate(job, bind(tiny()))
    summary = json.loads(as_text(calibration_summary(calibration, "0123")))
    assert summary["artifact_id"] == "0123"
    assert (summary["model"], summary["classes"], summary["features"]) == ("spec", 5, 24)
    assert summary["accuracy"] == {
        "mask_images": calibration.mask_pass.accuracy,
        "calibration_images": calibration.holdout_pass.accuracy,
    }
    assert list(summary["unreadable"]) == [str(job.mask_images.items[0][0])]
    (point,) = summary["operating_points"]
    assert point["threshold"] == calibration.artifact.metadata.operating_points[0].threshold
    # n = 30, alpha = 0.1: l = 3, the rate follows Beta(3, 28); drawn here instead of looked up.
    drawn = np.random.default_rng(0).beta(3, 28, 400_000)
    assert point["realised_rate_90"] == pytest.approx(np.quantile(drawn, [0.05, 0.95]), rel=0.01)
