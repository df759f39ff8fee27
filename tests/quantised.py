"""The tiny network in int8, made as calibration makes it."""

from __future__ import annotations

import functools

import torch

from calibration.quantise import quantise
from scoring.backbone import noise
from scoring.classifier import Classifier, load_classifier
from scoring.engines.engine import EngineChoice
from scoring.engines.quantised import QuantisedNetwork
from tests.factories.tiny import tiny

INT8 = EngineChoice(name="openvino", precision="int8")


@functools.cache
def tiny_network(seed: int = 0) -> QuantisedNetwork:
    """Quantised on noise; another seed gives another network."""
    classifier = load_classifier(tiny(), torch.device("cpu"))
    return quantise(classifier.backbone, noise(classifier.preprocess, 16 + seed))


def tiny_in_int8() -> Classifier:
    return load_classifier(tiny(), torch.device("cpu"), None, INT8, tiny_network())
