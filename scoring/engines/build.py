"""From a choice to an engine."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from scoring.backbone import Backbone
from scoring.engines.compiled import CompiledEngine
from scoring.engines.cudagraph import CudaGraphEngine
from scoring.engines.eager import EagerEngine
from scoring.engines.engine import DTYPES, Engine, EngineChoice
from scoring.engines.openvino import OpenVinoEngine, convert, read
from scoring.engines.quantised import QuantisedNetwork
from scoring.errors import EngineError
from scoring.types import PixelBatch


def build(
    choice: EngineChoice,
    backbone: Backbone,
    pixels: PixelBatch,
    device: torch.device,
    quantised: QuantisedNetwork | None = None,
) -> Engine:
    """Make the engine that is asked for; the backbone itself stays as it is.

    Args:
        choice: which one.
        backbone: in float32, on `device`.
        pixels: a few images of the size that will come.
        device: where to run.
        quantised: the backbone in int8, where calibration has made that.

    Raises:
        EngineError: it cannot run here, or not this network.
        ArtifactError: `quantised` is no network for such images, or has other features.
    """
    if choice == EngineChoice():
        return EagerEngine(backbone, device)
    if choice.name == "openvino":
        if device.type != "cpu":
            raise EngineError(f"the engine 'openvino' runs on the CPU, the device is {device}")
        if choice.precision != "int8":
            return OpenVinoEngine(convert(backbone, pixels[:2]), choice.precision)
        if quantised is None:
            raise EngineError(
                f"the engine '{choice}' runs the quantised network of an artifact, and there is none: "
                f"line-ood calibrate --engine {choice} makes one"
            )
        return OpenVinoEngine(read(quantised, pixels, backbone.head.layer.in_features), choice.precision)
    own = copy.deepcopy(backbone)
    own.cast(DTYPES[choice.precision])
    own.network.to(memory_format=torch.channels_last)  # where convolutions are fastest
    makers: dict[str, Callable[[Backbone, torch.device], Engine]] = {
        "eager": EagerEngine,
        "compiled": CompiledEngine,
        "cudagraph": CudaGraphEngine,
    }
    return makers[choice.name](own, device)
