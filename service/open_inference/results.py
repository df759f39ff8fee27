"""What is answered of each image: one output tensor of shape [n] each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scoring.metadata import OperatingPoint
from scoring.scorer import ImageScore, Scorer
from service.open_inference.schemas import INPUT, ModelMetadata, TensorMetadata
from service.open_inference.tensors import DataType

OUTPUTS: dict[str, DataType] = {
    "class_index": "INT64",
    "class_name": "BYTES",
    "probability": "FP32",
    "ood_score": "FP64",
    "p_value": "FP64",
    "reject": "BOOL",
}


def columns(scorer: Scorer, scores: Sequence[ImageScore], point: OperatingPoint) -> dict[str, list[Any]]:
    """The elements of every output, one an image."""
    class_names = scorer.artifact.metadata.classifier.class_names
    best = [score.predicted for score in scores]
    return {
        "class_index": best,
        "class_name": [class_names[index] for index in best],
        "probability": [float(score.probabilities[index]) for score, index in zip(scores, best, strict=True)],
        "ood_score": [score.ood_score for score in scores],
        "p_value": [score.p_value for score in scores],
        "reject": [scorer.decide(score, point).reject for score in scores],
    }


def metadata(name: str, version: str) -> ModelMetadata:
    """What the model takes and gives."""
    return ModelMetadata(
        name=name,
        versions=[version],
        platform="line-ood_safetensors",
        inputs=[TensorMetadata(name=INPUT, datatype="BYTES", shape=[-1])],
        outputs=[TensorMetadata(name=own, datatype=datatype, shape=[-1]) for own, datatype in OUTPUTS.items()],
    )
