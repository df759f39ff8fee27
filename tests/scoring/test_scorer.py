"""Classifier and artifact bound together: a tiny real network, calibrated on noise, scores images."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scoring import conformal, line
from scoring.artifact import Artifact
from scoring.classifier import Classifier, load_classifier
from scoring.detector import LineDetector, LineMasks
from scoring.engines.engine import EngineChoice
from scoring.errors import ArtifactError, DigestMismatchError, EngineError
from scoring.metadata import OperatingPoint
from scoring.preprocess import Preprocess
from scoring.probes import probe_pixels
from scoring.scorer import ImageScore, Scorer
from tests import reference
from tests.factories.tiny import CLASSES, tiny
from tests.scoring import artifacts

CPU = torch.device("cpu")
P_A, P_W, CLIP = 40.0, 30.0, 0.3


def noise(count: int, seed: int) -> Tensor:
    """Pictures of random colours with some noise, as uint8."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (count, 3, 1, 1), generator=random)
    return (colours + 40 * torch.randn(count, 3, 16, 16, generator=random)).clamp(0, 255).to(torch.uint8)


def lively_classifier(preprocess: Preprocess | None = None) -> Classifier:
    """The tiny network with a head that tells its random images apart."""
    parts = tiny()
    with torch.no_grad():
        parts.module[7].weight.mul_(12)
    return load_classifier(parts, CPU, preprocess)


def calibrate(classifier: Classifier, count: int = 99, alone_from: int | None = None) -> Artifact:
    """Masks from 60 images, thresholds from others, straight from the pure functions."""
    features, _ = classifier.forward(noise(60, 1))
    labels = torch.arange(60) % 5
    means = torch.stack([features[labels == c].double().mean(0) for c in range(5)])
    contribution = line.signed_contribution(means, classifier.head.weight)
    thresholds = torch.tensor([line.weight_threshold(row, classifier.head.weight, P_W) for row in contribution])
    masks = LineMasks(contribution, line.activation_mask(contribution, P_A), thresholds.double(), P_A)
    detector = LineDetector(classifier.head, masks, CLIP)
    logits, ood_scores = detector.score(classifier.features(noise(count, 2)))
    scores, predicted = ood_scores.double().numpy(), logits.argmax(1).numpy()
    _, probe_scores = detector.score(classifier.features(probe_pixels(classifier.preprocess.crop)))
    like = artifacts.build(list(CLASSES), 24, count).metadata
    points = [
        OperatingPoint(
            name=name,
            alpha=alpha,
            guarantee="marginal",
            delta=0.05,
            threshold=conformal.threshold(scores, alpha) if alone_from is None else None,
        )
        for name, alpha in {"default": 0.1, "strict": 0.01 if alone_from is None else 0.05, "half": 0.5}.items()
    ]
    metadata = like.model_copy(
        update={
            "method": like.method.model_copy(update={"p_a": P_A, "p_w": P_W, "clip": CLIP, "clip_quantile": None}),
            "methods": {},
            "alone_from": alone_from,
            "operating_points": points,
            "preprocess": classifier.preprocess,
            "digests": like.digests.model_copy(
                update={"weights": classifier.digest(), "preprocess": classifier.preprocess.digest()}
            ),
            "data": like.data.model_copy(update={"mask_images": 60, "classes_without_images": 0}),
        }
    )
    probes = {"line": probe_scores.double().numpy()}
    return Artifact(metadata, masks, torch.full((5,), 12), {"line": scores}, predicted, probes)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    classifier = lively_classifier()
    return Scorer(classifier, calibrate(classifier))


def oracle_masks(scorer: Scorer) -> reference.Masks:
    weight = scorer.classifier.head.weight.double().tolist()
    return reference.masks(scorer.artifact.masks.contribution.double().tolist(), weight, P_A, P_W)


class TestScores:
    def test_equal_the_oracle(self, scorer: Scorer) -> None:
        """From pixels to `ood_score`, with the masks of the artifact."""
        pixels = noise(40, 3)
        features, _ = scorer.classifier.forward(pixels)
        weight, bias = (part.double().tolist() for part in scorer.classifier.head)
        learnt = oracle_masks(scorer)
        wanted = [reference.ood_score(h, weight, bias, CLIP, learnt) for h in features.double().tolist()]
        assert [score.ood_score for score in scorer.score(pixels)] == pytest.approx(wanted, abs=1e-5)

    def test_do_not_depend_on_the_batch(self, scorer: Scorer) -> None:
        """An image alone and in company."""
        pixels = noise(20, 4)
        whole = [score.ood_score for score in scorer.score(pixels)]
        alone = [scorer.score(image)[0].ood_score for image in pixels.split(1)]
        assert alone == pytest.approx(whole, abs=1e-5)

    def test_p_values_are_those_of_the_scores(self, scorer: Scorer) -> None:
        """Against the artifact's calibration scores, by the oracle."""
        for score in scorer.score(noise(50, 5)):
            assert score.p_value == reference.p_value(score.ood_score, scorer.artifact.calibration_scores.tolist())

    def test_calibration_images_score_as_they_did(self, scorer: Scorer) -> None:
        """The path that is served is the path that was calibrated."""
        found = scorer.score(noise(99, 2))
        assert [score.ood_score for score in found] == scorer.artifact.calibration_scores.tolist()
        assert [score.predicted for score in found] == scorer.artifact.predicted.tolist()


class TestPredictions:
    def test_are_the_classifiers_own(self, scorer: Scorer) -> None:
        """Argmax of the full logits, also where LINe routes to another class."""
        pixels = noise(300, 6)
        features, logits = scorer.classifier.forward(pixels)
        routed = line.routed_class(line.clip(features, CLIP), scorer.classifier.head)
        found = [scorer.predictions(score, 1)[0].index for score in scorer.score(pixels)]
        assert (routed != logits.argmax(1)).sum() >= 10  # or this test would say nothing
        assert found == logits.argmax(1).tolist()

    def test_are_the_most_probable_first(self, scorer: Scorer) -> None:
        """With the names of the artifact, and probabilities that are the softmax of the logits."""
        pixels = noise(10, 7)
        _, logits = scorer.classifier.forward(pixels)
        for score, own in zip(scorer.score(pixels), logits.softmax(1), strict=True):
            predictions = scorer.predictions(score, 5)
            assert [each.index for each in predictions] == own.argsort(descending=True).tolist()
            assert [each.name for each in predictions] == [CLASSES[each.index] for each in predictions]
            assert [each.probability for each in predictions] == pytest.approx(own.sort(descending=True)[0].tolist())
            assert sum(each.probability for each in predictions) == pytest.approx(1)

    @pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (5, 5), (1000, 5)])
    def test_are_as_many_as_asked_for(self, scorer: Scorer, top_k: int, count: int) -> None:
        """Fewer where there are fewer classes."""
        assert len(scorer.predictions(scorer.score(noise(1, 8))[0], top_k)) == count

    def test_of_a_certain_network_keep_the_order_of_its_logits(self) -> None:
        """Where all but one probability underflow to zero, the runner-up is still the runner-up."""
        parts = tiny()
        with torch.no_grad():
            parts.module[7].weight.zero_()
            parts.module[7].bias.copy_(torch.tensor([-300.0, -200.0, 0.0, -250.0, -150.0]))
        classifier = load_classifier(parts, CPU)
        certain = Scorer(classifier, calibrate(classifier))
        found = certain.predictions(certain.score(noise(1, 8))[0], 5)
        assert [each.index for each in found] == [2, 4, 1, 3, 0]


class TestDecisions:
    def test_agree_with_p_value_and_margin(self, scorer: Scorer) -> None:
        """Each operating point: reject iff p <= alpha iff the margin is negative; some of each."""
        scores = scorer.score(noise(300, 9)) + scorer.score(noise(99, 2))
        for point in scorer.artifact.operating_points.values():
            decisions = [scorer.decide(score, point) for score in scores]
            for score, decision in zip(scores, decisions, strict=True):
                assert decision.reject == (score.p_value <= point.alpha) == (decision.margin < 0)
                assert decision.margin == point.threshold - score.ood_score
                assert decision.threshold == point.threshold
            assert {decision.reject for decision in decisions} == {True, False} or point.name == "strict"

    def test_on_the_threshold_is_accepted(self, scorer: Scorer) -> None:
        """The comparison is strict."""
        point = scorer.artifact.operating_points["default"]
        score = ImageScore(np.ones(1, dtype=np.float64), point.threshold, 0.5, 0)
        assert not scorer.decide(score, point).reject
        above = dataclasses.replace(score, ood_score=float(np.nextafter(point.threshold, np.inf)))
        assert scorer.decide(above, point).reject

    def test_of_stricter_points_are_fewer(self, scorer: Scorer) -> None:
        """What a smaller alpha rejects, a larger one rejects, too; on its own scores each rejects l - 1."""
        points = scorer.artifact.operating_points
        rejected = {
            name: {i for i, score in enumerate(scorer.score(noise(99, 2))) if scorer.decide(score, point).reject}
            for name, point in points.items()
        }
        assert rejected["strict"] <= rejected["default"] <= rejected["half"]
        assert [len(each) for each in rejected.values()] == [9, 0, 49]


class TestFiniteness:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_network_that_answers_nonsense_has_no_score(self, scorer: Scorer, bad: float) -> None:
        """NaN or infinity for one image of a batch: that image is not finite, its neighbours are as before."""
        pixels = noise(4, 10)
        wanted = [score.ood_score for score in scorer.score(pixels)]
        last = scorer.classifier.backbone.network[6]

        def spoil(_: object, __: object, features: Tensor) -> Tensor:
            features = features.clone()
            features[2, 0] = bad
            return features

        hook = last.register_forward_hook(spoil)
        try:
            found = scorer.score(pixels)
        finally:
            hook.remove()
        assert [score.is_finite for score in found] == [True, True, False, True]
        others = [0, 1, 3]
        assert [found[i].ood_score for i in others] == pytest.approx([wanted[i] for i in others], abs=1e-6)

    @pytest.mark.parametrize(
        ("probabilities", "ood_score", "finite"),
        [
            ([0.5, 0.5], -3.0, True),
            ([0.5, float("nan")], -3.0, False),
            ([0.5, 0.5], float("nan"), False),
            ([0.5, 0.5], float("-inf"), False),
        ],
    )
    def test_looks_at_everything(self, probabilities: list[float], ood_score: float, finite: bool) -> None:
        """Score and probabilities alike."""
        assert ImageScore(np.array(probabilities, dtype=np.float64), ood_score, 0.5, 0).is_finite is finite


class TestBinding:
    def test_another_networks_artifact_is_refused(self, scorer: Scorer) -> None:
        """One weight is enough."""
        classifier = lively_classifier()
        with torch.no_grad():
            classifier.backbone.network[0].weight[0, 0, 0, 0] += 1e-6
        with pytest.raises(DigestMismatchError) as caught:
            Scorer(classifier, scorer.artifact)
        assert caught.value.field == "digests.weights"

    def test_another_preprocessing_is_refused(self, scorer: Scorer) -> None:
        """The right network with images prepared in another way: every score would move."""
        other = scorer.classifier.preprocess.model_copy(update={"mean": (0.1, 0.1, 0.1)})
        with pytest.raises(DigestMismatchError) as caught:
            Scorer(lively_classifier(other), scorer.artifact)
        assert caught.value.field == "digests.preprocess"

    def test_shapes_of_another_head_are_refused(self, scorer: Scorer) -> None:
        """Though the digest says otherwise."""
        masks = scorer.artifact.masks
        fewer = LineMasks(masks.contribution[:, :20], masks.activation_mask[:, :20], masks.weight_thresholds, P_A)
        with pytest.raises(ArtifactError, match=r"'contribution': wanted shape \(5, 24\), found \(5, 20\)"):
            Scorer(scorer.classifier, dataclasses.replace(scorer.artifact, masks=fewer))


class TestLoading:
    @pytest.fixture
    def files(self, scorer: Scorer, tmp_path: Path) -> tuple[Path, Path]:
        """The artifact, and the weights that it was calibrated with."""
        scorer.artifact.save(tmp_path / "artifact")
        save_file(scorer.classifier.backbone.network.state_dict(), tmp_path / "weights.safetensors")
        return tmp_path / "artifact", tmp_path / "weights.safetensors"

    def test_gives_the_same_scores(self, scorer: Scorer, files: tuple[Path, Path]) -> None:
        """Through the file, with the classifier that the artifact names and the weights that are given."""
        artifact, weights = files
        loaded = Scorer.load(artifact, CPU, weights=weights)
        pixels = noise(12, 11)
        found, wanted = loaded.score(pixels), scorer.score(pixels)
        assert [score.ood_score for score in found] == [score.ood_score for score in wanted]
        assert [score.p_value for score in found] == [score.p_value for score in wanted]
        assert loaded.artifact.operating_points == scorer.artifact.operating_points

    def test_other_weights_are_refused(self, files: tuple[Path, Path]) -> None:
        """The factory's own weights are not the calibrated ones."""
        with pytest.raises(DigestMismatchError):
            Scorer.load(files[0], CPU)

    def test_the_artifacts_preprocessing_rules(self, scorer: Scorer, files: tuple[Path, Path], tmp_path: Path) -> None:
        """Not the one that the factory brings."""
        tensors, metadata = artifacts.take_apart(files[0])
        metadata["preprocess"]["resize"] = 17
        changed = scorer.classifier.preprocess.model_copy(update={"resize": 17})
        metadata["digests"]["preprocess"] = changed.digest()
        path = artifacts.put_together(tmp_path / "changed", tensors, metadata)
        assert Scorer.load(path, CPU, weights=files[1]).classifier.preprocess == changed

    def test_another_spec_may_be_given(self, scorer: Scorer, files: tuple[Path, Path], tmp_path: Path) -> None:
        """The same network from another place: the digest rules."""
        code = tmp_path / "moved.py"
        code.write_text("from tests.factories.tiny import tiny\ndef moved(): return tiny().module\n")
        loaded = Scorer.load(files[0], CPU, model=f"{code}:moved", weights=files[1])
        assert loaded.classifier.digest() == scorer.classifier.digest()
        assert loaded.classifier.preprocess == scorer.classifier.preprocess


class TestEngines:
    def test_another_one_than_calibrated_is_run_when_asked_for(self, tmp_path: Path, scorer: Scorer) -> None:
        """In the same precision scores stay where they were; the deviation on the probe images says so."""
        path = tmp_path / "tiny.safetensors"
        scorer.artifact.save(path)
        spec = "tests.factories.tiny:tiny"
        weights = tmp_path / "weights.safetensors"
        save_file(scorer.classifier.backbone.network.state_dict(), weights)
        other = Scorer.load(path, CPU, model=spec, weights=weights, engine=EngineChoice(name="openvino"))
        assert other.classifier.choice.name == "openvino"
        assert other.probe_deviations().max() < 1e-4
        rough = EngineChoice(name="openvino", precision="bfloat16")
        assert Scorer.load(path, CPU, model=spec, weights=weights, engine=rough).probe_deviations().max() > 1e-4

    def test_one_that_cannot_run_here_is_refused(self, tmp_path: Path, scorer: Scorer) -> None:
        """An artifact calibrated on a GPU is not quietly served by something else; the message says what would."""
        path = tmp_path / "gpu.safetensors"
        metadata = scorer.artifact.metadata.model_copy(update={"engine": EngineChoice(name="cudagraph")})
        dataclasses.replace(scorer.artifact, metadata=metadata).save(path)
        with pytest.raises(EngineError, match=r"calibrated with cudagraph:float32: .*needs a GPU.*--engine"):
            Scorer.load(path, CPU, model="tests.factories.tiny:tiny")


class TestProbes:
    def test_are_these(self) -> None:
        """Artifacts that exist hold scores of these very images, for any size."""
        for size, wanted in (((16, 16), "5f240e5e50ebbc61"), ((5, 70), "e56bc9c1fe6d70e9")):
            assert hashlib.sha256(probe_pixels(size).numpy().tobytes()).hexdigest()[:16] == wanted
