"""A tiny artifact built by hand, without any classifier: what the artifact's tests write and corrupt."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from scoring import conformal
from scoring.artifact import Artifact
from scoring.detector import LineMasks
from scoring.engines.engine import EngineChoice
from scoring.engines.quantised import QuantisedNetwork
from scoring.line import activation_mask
from scoring.metadata import (
    METADATA_KEY,
    ClassifierReference,
    DataCounts,
    Digests,
    Metadata,
    Method,
    OperatingPoint,
    Provenance,
    Quality,
    Quantisation,
)
from scoring.preprocess import Preprocess
from scoring.probes import PROBES

PREPROCESS = Preprocess(
    resize=18, crop=(16, 16), mean=(0.5, 0.25, 0.125), std=(1.0, 0.5, 0.25), interpolation="bicubic"
)
CLASSES = ["ant", "bee", "cat"]
METHODS: dict[str, dict[str, float]] = {"msp": {}, "dice": {"percentile": 90.0}}
ALPHAS = {"default": 0.1, "strict": 0.05}


def build(class_names: list[str] = CLASSES, feature_count: int = 4, calibration_images: int = 39) -> Artifact:
    """An artifact whose numbers are all known, the same on every machine."""
    classes = len(class_names)
    contribution = (torch.arange(classes * feature_count, dtype=torch.float32) - 3).reshape(classes, feature_count) / 8
    scores = np.roll(np.arange(calibration_images, dtype=np.float64), 7) / 4 - 9
    predicted = np.arange(calibration_images) ** 2 % classes
    counts = torch.arange(classes) % 3
    metadata = Metadata(
        method=Method(variant="signed", p_a=10.0, p_w=25.0, clip=0.75, clip_quantile=0.9),
        methods=METHODS,
        combined=[],
        primary="line",
        alone_from=None,
        operating_points=[
            OperatingPoint(
                name=name, alpha=alpha, guarantee="marginal", delta=0.05, threshold=conformal.threshold(scores, alpha)
            )
            for name, alpha in ALPHAS.items()
        ],
        classifier=ClassifierReference(
            spec="tests.factories.tiny:tiny",
            class_names=class_names,
            class_folders=[f"n{index:08}" for index in range(classes)],
            feature_count=feature_count,
        ),
        preprocess=PREPROCESS,
        engine=EngineChoice(),
        digests=Digests(weights="0123456789abcdef" * 4, preprocess=PREPROCESS.digest()),
        data=DataCounts(
            mask_images=int(counts.sum()),
            calibration_images=calibration_images,
            unreadable=1,
            classes_without_images=int((counts == 0).sum()),
        ),
        provenance=Provenance(
            command="line-ood calibrate --model tests.factories.tiny:tiny",
            created="2024-02-29T12:00:00+00:00",
            versions={"line-ood": "0.1.0", "python": "3.11.7"},
        ),
    )
    thresholds = torch.arange(classes, dtype=torch.float64) / 3 - 0.5
    masks = LineMasks(contribution, activation_mask(contribution, 10.0), thresholds, 10.0)
    others = {name: scores * (place + 2) for place, name in enumerate(METHODS)}
    probes = {name: np.arange(PROBES) / 8 + place for place, name in enumerate(("line", *METHODS))}
    learnt = {"methods.dice.mean": torch.arange(feature_count, dtype=torch.float32) / 2}
    return Artifact(metadata, masks, counts, {"line": scores} | others, predicted, probes, learnt)


def build_by_class(calibration_images: int = 200, alone_from: int = 39) -> Artifact:
    """The same with more calibration images, and thresholds by predicted class."""
    artifact = build(calibration_images=calibration_images)
    points = [point.model_copy(update={"threshold": None}) for point in artifact.metadata.operating_points]
    metadata = artifact.metadata.model_copy(update={"alone_from": alone_from, "operating_points": points})
    return dataclasses.replace(artifact, metadata=metadata)


def build_int8() -> Artifact:
    """The same with a quantised network, of which only OpenVINO could tell that it is none."""
    artifact, network = build(), QuantisedNetwork.from_bytes(b"<net/>", bytes(range(8)))
    quantisation = Quantisation(
        network=network.digest(),
        compared_images=39,
        float32=Quality(accuracy=0.75, fpr95=0.25),
        int8=Quality(accuracy=0.7421875, fpr95=0.2578125),
    )
    choice = EngineChoice(name="openvino", precision="int8")
    metadata = artifact.metadata.model_copy(update={"engine": choice, "quantisation": quantisation})
    return dataclasses.replace(artifact, metadata=metadata, quantised=network)


def take_apart(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file, as they lie there."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, json.loads(file.metadata()[METADATA_KEY])  # noqa: SIM118 - no dict


def put_together(path: Path, tensors: dict[str, Tensor], metadata: object) -> Path:
    """Write a file as no program of ours would."""
    path.write_bytes(save(tensors, {METADATA_KEY: metadata if isinstance(metadata, str) else json.dumps(metadata)}))
    return path
