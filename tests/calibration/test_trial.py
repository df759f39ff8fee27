"""Choosing an engine by trying: what is fast is taken only where it is right, and what fails is told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from calibration.trial import CANDIDATES, Trial, fastest, try_engines
from scoring.backbone import noise
from scoring.classifier import REFERENCE, Classifier
from scoring.engines.engine import EngineChoice
from scoring.preprocess import Preprocess

PREPROCESS = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
OPENVINO = EngineChoice(name="openvino", precision="bfloat16")


def small_classifier() -> Classifier:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)]
    return Classifier(nn.Sequential(*layers), PREPROCESS, torch.device("cpu"))


def test_every_engine_and_precision_is_a_candidate() -> None:
    """Four engines in two precisions, the reference first."""
    assert len(CANDIDATES) == len(set(CANDIDATES)) == 8
    assert CANDIDATES[0] == REFERENCE


def test_trials_measure_speed_and_deviation() -> None:
    """The reference deviates by nothing, bfloat16 by its rounding, and what cannot run here says why."""
    classifier = small_classifier()
    candidates = [REFERENCE, OPENVINO, EngineChoice(name="cudagraph")]
    reference, openvino, cudagraph = try_engines(classifier, noise(PREPROCESS, 8), candidates)
    assert reference.deviation == 0 and reference.images_per_s > 0
    assert 0 < openvino.deviation < 0.05 and openvino.images_per_s > 0
    assert cudagraph.images_per_s == 0 and cudagraph.deviation == math.inf
    assert "needs a GPU" in str(cudagraph)
    assert "images/s" in str(openvino)
    assert classifier.choice == REFERENCE


def test_a_network_that_an_engine_breaks_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a compiler raises becomes the reason why its engine is not taken."""
    classifier = small_classifier()

    def broken(choice: EngineChoice) -> None:
        if choice == OPENVINO:
            raise RuntimeError("unsupported\noperation")

    monkeypatch.setattr(classifier, "use", broken)
    _, failed = try_engines(classifier, noise(PREPROCESS, 2), [REFERENCE, OPENVINO])
    assert failed.obstacle == "fails on this network: unsupported operation"


def test_int8_is_no_candidate() -> None:
    """Its price cannot be told from a few images: whoever wants it names it."""
    assert {each.precision for each in CANDIDATES} == {"float32", "bfloat16"}


@pytest.mark.parametrize(
    ("tolerance", "taken"), [(0.0, REFERENCE), (0.01, OPENVINO), (0.5, EngineChoice(name="compiled"))]
)
def test_the_fastest_within_the_tolerance_is_taken(tolerance: float, taken: EngineChoice) -> None:
    """However fast another one is; with no tolerance at all, the reference."""
    trials = [
        Trial(REFERENCE, 10, 0.0),
        Trial(OPENVINO, 100, 0.004),
        Trial(EngineChoice(name="compiled"), 1000, 0.2),
        Trial(EngineChoice(name="cudagraph"), obstacle="needs a GPU"),
    ]
    assert fastest(trials, tolerance) == taken
