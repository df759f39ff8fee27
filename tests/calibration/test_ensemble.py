"""The scores beside LINe: fitted in the calibration's pass, stored, restored, merged, chosen as primary."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.dataset import LabelledImages
from calibration.job import Job, calibrate
from calibration.settings import LineSettings
from scoring import conformal
from scoring.artifact import Artifact
from scoring.classifier import Classifier, load_classifier
from scoring.errors import DatasetError, TooFewImagesError
from scoring.methods import METHODS, Sample, fit_all
from scoring.scorer import Scorer
from scoring.spec import load_spec
from tests.artifacts import TINY_SPEC, write_images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier(load_spec(TINY_SPEC), CPU)


@pytest.fixture(scope="module")
def job(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Job:
    count = len(classifier.head.bias)
    folder = write_images(tmp_path_factory.mktemp("images"), count, 40)
    masks, holdout = LabelledImages.read(folder, None, count).split(0.5)
    return Job(TINY_SPEC, masks, holdout, LineSettings(), {"default": 0.1, "strict": 0.02}, "tests")


@pytest.fixture(scope="module")
def artifact(job: Job, classifier: Classifier) -> Artifact:
    return calibrate(job, classifier).artifact


def pixels_of(images: LabelledImages, classifier: Classifier) -> torch.Tensor:
    return torch.stack([classifier.preprocess.read(path.read_bytes()) for path in images.paths])


def test_all_methods_that_fit_are_there(artifact: Artifact) -> None:
    """Each has calibration scores, and probes; LINe decides unless told otherwise."""
    names = ["line", *METHODS, "combined"]
    assert list(artifact.scores) == list(artifact.probes) == names
    assert artifact.metadata.primary == "line"
    assert artifact.metadata.combined == ["line", "energy"]


def test_calibration_scores_are_those_of_methods_fitted_to_the_masks_images(
    artifact: Artifact, job: Job, classifier: Classifier
) -> None:
    """Fitted here by hand to the features of the same images, each method gives the held-out images the same scores."""
    features, _ = classifier.forward(pixels_of(job.mask_images, classifier))
    labels = job.mask_images.labels(range(len(job.mask_images.items)))
    fitted = fit_all(METHODS, Sample(features, labels), classifier.head)
    held, logits = classifier.forward(pixels_of(job.holdout_images, classifier))
    for name, method in fitted.items():
        wanted = method.score(held, logits.double()).double().numpy()
        np.testing.assert_allclose(artifact.scores[name], wanted, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_file_brings_every_score_back(artifact: Artifact, classifier: Classifier, tmp_path: Path, job: Job) -> None:
    """Saved, loaded and bound to the classifier, every method scores the held-out images to the calibration scores."""
    artifact.save(tmp_path / "a.safetensors")
    scorer = Scorer.load(tmp_path / "a.safetensors", CPU)
    scores = scorer.score(pixels_of(job.holdout_images, classifier), every=True)
    for name, wanted in artifact.scores.items():
        found = [score.methods[name][0] for score in scores]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_only_the_primary_is_computed_unless_all_are_asked_for(artifact: Artifact, classifier: Classifier) -> None:
    """What nobody asks for costs nothing."""
    scorer = Scorer(classifier, artifact)
    noise = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert [list(score.methods) for score in scorer.score(noise)] == [["line"]] * 2
    both = scorer.score(noise, every=True)
    assert [list(score.methods) for score in both] == [list(artifact.scores)] * 2
    assert [score.ood_score for score in both] == pytest.approx([s.ood_score for s in scorer.score(noise)], abs=1e-5)


@pytest.mark.parametrize("primary", ["energy", "combined"])
def test_another_primary_decides(job: Job, classifier: Classifier, primary: str) -> None:
    """Its scores are published, its calibration scores make thresholds and p-values, and they agree."""
    artifact = calibrate(dataclasses.replace(job, primary=primary), classifier).artifact
    assert artifact.calibration_scores is artifact.scores[primary]
    for point in artifact.metadata.operating_points:
        assert point.threshold == conformal.threshold(artifact.scores[primary], point.alpha)
    scorer = Scorer(classifier, artifact)
    for score in scorer.score(pixels_of(job.holdout_images, classifier), every=True):
        assert (score.ood_score, score.p_value) == score.methods[primary]
        assert scorer.decide(score, artifact.operating_points["default"]).reject is (score.p_value <= 0.1)


def test_the_combination_rises_with_each_of_its_methods(artifact: Artifact, job: Job, classifier: Classifier) -> None:
    """The image that is further out for both is further out for their merge."""
    scores = Scorer(classifier, artifact).score(pixels_of(job.holdout_images, classifier), every=True)
    rows = [tuple(score.methods[name][0] for name in ("line", "energy", "combined")) for score in scores]
    compared = 0
    for one in rows:
        for other in rows:
            if one[0] > other[0] and one[1] > other[1]:
                compared += 1
                assert one[2] >= other[2]
    assert compared > 100


def test_methods_can_be_left_out(job: Job, classifier: Classifier) -> None:
    """Without others there is nothing to merge, and the artifact holds LINe alone."""
    artifact = calibrate(dataclasses.replace(job, methods=()), classifier).artifact
    assert list(artifact.scores) == ["line"]
    assert artifact.metadata.combined == []
    assert artifact.learnt == {}


def test_a_primary_that_is_not_there_is_refused(job: Job, classifier: Classifier) -> None:
    """Before the pass over the held-out images, and by name."""
    with pytest.raises(DatasetError, match=r"combined.*line, energy"):
        calibrate(dataclasses.replace(job, methods=("msp",), primary="combined"), classifier)


def test_pac_thresholds(job: Job, classifier: Classifier) -> None:
    """The rank is that of the PAC guarantee; too few images are refused with both numbers."""
    count = len(job.holdout_images.items)
    pac = dataclasses.replace(job, guarantee="pac", delta=0.05, alphas={"default": 0.1})
    artifact = calibrate(pac, classifier).artifact
    place = conformal.pac_rank(count, 0.1, 0.05)
    assert artifact.metadata.operating_points[0].threshold == sorted(artifact.calibration_scores)[count - place]
    assert 0 < place < conformal.marginal_rank(count, 0.1)
    with pytest.raises(TooFewImagesError, match=r"299 held-out images for PAC.*marginal guarantee, which needs 99"):
        calibrate(dataclasses.replace(pac, alphas={"strict": 0.01}), classifier)
