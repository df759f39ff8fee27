"""The self-test: what was calibrated is served, whatever else is wrong is refused with a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scoring.artifact import Artifact
from scoring.embedded import ARTIFACT
from scoring.engines.engine import EngineChoice
from scoring.errors import SelfTestError
from scoring.scorer import Scorer

CPU = torch.device("cpu")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def with_preprocess(path: Path, target: Path, **changes: object) -> Path:
    """The artifact as it would be if somebody had another preprocessing in mind, its digest included."""
    artifact = Artifact.load(path)
    preprocess = artifact.metadata.preprocess.model_copy(update=changes)
    digests = artifact.metadata.digests.model_copy(update={"preprocess": preprocess.digest()})
    changed = artifact.metadata.model_copy(update={"preprocess": preprocess, "digests": digests})
    dataclasses.replace(artifact, metadata=changed).save(target)
    return target


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Scorer]:
    """Load the embedded artifact, a real network's, with changes."""

    def load_changed(**changes: object) -> Scorer:
        return Scorer.load(with_preprocess(ARTIFACT, tmp_path / "changed.safetensors", **changes), CPU)

    return load_changed


def test_what_was_calibrated_passes() -> None:
    """The artifact that ships scores its probe images as it did, on whatever machine this is."""
    Scorer.load(ARTIFACT, CPU).check_probes()


def test_another_normalisation_is_refused(load: Callable[..., Scorer]) -> None:
    """ImageNet's usual mean and std on a network trained with 0.5: the deviation and what is allowed are told."""
    with pytest.raises(SelfTestError, match=r"probe images score \d.* away .* is allowed"):
        load(**IMAGENET)


def test_changed_weights_are_refused() -> None:
    """A layer that is not what it was, behind the digest's back: a broken conversion, or memory that went bad."""
    scorer = Scorer.load(ARTIFACT, CPU)
    layer = next(each for each in scorer.classifier.backbone.network.modules() if isinstance(each, torch.nn.Conv2d))
    layer.weight.data *= 1.5
    with pytest.raises(SelfTestError):
        scorer.check_probes()


def test_an_engine_that_answers_nonsense_is_refused() -> None:
    """NaN is no number to compare, and does not pass for a small deviation."""
    scorer = Scorer.load(ARTIFACT, CPU)

    class Broken:
        lanes, useful_batch = 1, 8

        def features(self, pixels: torch.Tensor, *, alone: bool = True) -> torch.Tensor:
            return torch.full((len(pixels), 1280), torch.nan)

    scorer.classifier.engine = Broken()
    with pytest.raises(SelfTestError):
        scorer.check_probes()


def test_one_probe_that_jumps_is_no_reason_to_refuse() -> None:
    """A routed class may tie and flip on another processor; one image of eight tells nothing of the path."""
    scorer = Scorer.load(ARTIFACT, CPU)
    jumped = scorer.artifact.probes["line"].copy()
    jumped[3] += 5
    scorer.artifact = dataclasses.replace(scorer.artifact, probes={"line": jumped})
    scorer.check_probes()
    scorer.artifact = dataclasses.replace(scorer.artifact, probes={"line": jumped + 5})
    with pytest.raises(SelfTestError):
        scorer.check_probes()


def test_another_engine_on_purpose_is_not_refused() -> None:
    """Who asks for another engine is told what it costs, and is served."""
    rough = Scorer.load(ARTIFACT, CPU, engine=EngineChoice(precision="bfloat16"))
    assert rough.probe_deviations().max() > 0
